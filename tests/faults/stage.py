"""One running house with people in front of it; a scenario hurts it and then asks what was lost."""

import json
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from tests.faults.house import LEASE_S, NUM_TOKENS, House, running_house, wait_until
from tests.faults.viewers import Audience, Client, Viewer

PRODUCT_LEASE_S = 30.0


@dataclass
class Tally:
    """What one scenario came to. The limits are those of trust.md."""

    scenario: str
    limit_s: float
    trials: int = 0
    lost: int = 0
    twice: int = 0
    recoveries: list[float] = field(default_factory=list)
    note: str = ""

    def recovered(self, *seconds: float | None) -> None:
        """A trial is over; with several viewers the last one counts."""
        self.trials += 1
        measured = [value for value in seconds if value is not None]
        if measured:
            self.recoveries.append(max(measured))

    @property
    def worst_s(self) -> float:
        return max(self.recoveries, default=0.0)

    @property
    def median_s(self) -> float:
        return median(self.recoveries) if self.recoveries else 0.0

    @property
    def holds(self) -> bool:
        return self.holds_within(1)

    def holds_within(self, slack: float) -> bool:
        """With a limit that is so many times longer: a test machine may be busy with something else."""
        return not self.lost and not self.twice and self.worst_s <= slack * self.limit_s

    def __str__(self) -> str:
        figures = f"recovery median {self.median_s:.1f} s, worst {self.worst_s:.1f} s"
        return f"{self.scenario}: {self.trials} trials, {self.lost} lost, {self.twice} twice, {figures}"


class Stage:
    """Belongs to one scenario; the house outlives it."""

    def __init__(self, house: House, people: dict[str, object], folder: Path) -> None:
        self.house = house
        self.client = Client(house.url, people)
        self.audience = Audience(house.url)
        self._folder = folder

    def play(self, num_drafts: int, *, viewers: int = 1) -> list[Viewer]:
        """Ask for drafts and let so many people watch each of them."""
        drafts = self.client.write(num_drafts)
        return [
            self.audience.watch(draft_id, token=token) for draft_id, token in drafts for _ in range(viewers)
        ]

    def wait_for_token(self, watching: Sequence[Viewer], *, share: float | None = None) -> None:
        """Until somebody sees the text at a random place between its first word and its last."""
        share = random.uniform(0.02, 0.8) if share is None else share
        wait_until(
            lambda: any(len(viewer.text.split()) >= max(1, share * NUM_TOKENS) for viewer in watching),
            deadline_s=60,
            what=f"{share:.0%} of a text is shown",
        )

    def wait_for_more(self, viewer: Viewer) -> None:
        """Until the text has grown since this call."""
        shown = len(viewer.text)
        wait_until(lambda: len(viewer.text) > shown, deadline_s=60, what="the text goes on")

    def wait_for_deaths(self, viewer: Viewer, deaths: int) -> None:
        """Until it is on record that so many engines died under this draft."""
        counted = "SELECT 1 FROM drafts_job WHERE draft_id = %s AND deaths = %s"
        wait_until(
            lambda: bool(self.house.query(counted, viewer.draft_id, deaths)),
            deadline_s=60,
            what=f"{deaths} deaths are counted",
        )

    def wait_all_begun(self, watching: Sequence[Viewer]) -> None:
        wait_until(
            lambda: all(viewer.text for viewer in watching), deadline_s=60, what="every text has begun"
        )

    def held_by(self, worker: str, watching: Sequence[Viewer]) -> list[Viewer]:
        return [viewer for viewer in watching if self.house.holder(viewer.draft_id) == worker]

    def a_busy_worker(self, watching: Sequence[Viewer]) -> tuple[str, list[Viewer]]:
        """One that writes right now, taken at random, with those who watch its drafts."""
        holders: dict[str, list[Viewer]] = {}

        def somebody_writes() -> bool:
            for viewer in watching:
                if holder := self.house.holder(viewer.draft_id):
                    holders.setdefault(holder, []).append(viewer)
            return bool(holders)

        wait_until(somebody_writes, deadline_s=60, what="a worker writes")
        return random.choice(list(holders.items()))

    def verify(self, tally: Tally, *, deadline_s: float = 90.0, num_tokens: int = NUM_TOKENS) -> None:
        """Heal, come to rest, and count: each text is whole, each screen shows it, N1-N14 hold."""
        self.audience.wait(deadline_s=deadline_s)
        self.house.wait_idle(deadline_s=deadline_s)
        for viewer in self.audience.viewers:
            self._compare(viewer, tally, num_tokens)
        findings = self._check_invariants()
        assert not findings, "\n".join(findings)

    def _compare(self, viewer: Viewer, tally: Tally, num_tokens: int) -> None:
        [(state, stored, num_stored)] = self.house.query(
            "SELECT state, generated_text, num_tokens FROM drafts_draft WHERE id = %s", viewer.draft_id
        )
        if state != "ready":
            return  # what ended early is compared by its hash
        num_words = len(stored.split())
        tally.lost += max(0, num_tokens - num_words) + (len(viewer.text) < len(stored))
        tally.twice += max(0, num_words - num_tokens) + (len(viewer.text) > len(stored))
        assert viewer.text == stored, f"draft {viewer.draft_id} is shown otherwise than it is stored"
        assert viewer.hash_agrees, f"draft {viewer.draft_id} has another hash than its text"
        assert num_stored == num_words, f"draft {viewer.draft_id} counts its tokens wrongly"

    def _check_invariants(self) -> list[str]:
        self._folder.mkdir(parents=True, exist_ok=True)
        tokens = [str(writer["token"]) for writer in self.client.people["writers"]]
        done = self.house.manage(
            *("check_invariants", "--json", "--idle"),
            *("--journal", str(self.client.write_journal(self._folder / "journal.jsonl"))),
            *("--shown", str(self.audience.write_shown(self._folder / "shown.jsonl"))),
            *("--logs", *map(str, self.house.logs())),
            *("--canary", self.house.environment["SECRET_KEY"], *tokens),
        )
        assert done.stdout, done.stderr
        findings = json.loads(done.stdout)
        return [f"{one['name']}: {problem}" for one in findings for problem in one["violations"]]


@contextmanager
def on_stage(house: House, people: dict[str, object], folder: Path) -> Iterator[Stage]:
    stage = Stage(house, people, folder)
    try:
        yield stage
    finally:
        stage.audience.leave()


@contextmanager
def opened(
    home: Path, *, num_workers: int = 2, **environment: str
) -> Iterator[tuple[House, dict[str, object]]]:
    """A house with people in it."""
    with running_house(home, num_workers=num_workers, **environment) as house:
        yield house, house.run_module("tests.faults.people")


def scaled(limit_s: float) -> float:
    """A limit of trust.md that holds a lease of 30 s, for the lease that the house has."""
    return limit_s - PRODUCT_LEASE_S + LEASE_S
