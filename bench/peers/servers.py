"""Server processes on loopback, and the stream of events that they answer with."""

import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPConnection, HTTPException
from typing import Any

from bench.peers.errors import PeerFailed

HOST = "127.0.0.1"
_START_DEADLINE_S = 180.0
_STOP_DEADLINE_S = 10.0
_ANSWER_DEADLINE_S = 600.0


class Server:
    """One server process; `ready` is a path that answers 200 when the model is loaded."""

    def __init__(self, command: Sequence[str], *, port: int, ready: str) -> None:
        """Start it and wait. Raises PeerFailed."""
        self.port = port
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log
        )
        try:
            self._wait(ready)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def events(self, path: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The JSON of each `data:` line. Raises PeerFailed."""
        connection = HTTPConnection(HOST, self.port, timeout=_ANSWER_DEADLINE_S)
        try:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            if response.status != 200:
                raise PeerFailed(f"{path} answered {response.status}: {response.read(300)!r}")
            for line in response:
                if line.startswith(b"data: {"):
                    yield json.loads(line.removeprefix(b"data: "))
        except (OSError, HTTPException) as error:
            raise PeerFailed(f"{path} broke off ({error!r}); {self._last_words()}") from error
        finally:
            connection.close()

    def _wait(self, ready: str) -> None:
        deadline = time.monotonic() + _START_DEADLINE_S
        while not self._is_ready(ready):
            if self._process.poll() is not None:
                raise PeerFailed(f"it ended with status {self._process.returncode}; {self._last_words()}")
            if time.monotonic() > deadline:
                raise PeerFailed(f"not ready after {_START_DEADLINE_S:.0f} s; {self._last_words()}")
            time.sleep(0.1)

    def _is_ready(self, path: str) -> bool:
        connection = HTTPConnection(HOST, self.port, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").split("\n")
        return " / ".join(line for line in lines if line.strip())[-400:]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
