"""Tokens per second and the first token, through the whole stack and at the engine's door."""

import asyncio
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

from bench.form import Row
from bench.stream.browsers import Newsroom, newsroom
from tests.faults.house import House, running_house
from tests.support.stack import ROOT

NUM_WRITERS = 8
NUM_ROUNDS = int(os.environ.get("BENCH_STREAM_ROUNDS", "3"))
NUM_FIRSTS = 40
MIN_SHARE = 0.95
MAX_FIRST_MS = 60.0
STEPS_PER_SECOND = 50
FAKE = f"fake:?tokens_per_second={STEPS_PER_SECOND}&num_tokens=400"
SHORT_FAKE = f"fake:?tokens_per_second={STEPS_PER_SECOND}&num_tokens=12"


@dataclass
class Run:
    seconds: float
    num_tokens: int
    firsts: list[float]

    @property
    def speed(self) -> float:
        return self.num_tokens / self.seconds


def with_fake(home: Path) -> list[Row]:
    stack, door = _both(home, FAKE, num_writers=NUM_WRITERS, num_rounds=NUM_ROUNDS)
    return [_share(f"{NUM_WRITERS} drafts at once, fake engine of {STEPS_PER_SECOND} steps/s", stack, door)]


def with_model(home: Path) -> list[Row]:
    """The model that ships shares two cores with everything else that the stack does."""
    stack, door = _both(home, "", num_writers=NUM_WRITERS, num_rounds=4 * NUM_ROUNDS)
    return [_share(f"{NUM_WRITERS} drafts at once, the model that ships", stack, door)]


def first_token(home: Path) -> list[Row]:
    stack, door = _both(home, SHORT_FAKE, num_writers=1, num_rounds=NUM_FIRSTS)
    own = median(door.firsts)
    added = quantiles(stack.firsts, n=20)[-1] - own
    return [
        Row(
            claim="first token, added by the stack, p95",
            figure=1000 * added,
            unit="ms",
            peer=f"median {1000 * (median(stack.firsts) - own):.0f} ms; the engine's own {1000 * own:.0f} ms",
            bar=f"<= {MAX_FIRST_MS:.0f} ms",
            holds=1000 * added <= MAX_FIRST_MS,
        )
    ]


def _share(what: str, stack: Run, door: Run) -> Row:
    share = stack.speed / door.speed
    return Row(
        claim=f"tokens/s at the browser over tokens/s at the engine's door: {what}",
        figure=share,
        unit="",
        peer=f"{stack.speed:.0f} and {door.speed:.0f} tokens/s",
        bar=f">= {MIN_SHARE}",
        holds=share >= MIN_SHARE,
    )


def _both(home: Path, model: str, *, num_writers: int, num_rounds: int) -> tuple[Run, Run]:
    with running_house(home, num_workers=1, GALLEY_MODEL=model, GALLEY_CONTEXT="32768") as house:
        stack = asyncio.run(_through_the_stack(house, num_writers, num_rounds))
        for worker in house.workers:
            house.terminate(worker)
        return stack, _at_the_door(house, num_writers, num_rounds)


async def _through_the_stack(house: House, num_writers: int, num_rounds: int) -> Run:
    room = newsroom(house)
    async with room.http:
        await room.allow_long_texts()
        await asyncio.gather(*(_write(room, number, 1) for number in range(num_writers)))
        began = time.perf_counter()
        shares = await asyncio.gather(*(_write(room, number, num_rounds) for number in range(num_writers)))
        seconds = time.perf_counter() - began
    done = [written for share in shares for written in share]
    return Run(seconds, sum(tokens for _, tokens in done), [first for first, _ in done])


async def _write(room: Newsroom, number: int, num_rounds: int) -> list[tuple[float, int]]:
    """Seconds to the first chunk and number of tokens of each text, one after the other."""
    written = []
    for _ in range(num_rounds):
        asked = time.time()
        watcher = await room.ask(number)
        await watcher.follow()
        assert watcher.end["state"] == "ready", watcher.end
        written.append((watcher.frames[0].at - asked, watcher.end["num_tokens"]))
    return written


def _at_the_door(house: House, num_writers: int, num_rounds: int) -> Run:
    command = [sys.executable, "-m", "bench.stream.door", str(num_writers), str(num_rounds)]
    environment = {**os.environ, **house.environment}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return Run(**json.loads(done.stdout.splitlines()[-1]))
