"""The socket of a draft: `/ws/drafts/{id}/?after=SEQ`. It pulls from its cursor, one frame at a time."""

import asyncio
import logging
from urllib.parse import parse_qs

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from django.urls import path

from apps.accounts.models import ApiToken, User
from apps.drafts import stream
from apps.drafts.models import Draft

logger = logging.getLogger(__name__)

CLOSE_BAD_CURSOR = 4400
CLOSE_NOT_FOUND = 4404
CLOSE_MISUSED = 4405
MAX_CURSOR = 2**31 - 1


class DraftConsumer(AsyncJsonWebsocketConsumer):
    """Sends `chunk`, `state`, `reset` and `ping`; takes nothing from the browser."""

    async def connect(self) -> None:
        self.draft_id: int = self.scope["url_route"]["kwargs"]["draft_id"]
        self.following: asyncio.Task[None] | None = None
        self.wake = asyncio.Event()
        await self.accept()  # a refused handshake carries no close code to the browser
        query = parse_qs(self.scope["query_string"].decode("latin-1"))
        cursor = parse_cursor(query.get("after", ["0"])[0])
        if cursor is None:
            return await self.close(CLOSE_BAD_CURSOR)
        if not await self._may_read():
            return await self.close(CLOSE_NOT_FOUND)
        await self.channel_layer.group_add(stream.group_name(self.draft_id), self.channel_name)
        self.following = asyncio.create_task(self._follow(cursor))

    async def disconnect(self, code: int) -> None:
        if self.following:
            self.following.cancel()
        await self.channel_layer.group_discard(stream.group_name(self.draft_id), self.channel_name)

    async def receive(
        self, text_data: str | None = None, bytes_data: bytes | None = None, **_: object
    ) -> None:
        await self.close(CLOSE_MISUSED)

    async def draft_changed(self, _event: dict[str, object]) -> None:
        self.wake.set()

    async def _follow(self, cursor: int) -> None:
        try:
            async for message in stream.follow(self.draft_id, after=cursor, wake=self.wake):
                if message["type"] == "ping" and not await self._may_read():
                    return await self.close(CLOSE_NOT_FOUND)
                await self.send_json(message)
        except Exception:  # the edge of the loop: the browser comes back with its cursor
            logger.exception("stream of draft %s broke", self.draft_id)
            await self.close(1011)
        else:
            await self.close(1000)

    @database_sync_to_async
    def _may_read(self) -> bool:
        user = self._bearer() or self.scope["user"]
        return user.is_authenticated and Draft.objects.for_user(user).filter(pk=self.draft_id).exists()

    def _bearer(self) -> User | None:
        header = dict(self.scope["headers"]).get(b"authorization", b"").decode("latin-1")
        scheme, _space, secret = header.partition(" ")
        return ApiToken.objects.user_for(secret) if scheme.lower() == "bearer" else None


def parse_cursor(value: str) -> int | None:
    """The number of the last chunk seen, clamped; None for something that is no cursor."""
    if not value.isascii() or not value.isdigit():
        return None
    return min(int(value[:20]), MAX_CURSOR)


websocket_urlpatterns = [path("ws/drafts/<int:draft_id>/", DraftConsumer.as_asgi())]
