"""The whole product as a newcomer starts it, for journeys and benchmarks."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[2]
START_DEADLINE_S = 240.0
STOP_DEADLINE_S = 60.0
# What pytest's own servers put into the environment must not reach a stack that starts its own.
_OURS = (
    "DATABASE_URL",
    "REDIS_URL",
    "SECRET_KEY",
    "GALLEY_HOME",
    "PORT",
    "GALLEY_MODEL",
    "DJANGO_SETTINGS_MODULE",
)


class StackFailed(Exception):
    """The stack did not come up, or did not stop; the message ends with its last lines."""


@dataclass
class Stack:
    url: str
    environment: dict[str, str]
    process: "subprocess.Popen[bytes]"
    log: Path
    seconds_to_start: float

    def manage(self, *arguments: str, timeout_s: float = 900.0) -> "subprocess.CompletedProcess[str]":
        """`manage.py` beside the running stack, on its database."""
        command = [sys.executable, "manage.py", *arguments]
        return subprocess.run(
            command, cwd=ROOT, env=self.environment, timeout=timeout_s, text=True, capture_output=True
        )

    def token(self, username: str) -> str:
        return self.manage("create_token", username).stdout.strip()


@contextmanager
def running_stack(home: Path, **environment: str) -> Iterator[Stack]:
    """`python -m galley.up` on a free port with its state in `home`, until the block ends."""
    port = _free_port()
    env = {name: value for name, value in os.environ.items() if name not in _OURS}
    env |= {"GALLEY_HOME": str(home), "PORT": str(port), "GALLEY_NIGHTLY_AT": far_hour(), **environment}
    home.mkdir(parents=True, exist_ok=True)
    log = home / "up.log"
    started = time.monotonic()
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "galley.up"], cwd=ROOT, env=env, stdout=output, stderr=output
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_healthy(process, url, log)
        yield Stack(url, env, process, log, time.monotonic() - started)
    finally:
        stop(process, log)


def far_hour() -> str:
    """Half a day from now: no nightly run gets in the way of a test, whatever time it is."""
    return f"{(time.gmtime().tm_hour + 12) % 24:02d}:00"


def stop(process: "subprocess.Popen[bytes]", log: Path) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_DEADLINE_S)
    except subprocess.TimeoutExpired as error:
        process.kill()
        raise StackFailed(f"the stack did not stop; {_tail(log)}") from error


def _wait_until_healthy(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise StackFailed(f"the stack ended with status {process.returncode}; {_tail(log)}")
        try:
            if httpx.get(f"{url}/healthz", timeout=5.0).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise StackFailed(f"the stack is not healthy after {START_DEADLINE_S:.0f} s; {_tail(log)}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _tail(log: Path) -> str:
    return "its last lines:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-15:])
