"""Programs that ask for drafts and follow them over the socket, as a browser does."""

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
from websockets.asyncio.client import connect
from websockets.typing import Origin

from tests.faults.house import House

ENDED_S = 60.0
LIVE = ("queued", "writing")


@dataclass
class Frame:
    """When a chunk came (on the wall clock, which the database shares) and which chunks it joined."""

    at: float
    first: int
    last: int


@dataclass
class Watcher:
    """One socket on one draft from its first chunk to its end."""

    url: str
    token: str
    draft_id: int
    frames: list[Frame] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    num_lost: int = 0
    num_twice: int = 0
    opened_at: float = 0.0
    end: dict[str, Any] = field(default_factory=dict)
    has_begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def follow(self) -> None:
        address = f"{self.url.replace('http', 'ws', 1)}/ws/drafts/{self.draft_id}/"
        headers = {"Authorization": f"Bearer {self.token}"}
        async with connect(
            address,
            origin=Origin(self.url),
            additional_headers=headers,
            compression=None,
            ping_interval=None,
            open_timeout=60,
        ) as socket:
            self.opened_at = time.time()
            async for text in socket:
                self._take(json.loads(text), time.time())
                if self.end:
                    return

    def _take(self, message: dict[str, Any], at: float) -> None:
        if message["type"] == "chunk":
            seen = self.frames[-1].last if self.frames else 0
            self.num_lost += max(0, message["first"] - seen - 1)
            self.num_twice += max(0, seen + 1 - message["first"])
            self.frames.append(Frame(at, message["first"], message["seq"]))
            self.pieces.append(message["text"])
            self.has_begun.set()
        elif message["type"] == "state" and message["state"] not in LIVE:
            self.end = message
            self.has_begun.set()

    @property
    def text(self) -> str:
        return "".join(self.pieces)


@dataclass
class Newsroom:
    """The writers of a house and a client for each."""

    house: House
    people: dict[str, Any]
    http: httpx.AsyncClient

    async def allow_long_texts(self) -> None:
        """Every preset may write up to 4,096 tokens."""
        headers = {"Authorization": f"Bearer {self.people['admin']}"}
        presets = await self.http.get(f"/projects/{self.people['project']}/presets", headers=headers)
        for preset in presets.json():
            changed = await self.http.patch(
                f"/presets/{preset['id']}", json={"max_tokens": 4096}, headers=headers
            )
            changed.raise_for_status()

    async def ask(self, number: int) -> Watcher:
        """Ask for a draft in the name of a writer; whoever follows it has not come yet."""
        writer = self.people["writers"][number % len(self.people["writers"])]
        headers = {"Authorization": f"Bearer {writer['token']}"}
        answer = await self.http.post(f"/briefs/{writer['brief']}/drafts", json={}, headers=headers)
        answer.raise_for_status()
        return Watcher(self.house.url, writer["token"], answer.json()["drafts"][0]["id"])

    async def stop(self, watcher: Watcher) -> None:
        headers = {"Authorization": f"Bearer {watcher.token}"}
        (await self.http.post(f"/drafts/{watcher.draft_id}/cancel", headers=headers)).raise_for_status()


def newsroom(house: House) -> Newsroom:
    people = house.run_module("tests.faults.people")
    return Newsroom(house, people, httpx.AsyncClient(base_url=f"{house.url}/api/v1", timeout=60))
