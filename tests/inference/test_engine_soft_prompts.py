"""Texts behind virtual tokens: shared beginnings, parking, lanes that rotate, and going back."""

import json
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inference import AdapterRef, Event, InvalidRequest, Request, Sampling, adapters, gguf
from inference.backends.llamacpp import LlamaCppRunner
from inference.cli import main
from inference.engine.costs import UNMEASURED
from inference.engine.loop import Loop
from inference.engine.messages import Submit
from inference.engine.scheduler import Limits
from inference.models import resolve
from inference.types import RequestClass
from tests.support.company import ids_of, num_near_ties, write
from tests.support.families import save_lora, save_soft_prompt, write_family

SOFT = ("PROMPT_TUNING", "PREFIX_TUNING")
_NUM_VIRTUAL = 6
_CONTEXT = 512
_STYLE = "a style that many briefs have in common, with rules enough to be worth keeping "
_LIMITS = Limits(max_sequences=3, kv_cells=_CONTEXT, max_lanes=2, max_prefixes=2, quantum=4, step_tokens=64)

# peft 0.21 asks transformers 5.23 for a property by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    base = write_family(folder / "base", "llama", max_position_embeddings=_CONTEXT)
    gguf.export_model(base, folder / "model.gguf")
    return folder


def open_runner(home: Path, n_ctx: int = _CONTEXT) -> LlamaCppRunner:
    model = resolve(str(home / "model.gguf"), home)
    runner = LlamaCppRunner(model, cache=home / "cache", n_ctx=n_ctx, max_sequences=3, threads=1)
    runner.costs = UNMEASURED  # the same batches every time
    return runner


@pytest.fixture(scope="module")
def runner(home: Path) -> LlamaCppRunner:
    return open_runner(home)


@pytest.fixture(scope="module")
def refs(home: Path, runner: LlamaCppRunner) -> dict[str, AdapterRef | None]:
    """One adapter of each kind, and none."""
    lora = home / "LORA"
    save_lora(home / "base", lora, r=4, lora_alpha=8)
    gguf.export_lora(lora, home / "base", lora / adapters.GGUF_NAME)
    for kind in SOFT:
        save_soft_prompt(home / "base", home / kind, kind, num_tokens=_NUM_VIRTUAL)
    sha256 = runner.info.sha256
    sealed = {kind: adapters.seal(home / kind, base_sha256=sha256).sha256 for kind in ("LORA", *SOFT)}
    return {"none": None} | {
        kind: AdapterRef(sha256=name, path=str(home / kind)) for kind, name in sealed.items()
    }


def request(number: int, *, style: str = _STYLE, max_tokens: int = 24, **options: Any) -> Request:
    return Request(
        id=str(number),
        messages=(
            {"role": "system", "text": style},
            {"role": "user", "text": f"brief {number} " + "of tulips " * (number % 5)},
        ),
        sampling=Sampling(temperature=0.0, repetition_penalty=1.0, max_tokens=max_tokens, logprobs=2),
        **options,
    )


def alone(runner: LlamaCppRunner, asked: Request) -> list[Event]:
    return write(Loop(runner, replace(_LIMITS, max_prefixes=0)), [asked])[0]


def write_and_count(runner: LlamaCppRunner, asked: list[Request]) -> tuple[list[list[Event]], int]:
    """The texts, and how many tokens were computed for them."""
    counts: list[int] = []
    run = runner.run
    runner.run = lambda step: counts.append(sum(row.num_tokens for row in step.rows)) or run(step)  # type: ignore[func-returns-value,method-assign]
    return write(Loop(runner, _LIMITS), asked), sum(counts)


def test_every_kind_writes_a_text_of_its_own(
    runner: LlamaCppRunner, refs: dict[str, AdapterRef | None]
) -> None:
    asked = [request(0, adapter=ref) for ref in refs.values()]
    together = write(Loop(runner, _LIMITS), asked)
    assert len({ids_of(text) for text in together}) == len(refs)
    assert (
        sum(num_near_ties(text, alone(runner, one)) for text, one in zip(together, asked, strict=True)) <= 1
    )


def test_texts_are_the_same_in_any_company(
    runner: LlamaCppRunner, refs: dict[str, AdapterRef | None]
) -> None:
    """More adapters than lanes, so lanes rotate and texts are parked; styles are shared meanwhile."""
    rng = random.Random(5)
    classes: list[RequestClass] = ["interactive", "batch"]
    asked = [
        request(
            number,
            style=rng.choice((_STYLE, f"{_STYLE} and one more")),
            adapter=refs[rng.choice(sorted(refs))],
            request_class=rng.choice(classes),
            user=rng.choice("ab"),
        )
        for number in range(24)
    ]
    loop = Loop(runner, _LIMITS)
    together = write(loop, asked)
    assert loop.stats.num_parked > 0
    ties = [num_near_ties(text, alone(runner, one)) for one, text in zip(asked, together, strict=True)]
    assert sum(ties) <= 3


@pytest.mark.parametrize("kind", SOFT)
def test_a_text_that_went_back_is_one_that_never_went_there(
    kind: str, runner: LlamaCppRunner, refs: dict[str, AdapterRef | None]
) -> None:
    free = request(1, adapter=refs[kind])
    said = "".join(event.text for event in alone(runner, free))
    words = re.findall(r"\w+", said)
    banned = words[len(words) // 2]
    detour = alone(runner, replace(free, must_not_say=(banned,)))
    ids = ids_of(detour)
    assert ids != ids_of(alone(runner, free))
    for num_known in (len(ids) // 2, len(ids) - 2):
        resumed = replace(free, resume_ids=ids[:num_known], must_not_say=(banned,))
        assert ids_of(alone(runner, resumed)) == ids[num_known:]


@pytest.mark.parametrize("kind", SOFT)
def test_a_shared_beginning_is_found_after_a_restart(
    kind: str, home: Path, refs: dict[str, AdapterRef | None]
) -> None:
    style = "one that no other test has, long enough to be kept on disk as well "
    asked = [request(i, style=style, adapter=refs[kind]) for i in range(3)]
    (first, num_first), (second, num_second) = (write_and_count(open_runner(home), asked) for _ in range(2))
    assert num_second < num_first - 40, "the beginning was computed again"
    assert sum(num_near_ties(text, before) for text, before in zip(second, first, strict=True)) <= 1


@pytest.mark.parametrize("kind", SOFT)
def test_a_reproducible_text_is_the_same_to_the_last_bit(
    kind: str, runner: LlamaCppRunner, refs: dict[str, AdapterRef | None]
) -> None:
    mine = request(7, adapter=refs[kind], reproducible=True)
    others = [request(i, adapter=refs[name]) for i, name in enumerate((*SOFT, "none", "LORA"))]
    assert write(Loop(runner, _LIMITS), [*others, mine])[-1] == alone(runner, mine)


@pytest.mark.parametrize("kind", SOFT)
def test_guesses_stand_behind_the_virtual_tokens(
    kind: str, runner: LlamaCppRunner, refs: dict[str, AdapterRef | None]
) -> None:
    loop = Loop(runner, replace(_LIMITS, max_guesses=runner.max_guesses))
    asked = request(3, adapter=refs[kind], max_tokens=80)
    (guessed,) = write(loop, [asked])
    assert loop.stats.num_guessed > 0
    assert num_near_ties(guessed, alone(runner, asked)) <= 1


@pytest.mark.parametrize("kind", SOFT)
def test_the_command_line_takes_any_kind(
    kind: str, home: Path, refs: dict[str, AdapterRef | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GALLEY_HOME", str(tmp_path))
    (tmp_path / "in.jsonl").write_text('{"id": "a", "messages": [{"role": "user", "text": "tulips"}]}')
    paths = ["--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")]
    options = ["--model-path", str(home / "model.gguf"), "--adapter", str(home / kind), "--max-tokens", "8"]
    assert refs[kind]
    assert main(["generate", *paths, *options]) == 0
    assert json.loads((tmp_path / "out.jsonl").read_text())["num_tokens"] > 0


@pytest.mark.parametrize("kind", SOFT)
def test_virtual_tokens_leave_less_of_the_context(
    kind: str, runner: LlamaCppRunner, refs: dict[str, AdapterRef | None]
) -> None:
    num_prompt = len(runner.encode(request(0)))
    most = _CONTEXT - _NUM_VIRTUAL - num_prompt
    longest = write(Loop(runner, _LIMITS), [request(0, adapter=refs[kind], max_tokens=most)])[0]
    assert longest[-1].finish_reason in ("length", "end")
    with pytest.raises(
        InvalidRequest, match=f"the {_CONTEXT - _NUM_VIRTUAL} tokens that this adapter leaves"
    ):
        runner.encode(request(0, adapter=refs[kind], max_tokens=most + 1))
    assert runner.encode(request(0, max_tokens=most + 1)), "without the adapter there is room"


def test_full_lanes_hold_as_many_texts_as_without_virtual_tokens(
    home: Path, refs: dict[str, AdapterRef | None]
) -> None:
    """Cells of the soft prompt come on top, once for all texts, also for those that were parked."""
    tight = open_runner(home, n_ctx=256)
    limits = replace(_LIMITS, kv_cells=256, max_lanes=1)
    asked = [request(i, adapter=refs[SOFT[i % 2]], max_tokens=60) for i in range(6)]
    for text, one in zip(write(Loop(tight, limits), asked), asked, strict=True):
        assert num_near_ties(text, alone(tight, one)) <= 1


def test_an_adapter_that_is_refused_harms_nobody(
    runner: LlamaCppRunner, home: Path, refs: dict[str, AdapterRef | None], tmp_path: Path
) -> None:
    foreign = write_family(tmp_path / "base", "llama", num_hidden_layers=2)
    save_soft_prompt(foreign, tmp_path / "foreign", "PREFIX_TUNING")
    sha256 = adapters.seal(tmp_path / "foreign", base_sha256=runner.info.sha256).sha256
    ref = AdapterRef(sha256=sha256, path=str(tmp_path / "foreign"))
    loop = Loop(runner, _LIMITS)
    inbox = [Submit(0, request(0, adapter=ref)), Submit(1, request(1, adapter=refs["PREFIX_TUNING"]))]
    items = list(loop.turn(inbox).items)
    while not loop.is_idle:
        items += loop.turn([]).items
    refused = [str(item) for ticket, item in items if ticket == 0]
    assert len(refused) == 1
    assert "layers: 2, not 4" in refused[0]
    kept = [item for ticket, item in items if ticket == 1 and isinstance(item, Event)]
    assert num_near_ties(kept, alone(runner, request(1, adapter=refs["PREFIX_TUNING"]))) <= 1
