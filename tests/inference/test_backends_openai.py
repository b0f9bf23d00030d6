"""The remote backend against a small server of the same protocol on loopback."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event as Flag
from threading import Thread, Timer
from typing import Any

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

TULIPS = Request(id="draft", messages=({"role": "user", "text": "tulips"},), sampling=Sampling(seed=5))
TUNED = "a" * 64


class Server(ThreadingHTTPServer):
    """Says `words`, then either ends properly, hangs or breaks off."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.words = ["Tul", "ips ", "bloom."]
        self.status = 200
        self.ending = "stop"
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.let_go = Flag()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.keys.append(self.headers["Authorization"])
        models = [{"id": "base", "max_model_len": 4096}, {"id": TUNED}]
        self._answer(200, json.dumps({"data": models}).encode())

    def do_POST(self) -> None:
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        if self.server.status != 200:
            self._answer(self.server.status, b"no")
            return
        self.send_response(200)
        self.end_headers()
        wants_logprobs = self.server.bodies[-1].get("logprobs")
        for word in self.server.words:
            others = [{"token": word, "logprob": -0.1}, {"token": "no", "logprob": -3.0}]
            told = {"content": [{"token": word, "logprob": -0.1, "top_logprobs": others}]}
            choice = {"delta": {"content": word}, "finish_reason": None}
            self._say(choice | ({"logprobs": told} if wants_logprobs else {}))
        if self.server.ending == "hang":
            self.server.let_go.wait(10)
        elif self.server.ending != "break":
            self._say({"delta": {}, "finish_reason": self.server.ending})
            self.wfile.write(b"data: [DONE]\n\n")

    def _say(self, choice: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n")
        self.wfile.flush()

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Retry-After", "3")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the test output clean."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = Thread(target=made.serve_forever, args=(0.02,))
        thread.start()
        yield made
        made.let_go.set()
        made.shutdown()
        thread.join()


@pytest.fixture
def engine(server: Server, tmp_path: Path) -> Iterator[Engine]:
    with Engine.open(server.address, home=tmp_path) as opened:
        yield opened


def test_it_writes(engine: Engine, server: Server) -> None:
    events = list(engine.submit(TULIPS))
    assert [event.text for event in events] == ["Tul", "ips ", "bloom.", ""]
    assert events[-1].finish_reason == "end"
    assert (engine.model_info.name, engine.model_info.context_length) == ("base", 4096)
    body = server.bodies[0]
    assert body["messages"] == [{"role": "user", "content": "tulips"}]
    assert (body["model"], body["seed"], body["max_tokens"]) == ("base", 5, 512)


def test_a_resumed_draft_sends_the_committed_text(engine: Engine, server: Server) -> None:
    list(engine.submit(Request(id="draft", messages=TULIPS.messages, resume_text="Tul")))
    assert server.bodies[0]["messages"][-1] == {"role": "assistant", "content": "Tul"}
    assert server.bodies[0]["continue_final_message"] is True


def test_settings_go_by_the_names_of_the_protocol(engine: Engine, server: Server) -> None:
    sampling = Sampling(top_k=0, stop=("END",), json_schema='{"type": "object"}', logprobs=2)
    events = list(engine.submit(replace(TULIPS, sampling=sampling)))

    body = server.bodies[-1]
    assert (body["stop"], body["logprobs"], body["top_logprobs"]) == (["END"], True, 2)
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert {"top_k", "grammar", "json_schema"}.isdisjoint(body)
    told = [one for event in events for one in event.logprobs]
    assert [one.text for one in told] == server.words
    assert told[0].alternatives == (("Tul", -0.1), ("no", -3.0))


def test_an_adapter_is_a_model_of_the_server(engine: Engine, server: Server) -> None:
    list(
        engine.submit(
            Request(id="draft", messages=TULIPS.messages, adapter=AdapterRef(sha256=TUNED, path="x"))
        )
    )
    assert server.bodies[0]["model"] == TUNED
    with pytest.raises(AdapterUnavailable, match="load x there"):
        engine.submit(
            Request(id="draft", messages=TULIPS.messages, adapter=AdapterRef(sha256="b" * 64, path="x"))
        )


def test_the_key_is_sent(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GALLEY_MODEL_KEY", "tulip-key")
    Engine.open(server.address, home=tmp_path).close()
    assert server.keys == ["Bearer tulip-key"]


def test_cancel_ends_a_stream_that_hangs(engine: Engine, server: Server) -> None:
    server.ending = "hang"
    began = time.monotonic()
    timer = Timer(0.1, engine.cancel, ["draft"])
    timer.start()
    events = list(engine.submit(TULIPS))
    timer.join()
    assert events[-1].finish_reason == "cancelled"
    assert time.monotonic() - began < 5
    assert engine.stats().active == 0


def test_the_deadline_ends_a_stream_that_hangs(engine: Engine, server: Server) -> None:
    server.ending = "hang"
    events = list(engine.submit(Request(id="draft", messages=TULIPS.messages, deadline_s=0.1)))
    assert events[-1].finish_reason == "deadline"


def test_a_length_limit_is_told_as_such(engine: Engine, server: Server) -> None:
    server.ending = "length"
    assert list(engine.submit(TULIPS))[-1].finish_reason == "length"


def test_a_text_that_breaks_off_is_a_death(engine: Engine, server: Server) -> None:
    server.ending = "break"
    with pytest.raises(EngineDied, match="without a reason"):
        list(engine.submit(TULIPS))


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, InvalidRequest), (401, ModelUnavailable), (429, EngineBusy), (500, EngineDied), (503, EngineBusy)],
)
def test_an_answer_that_is_no_text_has_a_name(
    engine: Engine, server: Server, status: int, error: type[EngineError]
) -> None:
    server.status = status
    with pytest.raises(error, match=f"answered {status}: no") as raised:
        list(engine.submit(TULIPS))
    if isinstance(raised.value, EngineBusy):
        assert raised.value.retry_after_s == 3


def test_an_unknown_model_is_refused(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="does not list the model 'big'"):
        Engine.open(f"{server.address}?model=big", home=tmp_path)
