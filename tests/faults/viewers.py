"""Programs outside the house: browsers that watch drafts, and clients that ask for them and remember."""

import asyncio
import hashlib
import json
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException
from websockets.typing import Origin

# As apps/drafts/static/drafts/stream.js has them.
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 8.0
STALL_S = 20.0
LIVE = ("queued", "writing")


@dataclass
class Viewer:
    """Follows one draft as the browser does: a cursor, jitter, a text for each attempt."""

    url: str
    token: str
    draft_id: int
    texts: dict[int, str] = field(default_factory=dict)
    seq: int = 0
    attempt: int = 0
    num_lost: int = 0
    shown_at: list[float] = field(default_factory=list)
    ended: dict[str, Any] | None = None
    socket: ClientConnection | None = None

    @property
    def text(self) -> str:
        return self.texts.get(self.attempt, "")

    async def follow(self) -> None:
        failures = 0
        while self.ended is None:
            try:
                async with self._connect() as self.socket:
                    async for message in self._messages(self.socket):
                        failures = 0
                        if not self.receive(message):
                            break
            except (OSError, TimeoutError, WebSocketException):
                self.num_lost += 1
            if self.ended is None:
                failures += 1
                await asyncio.sleep(jittered(failures))

    def _connect(self) -> connect:
        address = (
            f"{self.url.replace('http', 'ws', 1)}/ws/drafts/{self.draft_id}/?after={self.attempt}.{self.seq}"
        )
        return connect(
            address,
            origin=Origin(self.url),
            additional_headers={"Authorization": f"Bearer {self.token}"},
            open_timeout=STALL_S,
            close_timeout=1.0,
            compression=None,
        )

    async def _messages(self, socket: ClientConnection) -> Any:
        while self.ended is None:
            yield json.loads(await asyncio.wait_for(socket.recv(), STALL_S))

    def receive(self, message: dict[str, Any]) -> bool:
        """Take one message; False where the browser would come back with its cursor."""
        if message["type"] == "reset":
            self._start_over(message["attempt"])
            return True
        if message.get("attempt") and self.attempt not in (0, message["attempt"]):
            self._start_over(message["attempt"])
            return False
        self.attempt = message.get("attempt") or self.attempt
        if message["type"] == "chunk":
            return self._take(message)
        if message["type"] == "state" and message["state"] not in LIVE:
            self.ended = message
        return True

    def _start_over(self, attempt: int) -> None:
        self.attempt, self.seq = attempt, 0

    def _take(self, chunk: dict[str, Any]) -> bool:
        if chunk["seq"] <= self.seq:
            return True
        if chunk["first"] != self.seq + 1:
            return False
        if self.seq == 0:
            self.texts[self.attempt] = ""
        self.seq = chunk["seq"]
        self.texts[self.attempt] += chunk["text"]
        self.shown_at.append(time.monotonic())
        return True

    @property
    def hash_agrees(self) -> bool:
        """What the browser verifies at the end."""
        assert self.ended is not None
        digest = hashlib.sha256(self.text.encode()).hexdigest()
        return digest == self.ended["content_sha256"] or (not self.text and not self.seq)

    @property
    def longest_silence_s(self) -> float:
        silences = zip(self.shown_at, self.shown_at[1:], strict=False)
        return max((later - earlier for earlier, later in silences), default=0.0)

    def recovered_after_s(self, fault_at: float) -> float | None:
        """Seconds from the fault to the end of the longest silence since; None where nothing came after it.

        The longest silence, because what had left the dead process may still arrive.
        """
        after = [at for at in self.shown_at if at > fault_at]
        if not after:
            return None
        silences = zip([fault_at, *after], after, strict=False)
        return max(silences, key=lambda silence: silence[1] - silence[0])[1] - fault_at


def jittered(failures: int) -> float:
    longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**failures)
    return random.uniform(FIRST_WAIT_S, longest)


class Audience:
    """Viewers on an event loop in a thread of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="audience", daemon=True)
        self._thread.start()
        self._watching: list[Future[None]] = []
        self.viewers: list[Viewer] = []

    def watch(self, draft_id: int, *, token: str) -> Viewer:
        viewer = Viewer(self._url, token, draft_id)
        self.viewers.append(viewer)
        self._watching.append(asyncio.run_coroutine_threadsafe(viewer.follow(), self._loop))
        return viewer

    def wait(self, *, deadline_s: float = 90.0) -> None:
        """Until every draft that is watched has ended; raises what went wrong in a viewer."""
        give_up_at = time.monotonic() + deadline_s
        for future, viewer in zip(self._watching, self.viewers, strict=True):
            try:
                future.result(timeout=max(0.1, give_up_at - time.monotonic()))
            except TimeoutError:
                raise AssertionError(
                    f"draft {viewer.draft_id} has not ended after {deadline_s:.0f} s; "
                    f"{viewer.seq} chunks were shown"
                ) from None

    def leave(self) -> None:
        for future in self._watching:
            future.cancel()
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0.1), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def write_shown(self, path: Path) -> Path:
        """Every text that was ever on a screen, for `check_invariants --shown`."""
        shown = [
            {"draft": viewer.draft_id, "attempt": attempt, "text": text}
            for viewer in self.viewers
            for attempt, text in viewer.texts.items()
        ]
        return write_lines(path, shown)


@dataclass
class Client:
    """Asks for drafts over HTTP, again with the same id until it is answered, and remembers each 2xx."""

    url: str
    people: dict[str, Any]
    acknowledged: list[dict[str, Any]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    num_unanswered: int = 0
    without_retry_after: int = 0
    _turn: int = 0

    def write(self, num_drafts: int, *, deadline_s: float = 90.0) -> list[tuple[int, str]]:
        """Ask for so many drafts, each of another writer: draft ids with the token that may read them."""
        drafts = []
        with httpx.Client(base_url=self.url, timeout=30.0) as http:
            for _ in range(num_drafts):
                writer = self.people["writers"][self._turn % len(self.people["writers"])]
                self._turn += 1
                drafts.append((self._ask(http, writer, deadline_s), writer["token"]))
        return drafts

    def _ask(self, http: httpx.Client, writer: dict[str, Any], deadline_s: float) -> int:
        give_up_at = time.monotonic() + deadline_s
        body = {"client_request_id": f"{random.getrandbits(64):x}"}
        headers = {"Authorization": f"Bearer {writer['token']}"}
        while time.monotonic() < give_up_at:
            try:
                answer = http.post(f"/api/v1/briefs/{writer['brief']}/drafts", json=body, headers=headers)
            except httpx.TransportError:
                self.num_unanswered += 1
            else:
                self.statuses.append(answer.status_code)
                if answer.status_code == 503 and "Retry-After" not in answer.headers:
                    self.without_retry_after += 1
                if answer.is_success:
                    return self._remember(answer.json())
                assert answer.status_code in (429, 500, 502, 503), answer.text
            time.sleep(0.3)
        raise AssertionError(f"no draft was accepted in {deadline_s:.0f} s")

    def _remember(self, answer: dict[str, Any]) -> int:
        self.acknowledged.append({"kind": "drafts.DraftRequest", "id": answer["request_id"]})
        self.acknowledged += [{"kind": "drafts.Draft", "id": draft["id"]} for draft in answer["drafts"]]
        [draft] = answer["drafts"]
        return int(draft["id"])

    def write_journal(self, path: Path) -> Path:
        return write_lines(path, self.acknowledged)


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
