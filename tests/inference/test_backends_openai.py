"""The remote backend against a small server of the same protocol on loopback."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Timer

import pytest

from inference import (
    AdapterRef,
    AdapterUnavailable,
    Engine,
    EngineBusy,
    EngineDied,
    EngineError,
    InvalidRequest,
    ModelUnavailable,
    Request,
    Sampling,
)
from tests.support.openai_servers import OpenAIServer, serving

TULIPS = Request(id="draft", messages=({"role": "user", "text": "tulips"},), sampling=Sampling(seed=5))
TUNED = "a" * 64


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with serving() as made:
        yield made


@pytest.fixture
def engine(server: OpenAIServer, tmp_path: Path) -> Iterator[Engine]:
    with Engine.open(server.address, home=tmp_path) as opened:
        yield opened


def test_it_writes(engine: Engine, server: OpenAIServer) -> None:
    events = list(engine.submit(TULIPS))
    assert [event.text for event in events] == ["Tul", "ips ", "bloom.", ""]
    assert events[-1].finish_reason == "end"
    assert (engine.model_info.name, engine.model_info.context_length) == ("base", 4096)
    body = server.bodies[0]
    assert body["messages"] == [{"role": "user", "content": "tulips"}]
    assert (body["model"], body["seed"], body["max_tokens"]) == ("base", 5, 512)


def test_a_resumed_draft_sends_the_committed_text(engine: Engine, server: OpenAIServer) -> None:
    list(engine.submit(Request(id="draft", messages=TULIPS.messages, resume_text="Tul")))
    assert server.bodies[0]["messages"][-1] == {"role": "assistant", "content": "Tul"}
    assert server.bodies[0]["continue_final_message"] is True


def test_settings_go_by_the_names_of_the_protocol(engine: Engine, server: OpenAIServer) -> None:
    sampling = Sampling(top_k=0, stop=("END",), json_schema='{"type": "object"}', logprobs=2)
    events = list(engine.submit(replace(TULIPS, sampling=sampling)))

    body = server.bodies[-1]
    assert (body["stop"], body["logprobs"], body["top_logprobs"]) == (["END"], True, 2)
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert {"top_k", "grammar", "json_schema"}.isdisjoint(body)
    told = [one for event in events for one in event.logprobs]
    assert [one.text for one in told] == server.words
    assert told[0].alternatives == (("Tul", -0.1), ("no", -3.0))


def test_an_adapter_is_a_model_of_the_server(engine: Engine, server: OpenAIServer) -> None:
    server.models.append(TUNED)
    list(engine.submit(replace(TULIPS, adapter=AdapterRef(sha256=TUNED, path="x"))))
    assert server.bodies[0]["model"] == TUNED
    with pytest.raises(AdapterUnavailable, match="load x there"):
        list(engine.submit(replace(TULIPS, adapter=AdapterRef(sha256="b" * 64, path="x"))))


def test_the_key_is_sent(server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GALLEY_MODEL_KEY", "tulip-key")
    Engine.open(server.address, home=tmp_path).close()
    assert set(server.keys) == {"Bearer tulip-key"}


def test_cancel_ends_a_stream_that_hangs(engine: Engine, server: OpenAIServer) -> None:
    server.ending = "hang"
    stream = engine.submit(TULIPS)
    next(stream)
    timer = Timer(0.1, engine.cancel, ["draft"])
    timer.start()
    events = list(stream)
    timer.join()
    assert events[-1].finish_reason == "cancelled"
    assert engine.stats().active == 0


def test_the_deadline_ends_a_stream_that_hangs(engine: Engine, server: OpenAIServer) -> None:
    server.ending = "hang"
    events = list(engine.submit(Request(id="draft", messages=TULIPS.messages, deadline_s=0.1)))
    assert events[-1].finish_reason == "deadline"


def test_a_length_limit_is_told_as_such(engine: Engine, server: OpenAIServer) -> None:
    server.ending = "length"
    assert list(engine.submit(TULIPS))[-1].finish_reason == "length"


def test_a_text_that_breaks_off_is_a_death(engine: Engine, server: OpenAIServer) -> None:
    server.ending = "break"
    with pytest.raises(EngineDied, match="without a reason"):
        list(engine.submit(TULIPS))


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, InvalidRequest), (401, ModelUnavailable), (429, EngineBusy), (500, EngineDied), (503, EngineBusy)],
)
def test_an_answer_that_is_no_text_has_a_name(
    engine: Engine, server: OpenAIServer, status: int, error: type[EngineError]
) -> None:
    server.status = status
    with pytest.raises(error, match=f"answered {status}: no") as raised:
        list(engine.submit(TULIPS))
    if isinstance(raised.value, EngineBusy):
        assert raised.value.retry_after_s == 3


def test_a_priority_is_sent_where_it_was_asked_for(
    engine: Engine, server: OpenAIServer, tmp_path: Path
) -> None:
    list(engine.submit(TULIPS))
    with Engine.open(f"{server.address}?priorities=1", home=tmp_path) as ranked:
        list(ranked.submit(TULIPS))
        list(ranked.submit(replace(TULIPS, request_class="batch")))
    assert [body.get("priority") for body in server.bodies] == [None, 0, 1]


def test_all_mistakes_of_an_address_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"'ftp://b' is no address; max_adapters .* priorities"):
        Engine.open("http://a/v1,ftp://b?max_adapters=0&priorities=yes", home=tmp_path)


def test_an_unknown_model_is_refused(server: OpenAIServer, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="does not list the model 'big'"):
        Engine.open(f"{server.address}?model=big", home=tmp_path)
