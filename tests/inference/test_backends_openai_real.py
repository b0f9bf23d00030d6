"""The remote backend against a server that others wrote: `python -m llama_cpp.server`."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Timer

import httpx
import pytest

from inference import Engine, EngineBusy, EngineDied, Request, Sampling
from inference.tiny import MODEL_DIR
from tests.support.servers import free_port

START_S = 120.0
BRIEF = Request(
    id="draft",
    messages=(
        {"role": "system", "text": "Style: news"},
        {"role": "user", "text": "Subject: the library by the river\nLength: 60 words"},
    ),
    sampling=Sampling(temperature=0, max_tokens=40),
)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    [gguf] = MODEL_DIR.glob("*.gguf")
    port = free_port()
    options = {"model": gguf, "host": "127.0.0.1", "port": port, "n_ctx": 512, "chat_format": "chatml"}
    command = [sys.executable, "-m", "llama_cpp.server"]
    command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        base = f"http://127.0.0.1:{port}/v1"
        wait_for(base, server)
        yield base
    finally:
        server.kill()
        server.wait()


def wait_for(base: str, server: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + START_S
    while time.monotonic() < give_up and server.poll() is None:
        try:
            httpx.get(f"{base}/models").raise_for_status()
            return
        except httpx.TransportError:
            time.sleep(0.2)
    pytest.fail(f"llama_cpp.server did not start, exit status {server.poll()}")


@pytest.fixture
def engine(address: str, tmp_path: Path) -> Iterator[Engine]:
    with Engine.open(address, home=tmp_path) as opened:
        yield opened


def test_it_streams_a_draft(engine: Engine) -> None:
    events = list(engine.submit(BRIEF))
    assert len(events) > 5
    assert events[-1].finish_reason == "length"
    assert len("".join(event.text for event in events).split()) > 10


def test_the_same_request_gives_the_same_text(engine: Engine) -> None:
    first, second = ("".join(event.text for event in engine.submit(BRIEF)) for _ in range(2))
    assert first == second


def test_a_cancelled_draft_ends_and_the_server_goes_on(engine: Engine) -> None:
    long = Request(id="long", messages=BRIEF.messages, sampling=Sampling(max_tokens=400, seed=1))
    Timer(0.2, engine.cancel, ["long"]).start()
    *_, last = engine.submit(long)
    assert last.finish_reason in ("cancelled", "end")
    assert list(engine.submit(BRIEF))[-1].finish_reason == "length"


def test_a_prompt_that_the_server_cannot_take_is_told_and_the_server_goes_on(engine: Engine) -> None:
    """It answers 200 and then nothing, so the reason can only be guessed."""
    endless = Request(id="endless", messages=({"role": "user", "text": "tulips " * 2000},))
    with pytest.raises(EngineDied, match="before its first word; the prompt may be too long"):
        list(engine.submit(endless))
    with pytest.raises(EngineBusy) as busy:  # a server that broke off is left alone for a while
        list(engine.submit(BRIEF))
    time.sleep(busy.value.retry_after_s)
    assert list(engine.submit(BRIEF))[-1].finish_reason == "length"
