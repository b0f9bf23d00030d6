"""The real library with random weights: what a text is does not matter, that it is the same does."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from inference import (
    AdapterRef,
    AdapterUnavailable,
    Engine,
    Event,
    InvalidRequest,
    ModelUnavailable,
    Request,
    Sampling,
)
from tests.support.random_gguf import write_adapter, write_model

GREEDY = Sampling(temperature=0.0, max_tokens=40)
LIVELY = Sampling(temperature=0.9, max_tokens=40, seed=7)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "random.gguf")


@pytest.fixture(scope="module")
def engine(model: Path) -> Iterator[Engine]:
    with Engine.open(str(model), home=model.parent, n_ctx=4096) as opened:
        yield opened


@pytest.fixture
def adapter(engine: Engine, tmp_path: Path) -> AdapterRef:
    return write_adapter(tmp_path / "adapter", base_sha256=engine.model_info.sha256)


def request(
    subject: str = "tulips", sampling: Sampling = GREEDY, adapter: AdapterRef | None = None
) -> Request:
    messages = ({"role": "system", "text": "Style: news"}, {"role": "user", "text": f"Subject: {subject}"})
    return Request(id=subject, messages=messages, sampling=sampling, adapter=adapter)  # type: ignore[arg-type]


def write(engine: Engine, request: Request) -> list[Event]:
    return list(engine.submit(request))


def text(engine: Engine, request: Request) -> str:
    return "".join(event.text for event in write(engine, request))


def ids(events: list[Event]) -> tuple[int, ...]:
    return tuple(id_ for event in events for id_ in event.token_ids)


def test_it_writes_what_it_counts(engine: Engine) -> None:
    events = write(engine, request())
    assert events[-1].finish_reason == "length"
    assert len(ids(events)) == 40
    assert len("".join(event.text for event in events)) == 40, "every token of this model is one letter"


def test_the_model_says_what_it_is(engine: Engine) -> None:
    info = engine.model_info
    assert (info.name, info.context_length, info.backend, info.quantization) == (
        "random",
        1024,
        "llama.cpp",
        "Q8_0",
    )
    assert len(info.sha256) == 64


@pytest.mark.parametrize("sampling", [GREEDY, LIVELY, replace(LIVELY, top_k=0, repetition_penalty=1.0)])
def test_the_same_request_alone_is_the_same_text(engine: Engine, sampling: Sampling) -> None:
    first = text(engine, request(sampling=sampling))
    text(engine, request("something else"))
    assert text(engine, request(sampling=sampling)) == first


def test_what_must_not_be_said_is_not_said(engine: Engine) -> None:
    free = text(engine, request(sampling=LIVELY))
    letters = sorted(set(re.findall("[a-z]+", free.lower())))
    ruled = replace(request(sampling=LIVELY), must_not_say=tuple(letters))
    assert letters
    assert not set(letters) & set(re.findall("[a-z]+", text(engine, ruled).lower()))


def test_going_back_leaves_no_trace_in_the_cache(engine: Engine) -> None:
    """A text that was taken back and goes on is the one that a fresh request with its tokens goes on with."""
    free = write(engine, request(sampling=GREEDY))
    letter = re.findall("[a-z]", "".join(event.text for event in free).lower())[5]
    ruled = replace(request(sampling=GREEDY), must_not_say=(letter,))
    events = write(engine, ruled)
    begun = "".join(event.text for event in events if event.token_ids)[:20]
    resumed = replace(ruled, resume_ids=ids(events)[:20], resume_text=begun)
    assert ids(write(engine, resumed)) == ids(events)[20:]


def test_a_fact_that_has_begun_is_finished(engine: Engine) -> None:
    """Greedy text of random weights goes another way; four nats bring it back often enough to see."""
    free = text(engine, request(sampling=GREEDY))
    begun = free[:10]
    others = [letter for letter in "abcdefghijklmnopqrstuvwxyz" if letter != free[10]]
    helped = [text(engine, replace(request(sampling=GREEDY), must_say=(begun + other,))) for other in others]
    assert any(begun + other in found for other, found in zip(others, helped, strict=True))


def test_facts_change_no_logprob(engine: Engine) -> None:
    sampling = replace(GREEDY, logprobs=2, max_tokens=8)
    free = write(engine, request(sampling=sampling))
    helped = write(engine, replace(request(sampling=sampling), must_say=("never said 123",)))
    assert [event.logprobs for event in helped] == [event.logprobs for event in free]


def test_a_stop_string_ends_the_answer(engine: Engine) -> None:
    free = text(engine, request())
    stopped = write(engine, request(sampling=replace(GREEDY, stop=(free[10:13],))))
    assert stopped[-1].finish_reason == "stop"
    assert "".join(event.text for event in stopped) == free[: free.index(free[10:13])]


def test_a_grammar_binds_the_answer(engine: Engine) -> None:
    sampling = replace(LIVELY, grammar='root ::= ("ab" | "ba")+ "x"')
    found = text(engine, request(sampling=sampling))
    assert re.fullmatch("(ab|ba)+(a|b)?x?", found)


def test_a_schema_binds_the_answer(engine: Engine) -> None:
    schema = '{"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"]}'
    found = text(engine, request(sampling=replace(LIVELY, json_schema=schema, max_tokens=60)))
    assert set(json.loads(found)) == {"yes"}


@pytest.mark.parametrize(
    "options",
    [
        {"grammar": "no rule at all"},
        {"json_schema": "not json"},
        {"json_schema": '{"$ref": "https://example.org/schema"}'},
        {"json_schema": '{"type": "no such type"}'},
    ],
)
def test_a_bad_grammar_is_refused_and_harms_nobody(engine: Engine, options: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest):
        write(engine, request(sampling=replace(GREEDY, **options)))  # type: ignore[arg-type]
    assert text(engine, request())


def test_logprobs_are_those_of_the_model(engine: Engine) -> None:
    events = write(engine, request(sampling=replace(GREEDY, logprobs=3, repetition_penalty=1.0)))
    told = [one for event in events for one in event.logprobs]
    assert len(told) == len(ids(events))
    for one in told:
        assert one.alternatives[0] == (one.text, one.logprob), "greedy takes the likeliest"
        assert 0 >= one.alternatives[0][1] >= one.alternatives[1][1] >= one.alternatives[2][1]


def test_penalties_change_the_text(engine: Engine) -> None:
    plain = text(engine, request(sampling=replace(GREEDY, repetition_penalty=1.0)))
    for option in ("presence_penalty", "frequency_penalty"):
        changed = replace(GREEDY, repetition_penalty=1.0, **{option: 2.0})  # type: ignore[arg-type]
        assert text(engine, request(sampling=changed)) != plain


def test_seeds_differ(engine: Engine) -> None:
    texts = {text(engine, request(sampling=replace(LIVELY, seed=seed))) for seed in range(4)}
    assert len(texts) == 4


def test_drafts_in_one_batch_all_come_to_their_end(engine: Engine) -> None:
    write(engine, request())
    num_kept = engine.stats().kv_used  # the beginning that all these prompts share
    requests = [request(f"tulips {number}") for number in range(20)]
    with ThreadPoolExecutor(20) as callers:
        written = list(callers.map(lambda each: write(engine, each), requests))
    assert [events[-1].finish_reason for events in written] == ["length"] * 20
    assert all(
        event.request_id == each.id
        for each, events in zip(requests, written, strict=True)
        for event in events
    )
    stats = engine.stats()
    assert (stats.active, stats.queued, stats.kv_used) == (0, 0, num_kept)
    assert stats.tokens_per_second > 0


def test_text_that_a_user_types_is_no_control_token(engine: Engine) -> None:
    typed = request("<|im_end|>")
    assert (
        write(engine, typed)[0].num_prompt_tokens == write(engine, request("tulips    "))[0].num_prompt_tokens
    )


@pytest.mark.parametrize("num_committed", [1, 17, 39, 40])
def test_a_resumed_draft_repeats_nothing_and_ends_where_it_would_have(
    engine: Engine, num_committed: int
) -> None:
    whole = ids(write(engine, request()))
    rest = write(engine, replace(request(), resume_ids=whole[:num_committed]))
    assert len(ids(rest)) == 40 - num_committed
    assert rest[-1].finish_reason == "length"


def test_the_draw_of_a_token_does_not_depend_on_what_was_drawn_before(engine: Engine) -> None:
    """At a high temperature nearly every token depends on its draw, so the tail shows the draws."""
    wild = request(sampling=Sampling(temperature=2.0, max_tokens=40, seed=3, repetition_penalty=1.0))
    whole = ids(write(engine, wild))
    rest = ids(write(engine, replace(wild, resume_ids=whole[:38])))
    assert rest == whole[38:]


def test_an_adapter_changes_the_text_and_leaves_no_trace_when_it_goes(
    engine: Engine, adapter: AdapterRef
) -> None:
    before = text(engine, request())
    tuned = text(engine, request(adapter=adapter))
    assert tuned != before
    assert adapter.sha256 in engine.stats().adapters
    assert text(engine, request()) == before
    assert text(engine, request(adapter=adapter)) == tuned


def test_more_adapters_than_lanes_replace_each_other(engine: Engine, tmp_path: Path) -> None:
    base = engine.model_info.sha256
    refs = [write_adapter(tmp_path / str(seed), base_sha256=base, seed=seed) for seed in range(10)]
    first = [text(engine, request(adapter=ref)) for ref in refs]
    assert len(set(first)) == 10
    assert [text(engine, request(adapter=ref)) for ref in refs] == first
    with ThreadPoolExecutor(20) as callers:
        together = list(callers.map(lambda ref: text(engine, request(adapter=ref)), refs * 2))
    assert [len(each) for each in together] == [40] * 20
    assert len(engine.stats().adapters) <= 8


def test_an_adapter_of_another_model_is_refused_and_the_engine_goes_on(
    engine: Engine, tmp_path: Path
) -> None:
    foreign = write_adapter(tmp_path / "foreign", base_sha256="f" * 64)
    with pytest.raises(AdapterUnavailable, match="was trained on model"):
        write(engine, request(adapter=foreign))
    misshapen = write_adapter(tmp_path / "misshapen", base_sha256=engine.model_info.sha256, width=128)
    with pytest.raises(AdapterUnavailable, match="cannot read"):
        write(engine, request(adapter=misshapen))
    assert len(ids(write(engine, request()))) == 40
    assert engine.stats().deaths == 0


@pytest.mark.parametrize("num_bytes", [4, 100, 20_000])
def test_a_model_file_that_was_cut_off_is_one_clear_sentence(
    model: Path, tmp_path: Path, num_bytes: int
) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(model.read_bytes()[:num_bytes])
    with pytest.raises(ModelUnavailable, match=r"cut\.gguf"):
        Engine.open(str(cut), home=tmp_path)


def test_a_model_file_of_noise_is_one_clear_sentence(tmp_path: Path) -> None:
    noise = tmp_path / "noise.gguf"
    noise.write_bytes(b"GGUF" + b"\xff" * 4096)
    with pytest.raises(ModelUnavailable, match=r"noise\.gguf"):
        Engine.open(str(noise), home=tmp_path)
