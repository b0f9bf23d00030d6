"""/ws/drafts/{id}/?after=SEQ, spoken to by a pretend browser."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.conf import settings
from django.test import AsyncClient

from apps.drafts import consumers, services, tailing
from apps.drafts.consumers import CLOSE_BAD_CURSOR, CLOSE_MISUSED, CLOSE_NOT_FOUND, CLOSE_SLOW
from galley.asgi import application
from tests.support.cast import Newsroom, Person
from tests.support.factories import a_claimed_job, a_draft, append_words

pytestmark = pytest.mark.django_db(transaction=True)

Header = tuple[bytes, bytes]
Happening = Callable[[Newsroom, AsyncClient], Awaitable[None]]
LOCAL = (b"origin", b"http://localhost")


def bearer(person: Person) -> Header:
    return b"authorization", person.headers["Authorization"].encode()


class Browser:
    """One socket, opened and read like a browser would."""

    def __init__(self, draft_id: int, *headers: Header, query: str = "", origin: Header = LOCAL) -> None:
        self.scope = {
            "type": "websocket",
            "path": f"/ws/drafts/{draft_id}/",
            "query_string": query.encode(),
            "headers": [origin, *headers],
            "subprotocols": [],
        }
        self.socket = ApplicationCommunicator(application, self.scope)

    async def open(self) -> bool:
        await self.socket.send_input({"type": "websocket.connect"})
        return bool((await self._output())["type"] == "websocket.accept")

    async def _output(self) -> dict[str, Any]:
        output: dict[str, Any] = await self.socket.receive_output(timeout=5)
        return output

    async def message(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads((await self._output())["text"])
        return message

    async def say(self, **message: str | bytes) -> None:
        await self.socket.send_input({"type": "websocket.receive", **message})

    async def leave(self) -> None:
        await self.socket.send_input({"type": "websocket.disconnect", "code": 1001})
        await self.socket.wait(timeout=5)

    async def close_code(self) -> int:
        """The code with which the server closes, after whatever it still says."""
        while True:
            output = await self._output()
            if output["type"] == "websocket.close":
                return int(output["code"])

    async def read_to_the_end(self) -> tuple[list[dict[str, Any]], int]:
        messages = [await self.message()]
        while messages[-1].get("state") != "ready":
            messages.append(await self.message())
        return messages, await self.close_code()


@asynccontextmanager
async def opened(*args: Any, **kwargs: Any) -> AsyncIterator[Browser]:
    browser = Browser(*args, **kwargs)
    assert await browser.open()
    try:
        yield browser
    finally:
        await browser.leave()


async def test_a_finished_draft_is_told_and_the_socket_closed(newsroom: Newsroom) -> None:
    draft = await sync_to_async(a_draft)(newsroom)

    async with opened(draft.pk, bearer(newsroom.eli)) as browser:
        messages, code = await browser.read_to_the_end()

    assert [message["type"] for message in messages] == ["chunk", "state"]
    assert (messages[0]["seq"], messages[0]["text"]) == (1, draft.text)
    assert code == 1000


async def test_chunks_arrive_as_they_are_committed(
    newsroom: Newsroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tailing, "POLL_S", 60)  # only the hints can wake the tailer
    job = await sync_to_async(a_claimed_job)(newsroom)

    async with opened(job.draft_id, bearer(newsroom.rosa)) as browser:
        assert (await browser.message())["state"] == "writing"
        await asyncio.sleep(0.2)  # subscribed
        for seq, word in enumerate(("The", " doors", " open."), start=1):
            await sync_to_async(append_words)(job, word)
            chunk = await browser.message()
            assert (chunk["type"], chunk["first"], chunk["seq"], chunk["text"]) == ("chunk", seq, seq, word)
        await sync_to_async(services.finish_draft)(job=job, finish_reason="end")
        assert (await browser.message())["state"] == "ready"
        assert await browser.close_code() == 1000


async def test_a_browser_that_comes_back_gets_what_it_has_missed(newsroom: Newsroom) -> None:
    job = await sync_to_async(a_claimed_job)(newsroom)
    await sync_to_async(append_words)(job, "The", " doors")
    async with opened(job.draft_id, bearer(newsroom.eli)) as browser:
        assert (await browser.message())["seq"] == 2

    await sync_to_async(append_words)(job, " open", ".")
    await sync_to_async(services.finish_draft)(job=job, finish_reason="end")

    async with opened(job.draft_id, bearer(newsroom.eli), query="after=1.2") as browser:
        messages, _code = await browser.read_to_the_end()
    assert [message.get("text") for message in messages] == [" open.", None]


async def a_session(person: Person) -> tuple[AsyncClient, Header]:
    """A signed-in browser and the cookie that it sends."""
    client = AsyncClient()
    await client.aforce_login(person.user)
    cookie = f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}"
    return client, (b"cookie", cookie.encode())


async def test_a_session_is_as_good_as_a_token(newsroom: Newsroom) -> None:
    draft = await sync_to_async(a_draft)(newsroom)
    _client, cookie = await a_session(newsroom.eli)

    async with opened(draft.pk, cookie) as browser:
        messages, _code = await browser.read_to_the_end()

    assert messages[-1]["state"] == "ready"


async def test_nobody_and_strangers_find_no_draft(newsroom: Newsroom) -> None:
    draft = await sync_to_async(a_draft)(newsroom)
    stranger, nobody, liar = (
        bearer(newsroom.mallory), (b"accept", b"*/*"), (b"authorization", b"Bearer galley_made_up")
    )  # fmt: skip

    for header in (stranger, nobody, liar):
        async with opened(draft.pk, header) as browser:
            assert await browser.close_code() == CLOSE_NOT_FOUND


@pytest.mark.parametrize("draft_id", [999_999_999, 2**70])
async def test_a_draft_that_is_not_there_is_not_found(newsroom: Newsroom, draft_id: int) -> None:
    async with opened(draft_id, bearer(newsroom.eli)) as browser:
        assert await browser.close_code() == CLOSE_NOT_FOUND


@pytest.mark.parametrize("cursor", ["-1", "1.", ".5", "1.2.3", "1.-2", "x", "%00", "٣", "0x10", "1;drop"])
async def test_a_cursor_that_is_none_is_refused(newsroom: Newsroom, cursor: str) -> None:
    draft = await sync_to_async(a_draft)(newsroom)

    async with opened(draft.pk, bearer(newsroom.eli), query=f"after={cursor}") as browser:
        assert await browser.close_code() == CLOSE_BAD_CURSOR


@pytest.mark.parametrize("cursor", [str(2**63), str(10**30), f"1.{2**63}", "2"])
async def test_a_cursor_beyond_the_end_gets_the_end(newsroom: Newsroom, cursor: str) -> None:
    draft = await sync_to_async(a_draft)(newsroom)

    async with opened(draft.pk, bearer(newsroom.eli), query=f"after={cursor}") as browser:
        messages, code = await browser.read_to_the_end()

    assert ([message["type"] for message in messages], code) == (["state"], 1000)


async def test_whoever_speaks_is_hung_up_on(newsroom: Newsroom) -> None:
    job = await sync_to_async(a_claimed_job)(newsroom)

    said: tuple[dict[str, str | bytes], ...] = ({"text": "{}"}, {"text": "not json"}, {"bytes": b"\x00"})
    for message in said:
        async with opened(job.draft_id, bearer(newsroom.eli)) as browser:
            await browser.say(**message)
            assert await browser.close_code() == CLOSE_MISUSED


async def test_a_page_of_another_site_cannot_open_the_socket(newsroom: Newsroom) -> None:
    browser = Browser(1, bearer(newsroom.eli), origin=(b"origin", b"https://evil.example"))

    assert not await browser.open()


async def removed_from_the_project(room: Newsroom, client: AsyncClient) -> None:
    await room.project.memberships.filter(user=room.rosa.user).adelete()


async def signed_out(room: Newsroom, client: AsyncClient) -> None:
    await client.alogout()


async def given_another_password(room: Newsroom, client: AsyncClient) -> None:
    room.rosa.user.set_unusable_password()
    await room.rosa.user.asave()


@pytest.mark.parametrize("happening", [removed_from_the_project, signed_out, given_another_password])
async def test_a_browser_that_may_no_longer_read_is_hung_up_on(
    newsroom: Newsroom, happening: Happening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tailing, "POLL_S", 0.02)
    monkeypatch.setattr(tailing, "RECHECK_S", 0.05)
    job = await sync_to_async(a_claimed_job)(newsroom)
    client, cookie = await a_session(newsroom.rosa)

    async with opened(job.draft_id, cookie) as browser:
        assert (await browser.message())["type"] == "state"
        await happening(newsroom, client)
        assert await browser.close_code() == CLOSE_NOT_FOUND


async def test_a_browser_that_takes_nothing_is_hung_up_on(
    newsroom: Newsroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that holds back, because the browser does not read, never returns from `send`."""
    monkeypatch.setattr(consumers, "STALL_S", 0.1)
    job = await sync_to_async(a_claimed_job)(newsroom)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if not sent:
            return {"type": "websocket.connect"}
        await asyncio.sleep(60)
        raise AssertionError("the socket is still open")

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)
        if message["type"] == "websocket.send":
            await asyncio.sleep(60)

    scope = Browser(job.draft_id, bearer(newsroom.eli)).scope
    await asyncio.wait_for(application(scope, receive, send), 5)

    assert [message["type"] for message in sent] == [
        "websocket.accept",
        "websocket.send",
        "websocket.close",
    ]
    assert sent[-1]["code"] == CLOSE_SLOW
    assert tailing.num_followers() == 0


async def test_a_browser_that_leaves_leaves_nothing_behind(newsroom: Newsroom) -> None:
    job = await sync_to_async(a_claimed_job)(newsroom)
    before = asyncio.all_tasks()

    async with opened(job.draft_id, bearer(newsroom.eli)) as browser:
        await browser.message()
        assert tailing.num_followers() == 1

    await asyncio.sleep(0.1)
    left = [task for task in asyncio.all_tasks() - before if "apps/drafts" in repr(task)]
    assert (left, tailing.num_followers()) == ([], 0)
