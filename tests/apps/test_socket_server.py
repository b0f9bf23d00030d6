"""The sockets as uvicorn serves them: readers that do not read, frames that nobody asked for."""

import asyncio
import base64
import itertools
import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import pytest
import uvicorn
from asgiref.sync import sync_to_async
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Origin

from apps.drafts import consumers, services, stream, tailing
from apps.drafts.consumers import CLOSE_MISUSED, CLOSE_SLOW
from apps.drafts.models import Job
from galley import sockets
from galley.asgi import application
from galley.launcher import parts
from tests.support.cast import Newsroom, Person
from tests.support.factories import a_claimed_job, append_words

pytestmark = pytest.mark.django_db(transaction=True)

ORIGIN = Origin("http://localhost")
CHUNK_CHARS, NUM_CHUNKS = 20_000, 60
"""Far more than all buffers between the two ends hold."""


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """The web server with the product's own flags, in this process and on this loop."""
    with closing(parts.listen(0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        argv = parts.web(listener).argv
        flags = dict(itertools.pairwise(argv))
        server = uvicorn.Server(
            uvicorn.Config(
                application,
                ws=flags["--ws"],
                ws_max_size=int(flags["--ws-max-size"]),
                ws_per_message_deflate=flags["--ws-per-message-deflate"] == "true",
                lifespan="off",
                log_config=None,
                timeout_graceful_shutdown=1,
            )
        )
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.01)
        yield listener.getsockname()[1]
        server.should_exit = True
        await serving


def opened(port: int, draft_id: int, person: Person) -> connect:
    address = f"ws://127.0.0.1:{port}/ws/drafts/{draft_id}/"
    return connect(address, origin=ORIGIN, additional_headers=person.headers, compression=None, max_size=None)


async def close_code(browser: ClientConnection) -> int:
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            await asyncio.wait_for(browser.recv(), 10)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


@asynccontextmanager
async def deaf_browser(port: int, draft_id: int, person: Person) -> AsyncIterator[socket.socket]:
    """A raw socket that has shaken hands and reads nothing more."""
    loop = asyncio.get_running_loop()
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.setblocking(False)
        await loop.sock_connect(raw, ("127.0.0.1", port))
        lines = (
            f"GET /ws/drafts/{draft_id}/ HTTP/1.1",
            "Host: localhost",
            f"Origin: {ORIGIN}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
            "Sec-WebSocket-Version: 13",
            f"Authorization: {person.headers['Authorization']}",
        )
        await loop.sock_sendall(raw, "\r\n".join((*lines, "", "")).encode())
        yield raw


def long_text(room: Newsroom) -> Job:
    job = a_claimed_job(room)
    for _ in range(NUM_CHUNKS):
        stream.append(job=job, text="x" * CHUNK_CHARS, token_ids=[1])
    return job


@pytest.mark.parametrize("reads_in_the_end", [True, False])
async def test_a_browser_that_does_not_read_is_hung_up_on_and_disturbs_nobody(
    newsroom: Newsroom, port: int, reads_in_the_end: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "STALL_S", 1.0)
    monkeypatch.setattr(sockets, "CLOSE_S", 1.0)
    job = await sync_to_async(long_text)(newsroom)
    loop = asyncio.get_running_loop()

    async with (
        deaf_browser(port, job.draft_id, newsroom.eli) as deaf,
        opened(port, job.draft_id, newsroom.rosa) as healthy,
    ):
        num_chars = 0
        while num_chars < CHUNK_CHARS * NUM_CHUNKS:
            num_chars += len(await asyncio.wait_for(healthy.recv(), 5))
        assert tailing.num_followers() == 2
        await _until(lambda: tailing.num_followers() == 1)
        if not reads_in_the_end:
            await asyncio.sleep(1.5)
        received = b""
        try:
            while part := await asyncio.wait_for(loop.sock_recv(deaf, 65536), 5):
                received += part
        except ConnectionResetError:
            pass
        assert len(received) < CHUNK_CHARS * NUM_CHUNKS / 2
        goodbye = b"\x88\x02" + struct.pack("!H", CLOSE_SLOW)
        assert received.endswith(goodbye) == reads_in_the_end

        await sync_to_async(append_words)(job, " the end")
        await sync_to_async(services.finish_draft)(job=job, finish_reason="end")
        assert await close_code(healthy) == 1000


async def _until(condition: object) -> None:
    async with asyncio.timeout(5):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("said", "code"),
    [("{}", CLOSE_MISUSED), ("[" * 10_000, CLOSE_MISUSED), (b"\0", CLOSE_MISUSED), ("x" * 2**20, 1009)],
)
async def test_whoever_speaks_is_hung_up_on(
    newsroom: Newsroom, port: int, said: str | bytes, code: int
) -> None:
    job = await sync_to_async(a_claimed_job)(newsroom)

    async with opened(port, job.draft_id, newsroom.eli) as browser:
        await browser.recv()
        await browser.send(said)
        assert await close_code(browser) == code


async def test_nothing_is_compressed(newsroom: Newsroom, port: int) -> None:
    """A compressor costs each socket more memory than all the rest of it."""
    job = await sync_to_async(a_claimed_job)(newsroom)

    address = f"ws://127.0.0.1:{port}/ws/drafts/{job.draft_id}/"
    async with connect(address, origin=ORIGIN, additional_headers=newsroom.eli.headers) as browser:
        await browser.recv()
        assert browser.protocol.extensions == []
