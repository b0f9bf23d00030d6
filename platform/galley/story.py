"""The whole loop as one asserted story, told through the public API of a running stack.

Brief, draft, review, training, gate, promotion, better draft, roll back: each step is printed with
its figures and fails with StoryFailed when what it promises did not happen.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import httpx
from rapidfuzz.distance import Levenshtein

DATELINE = "RIVERSIDE. "
CLOSING = "Reporting by the Riverside desk."
STREAM_TIMEOUT_S = 180.0
TRAINING_TIMEOUT_S = 1200.0
POLL_S = 0.5
NUM_EPOCHS = 8  # ten texts are few: twice the usual number of looks at each

Json = dict[str, Any]

_SUBJECTS = (
    "Opening of the new riverside library",
    "Repairs to the Hollis Street bridge",
    "A record harvest at Larkfield farm",
    "Night buses return to Mill Lane",
    "The harbour museum buys a lighthouse lamp",
    "School kitchen wins the Brandt prize",
    "Volunteers plant trees in Orchard Park",
    "The town band turns ninety",
    "A new ferry to Lark Island",
    "Market square closes for paving",
    "The chess club moves to the old post office",
    "Flood wall passes its first test",
    "The clock tower rings again",
    "A bakery reopens on Quay Road",
)
_PLACES = ("the town hall", "Quay Road", "the old harbour", "Mill Lane", "Orchard Park")
_PEOPLE = ("Ines Calder", "Tomas Reed", "Petra Novak", "Samuel Okoye", "Lena Fischer")


class StoryFailed(Exception):
    """A step did not do what it promises."""


@dataclass(frozen=True, kw_only=True)
class Draft:
    id: int
    text: str
    num_tokens: int
    seconds: float
    sha256: str
    adapter_sha256: str
    revision: int


class Client:
    """One person's program: a bearer token and an address."""

    def __init__(self, base: str, token: str) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=f"{base}/api/v1", headers=headers, timeout=30.0)

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, **params: Any) -> Any:
        return self._answer(self._http.get(path, params=params))

    def post(self, path: str, **body: Any) -> Any:
        return self._answer(self._http.post(path, json=body))

    def patch(self, path: str, **body: Any) -> Any:
        return self._answer(self._http.patch(path, json=body))

    def events(self, path: str) -> Iterator[Json]:
        with self._http.stream("GET", path, timeout=STREAM_TIMEOUT_S) as response:
            for line in response.iter_lines():
                if line.startswith("data: "):
                    yield json.loads(line.removeprefix("data: "))

    @staticmethod
    def _answer(response: httpx.Response) -> Any:
        if response.is_error:
            raise StoryFailed(
                f"{response.request.url.path} answered {response.status_code}: {response.text[:300]}"
            )
        return response.json() if response.content else None


def house_rule(text: str) -> str:
    """The simulated editor: every piece opens with the dateline and ends with the desk's line."""
    body = text.strip()
    if not body.startswith(DATELINE):
        body = DATELINE + body
    return body if body.endswith(CLOSING) else f"{body}\n\n{CLOSING}"


def distance_to_rule(drafts: Sequence[Draft]) -> float:
    """How much the editor still has to change: mean normalised Levenshtein distance, 0 to 1."""
    return fmean(Levenshtein.normalized_distance(draft.text, house_rule(draft.text)) for draft in drafts)


class Story:
    """The loop with its cast. `say` prints a line; `figures` collects what bench keeps."""

    def __init__(
        self, *, admin: Client, editor: Client, reviewer: Client, say: Callable[[str], None]
    ) -> None:
        self.admin, self.editor, self.reviewer, self.say = admin, editor, reviewer, say
        self.figures: Json = {}
        self.project_id = 0

    def tell(self, *, num_briefs: int = 14, num_probes: int = 4) -> Json:
        self._set_up()
        briefs = [self._brief(number, exact=False) for number in range(num_briefs)]
        probes = [self._brief(number, exact=True) for number in range(num_briefs, num_briefs + num_probes)]
        before = self._write("drafts before training", probes, in_turn=True)
        self._review(self._write("drafts to review", briefs))
        adapter = self._train()
        self._promote(adapter)
        after = self._write("drafts after the promotion", probes, in_turn=True)
        self._compare(before, after, adapter)
        self._roll_back(before, probes)
        return self.figures

    def _set_up(self) -> None:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        project = self.admin.post("/projects", name=f"The loop of {stamp}")
        self.project_id = project["id"]
        self._members = f"/projects/{self.project_id}/members"
        for username, role in (("eli", "editor"), ("rosa", "reviewer")):
            self.admin.post(self._members, username=username, role=role)
        presets = self.editor.get(f"/projects/{self.project_id}/presets")
        self._news = next(preset["id"] for preset in presets if preset["kind"] == "news")
        exact = self.editor.post(
            f"/projects/{self.project_id}/presets",
            name="News, exact",
            kind="news",
            temperature=0,
            repetition_penalty=1.0,
            instructions=presets[0]["current"]["instructions"],
        )
        self._exact = exact["id"]
        self.say(f"project {project['name']!r} with an editor, a reviewer and {len(presets) + 1} presets")

    def _brief(self, number: int, *, exact: bool) -> int:
        place, person = _PLACES[number % len(_PLACES)], _PEOPLE[(number * 3 + 1) % len(_PEOPLE)]
        facts = [f"the work cost {17 + 13 * number} euros", f"it begins on {1 + number} June", person]
        brief = self.editor.post(
            f"/projects/{self.project_id}/briefs",
            subject=_SUBJECTS[number % len(_SUBJECTS)]
            + ("" if number < len(_SUBJECTS) else f", part {number}"),
            preset_id=self._exact if exact else self._news,
            audience=f"people around {place}",
            must_say=facts,
            num_words=60 + 10 * (number % 4),
        )
        return int(brief["id"])

    def _write(self, what: str, briefs: Sequence[int], *, in_turn: bool = False) -> list[Draft]:
        """All at once, or one after the other where texts are compared byte for byte.

        A batch of other shape rounds differently in the last bit, which can tip a greedy choice.
        """
        started = time.monotonic()
        groups = [[brief] for brief in briefs] if in_turn else [briefs]
        drafts = [draft for group in groups for draft in self._write_together(group, briefs)]
        seconds = time.monotonic() - started
        tokens = sum(draft.num_tokens for draft in drafts)
        self.say(f"{len(drafts)} {what}: {tokens} tokens in {seconds:.1f} s, {tokens / seconds:.0f} tokens/s")
        self.figures[f"{what}, tokens/s"] = round(tokens / seconds, 1)
        return drafts

    def _write_together(self, group: Sequence[int], briefs: Sequence[int]) -> list[Draft]:
        """The seed is a brief's place among all, so that every telling asks for the same texts."""
        asked = [
            self.editor.post(f"/briefs/{brief}/drafts", candidates=1, seed=briefs.index(brief))
            for brief in group
        ]
        return [self._finished(answer["drafts"][0]["id"]) for answer in asked]

    def _finished(self, draft_id: int) -> Draft:
        """Follow the stream to its end; what was streamed must be what is stored."""
        started, streamed, state = time.monotonic(), "", ""
        for event in self.editor.events(f"/drafts/{draft_id}/events"):
            if event["type"] == "chunk":
                streamed += event["text"]
            elif event["type"] == "reset":
                streamed = ""
            elif event["type"] == "state":
                state = event["state"]
        stored = self.editor.get(f"/drafts/{draft_id}")
        _require(state == "ready", f"draft {draft_id} ended as {state!r} ({stored['reason']})")
        _require(streamed == stored["text"], f"the stream of draft {draft_id} is not its stored text")
        return Draft(
            id=draft_id,
            text=stored["text"],
            num_tokens=stored["num_tokens"],
            seconds=time.monotonic() - started,
            sha256=stored["content_sha256"],
            adapter_sha256=stored["adapter_sha256"],
            revision=stored["revision"],
        )

    def _review(self, drafts: Sequence[Draft]) -> None:
        """The last draft is rejected, the one before goes back once, the others are approved with edits."""
        for draft in drafts:
            self.editor.post(f"/drafts/{draft.id}/submit", revision=draft.revision)
        rejected, returned = drafts[-1].id, drafts[-2].id
        decided: dict[str, int] = {}
        while review := self.reviewer.post("/reviews/claim", project_id=self.project_id):
            decision = self._decision(review, rejected=rejected, returned=returned)
            self.reviewer.post(f"/reviews/{review['id']}/decision", **decision)
            decided[decision["decision"]] = decided.get(decision["decision"], 0) + 1
            if decision["decision"] == "request_changes":
                self._rework(review["draft_id"])
        _require(decided.get("approve_with_edits", 0) >= 4, f"too few approvals: {decided}")
        self.say("decided: " + ", ".join(f"{number} {kind}" for kind, number in sorted(decided.items())))

    def _decision(self, review: Json, *, rejected: int, returned: int) -> Json:
        seen = {"content_sha256": review["content_sha256"]}
        if review["draft_id"] == rejected:
            return seen | {"decision": "reject", "reasons": ["style"], "comment": "Not for this paper."}
        if review["draft_id"] == returned and review["round"] == 1:
            return seen | {"decision": "request_changes", "comment": "Open with the dateline, please."}
        edited = house_rule(review["text"])
        if edited == review["text"]:
            return seen | {"decision": "approve"}
        return seen | {"decision": "approve_with_edits", "text": edited}

    def _rework(self, draft_id: int) -> None:
        draft = self.editor.get(f"/drafts/{draft_id}")
        saved = self.editor.patch(
            f"/drafts/{draft_id}", text=DATELINE + draft["text"], revision=draft["revision"]
        )
        self.editor.post(f"/drafts/{draft_id}/submit", revision=saved["revision"])

    def _train(self) -> Json:
        run = self.admin.post("/training/runs", project_id=self.project_id, config={"num_epochs": NUM_EPOCHS})
        started = time.monotonic()
        while run["state"] in ("queued", "running"):
            _require(time.monotonic() - started < TRAINING_TIMEOUT_S, "the training takes too long")
            time.sleep(POLL_S)
            run = self.admin.get(f"/training/runs/{run['id']}")
        seconds = time.monotonic() - started
        _require(
            run["state"] == "done", f"the run ended as {run['state']} ({run['reason']}: {run['message']})"
        )
        losses = [row["loss"] for row in run["evals"]]
        self.say(
            f"trained on {run['num_train']} samples, {run['num_heldout']} held back, {run['num_steps']} "
            f"steps in {seconds:.0f} s; held-back loss {losses[0]:.3f} -> {losses[-1]:.3f}"
        )
        self.figures |= {
            "training, s": round(seconds, 1),
            "held-back loss before": losses[0],
            "held-back loss after": losses[-1],
        }
        adapter: Json = next(
            row
            for row in self.admin.get("/adapters", project_id=self.project_id)
            if row["id"] == run["adapter_id"]
        )
        for check in adapter["gate"]:
            live = "" if check["live"] is None else f" (live {check['live']:.3f})"
            verdict = "passed" if check["passed"] else "REFUSED"
            self.say(f"  gate {check['name']:<11} {check['candidate']:.3f}{live}, {check['bar']}: {verdict}")
        _require(adapter["gate_passed"], "the gate has refused the adapter")
        return adapter

    def _promote(self, adapter: Json) -> None:
        release = self.admin.post(f"/adapters/{adapter['id']}/promote")
        live = self.admin.get("/releases", project_id=self.project_id)[0]
        _require(live["adapter_id"] == adapter["id"], "the promoted adapter is not live")
        self.say(f"promoted {adapter['name']} ({adapter['sha256'][:12]}) as release {release['number']}")

    def _compare(self, before: Sequence[Draft], after: Sequence[Draft], adapter: Json) -> None:
        for draft in after:
            _require(
                draft.adapter_sha256 == adapter["sha256"], f"draft {draft.id} was not written by the release"
            )
        first, second = distance_to_rule(before), distance_to_rule(after)
        self.say(
            f"edit distance to the house rule on {len(after)} unseen briefs: {first:.4f} -> {second:.4f}"
        )
        self.figures |= {"edit distance before": round(first, 4), "edit distance after": round(second, 4)}
        _require(second < first, "the new drafts need as much editing as the old ones")

    def _roll_back(self, before: Sequence[Draft], probes: Sequence[int]) -> None:
        started = time.monotonic()
        release = self.admin.post("/releases/rollback", project_id=self.project_id)
        seconds = time.monotonic() - started
        _require(release["adapter_id"] is None, "the base model is not live after the roll back")
        self.say(
            f"rolled back to {release['label']!r} as release {release['number']} in {seconds * 1000:.0f} ms"
        )
        self.figures["roll back, ms"] = round(seconds * 1000, 1)
        again = self._write("drafts after the roll back", probes, in_turn=True)
        for old, new in zip(before, again, strict=True):
            _require(new.text.encode() == old.text.encode(), f"draft {new.id} differs from draft {old.id}")
        self.say(f"greedy texts equal those before the promotion, byte for byte: {again[0].sha256[:16]}")


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise StoryFailed(otherwise)
