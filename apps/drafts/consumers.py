"""The socket of a draft: `/ws/drafts/{id}/?after=CURSOR`. It pulls from its cursor, one frame at a time."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Any
from urllib.parse import parse_qs

from django.conf import settings
from django.db import Error as DatabaseProblem
from django.urls import path

from apps.drafts.readers import comes_in, reader_of
from apps.drafts.tailing import Cursor, NotWelcome, StreamBroken, follow

logger = logging.getLogger(__name__)

CLOSE_DONE = 1000
CLOSE_BROKEN = 1011
CLOSE_BAD_CURSOR = 4400
CLOSE_NOT_FOUND = 4404
CLOSE_MISUSED = 4405
CLOSE_SLOW = 4409

STALL_S = 30.0
"""A browser that takes no frame for so long is hung up on; it may come back with its cursor."""
GOODBYE_S = 5.0

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]


async def draft_socket(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends `chunk`, `state`, `reset` and `ping`; takes nothing from the browser.

    A plain ASGI application, because a Channels consumer costs every socket a channel of its own.
    """
    if (await receive())["type"] != "websocket.connect":
        return
    await send({"type": "websocket.accept"})  # a refused handshake carries no close code to the browser
    listening = asyncio.create_task(_listen(receive))
    telling = asyncio.create_task(_tell(scope, send))
    try:
        await asyncio.wait({listening, telling}, return_when=asyncio.FIRST_COMPLETED)
        code = listening.result() if listening.done() else telling.result()
    finally:
        for task in (listening, telling):
            task.cancel()
        await asyncio.gather(listening, telling, return_exceptions=True)
    if code:
        with suppress(OSError):  # also TimeoutError
            async with asyncio.timeout(GOODBYE_S):
                await send({"type": "websocket.close", "code": code})


async def _listen(receive: Receive) -> int:
    """Ends when the browser has left (0), or when it has spoken."""
    message = await receive()
    return 0 if message["type"] == "websocket.disconnect" else CLOSE_MISUSED


async def _tell(scope: Scope, send: Send) -> int:
    """Ends with the code to close with; 0 when the browser has left."""
    draft_id: int = scope["url_route"]["kwargs"]["draft_id"]
    cursor = Cursor.parse(parse_qs(scope["query_string"].decode("latin-1")).get("after", ["0"])[0])
    if cursor is None:
        return CLOSE_BAD_CURSOR
    headers = dict(scope["headers"])
    reader = reader_of(
        authorization=headers.get(b"authorization", b"").decode("latin-1"),
        session_key=scope["cookies"].get(settings.SESSION_COOKIE_NAME),
    )
    try:
        if not await comes_in(draft_id, reader):
            return CLOSE_NOT_FOUND
        async with aclosing(follow(draft_id, reader=reader, after=cursor)) as events:
            async for event in events:
                async with asyncio.timeout(STALL_S):
                    await send({"type": "websocket.send", "text": event.json})
    except NotWelcome:
        return CLOSE_NOT_FOUND
    except TimeoutError:
        return CLOSE_SLOW
    except OSError:  # uvicorn's ClientDisconnected
        return 0
    except StreamBroken:
        return CLOSE_BROKEN  # its tailer has said why, once for all
    except DatabaseProblem as problem:
        logger.warning("nobody can be let in to draft %s now: %s", draft_id, problem)
        return CLOSE_BROKEN
    except Exception:  # the edge of the loop: the browser comes back with its cursor
        logger.exception("stream of draft %s broke", draft_id)
        return CLOSE_BROKEN
    return CLOSE_DONE


websocket_urlpatterns = [path("ws/drafts/<int:draft_id>/", draft_socket)]  # type: ignore[arg-type]
