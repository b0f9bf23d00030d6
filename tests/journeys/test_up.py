"""`python -m galley.up`, which is where `make up` ends: the whole stack in a home of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest

from tests.support.random_gguf import write_model
from tests.support.servers import free_port

SECOND_START_LIMIT_S = 20


@dataclass
class Stack:
    process: subprocess.Popen[str]
    home: Path
    port: int
    printed: str

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        self.process.communicate(timeout=40)
        return self.process.returncode


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("up")
    stack = start(folder / "home", write_model(folder / "model.gguf"))
    yield stack
    if stack.process.poll() is None:
        stack.end(signal.SIGINT)


def start(home: Path, model: Path) -> Stack:
    port = free_port()
    environment = {**os.environ, "GALLEY_HOME": str(home), "PORT": str(port), "GALLEY_MODEL": str(model)}
    for name in ("DATABASE_URL", "REDIS_URL"):
        del environment[name]
    process = subprocess.Popen(
        [sys.executable, "-m", "galley.up"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    printed = ""
    for line in process.stdout:
        printed += line
        if "Ctrl-C stops everything" in line:
            return Stack(process, home, port, printed)
    pytest.fail(f"the stack did not start:\n{printed}")


def processes_of(home: Path) -> dict[int, str]:
    """Pids and command lines of all that runs for this home, found by its environment."""
    setting = f"GALLEY_HOME={home}".encode()
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if setting in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it ended meanwhile, or is not ours
    return found


def health(port: int) -> dict[str, Any]:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        return {"status": answer.status, **json.load(answer)}
    except (OSError, HTTPException):
        return {"status": 0}
    finally:
        connection.close()


def wait_until(condition: Callable[[], bool], *, deadline_s: float) -> None:
    give_up_at = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < give_up_at, f"not so after {deadline_s} s"
        time.sleep(0.1)


def test_all_parts_are_up_and_the_terminal_says_where(stack: Stack) -> None:
    answer = health(stack.port)

    assert answer["status"] == 200
    assert set(answer["parts"]) == {"web", "database", "redis", "writing", "training", "beat"}
    assert f"http://127.0.0.1:{stack.port}/" in stack.printed
    assert str(stack.home / "logs") in stack.printed
    assert re.search(r"database tables \.\.\. [\d.]+ s", stack.printed)
    assert re.search(r"eli .* editor", stack.printed)


def test_a_second_copy_on_the_same_home_is_refused(stack: Stack) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "galley.up"],
        env={**os.environ, "GALLEY_HOME": str(stack.home), "PORT": str(free_port())},
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert second.returncode == 1
    assert f"already running on {stack.home} (process {stack.process.pid})" in second.stderr


@pytest.mark.parametrize("part", ["uvicorn galley.asgi", "valkey-server", "postgres -D"])
def test_a_part_that_is_killed_comes_back(stack: Stack, part: str) -> None:
    [pid] = [pid for pid, command in processes_of(stack.home).items() if part in command]

    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), deadline_s=5)

    wait_until(lambda: health(stack.port)["status"] == 200, deadline_s=30)


def test_ctrl_c_ends_every_process(stack: Stack) -> None:
    assert len(processes_of(stack.home)) > 6

    assert stack.end(signal.SIGINT) == 0

    assert processes_of(stack.home) == {}


def test_a_second_start_is_quick_and_a_killed_one_leaves_nothing(stack: Stack) -> None:
    if stack.process.poll() is None:
        stack.end(signal.SIGINT)
    second = start(stack.home, stack.home.parent / "model.gguf")
    try:
        [seconds] = re.findall(r"ready after ([\d.]+) s", second.printed)
        assert float(seconds) < SECOND_START_LIMIT_S
        assert "demo project" not in second.printed
    finally:
        second.end(signal.SIGKILL)

    wait_until(lambda: processes_of(stack.home) == {}, deadline_s=10)
