"""The parent's end of one engine process, and the supervisor that replaces a dead one."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from multiprocessing import Pipe
from queue import Empty, SimpleQueue
from threading import Lock, Thread

from inference.engine.messages import Batch, Cancel, Launch, Ready, Submit
from inference.errors import EngineDied, EngineError, ModelUnavailable
from inference.types import EngineStats, Event, ModelInfo, Request

Outbox = SimpleQueue[Event | EngineError]

_PATIENCE_S = 30.0  # beyond a request's deadline; an engine that is silent for longer hangs


class ProcessLink:
    """A supervised engine process: dead ones are counted, and replaced by the next submit."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._lock = Lock()
        self._deaths = 0
        self._is_closed = False
        self._process = EngineProcess(launch)

    @property
    def model_info(self) -> ModelInfo:
        return self._process.model_info

    def submit(self, request: Request) -> Iterator[Event]:
        return self._living().submit(request)

    def cancel(self, request_id: str) -> None:
        self._process.cancel(request_id)

    def stats(self) -> EngineStats:
        died_just_now = self._process.is_dead and not self._is_closed
        return replace(self._process.stats, deaths=self._deaths + died_just_now)

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            self._process.kill()

    def _living(self) -> "EngineProcess":
        with self._lock:
            if self._is_closed:
                raise EngineDied("this engine was closed; open another one")
            if self._process.is_dead:
                process = EngineProcess(self._launch)
                self._deaths += 1
                self._process = process
            return self._process


class EngineProcess:
    """One process from its start to its end, with an outbox for every open stream."""

    def __init__(self, launch: Launch) -> None:
        self._pipe, theirs = Pipe()
        with theirs:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "inference.engine.host", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._lock = Lock()  # guards what follows, and keeps messages whole on the pipe
        self._tickets = count()
        self._open: dict[int, tuple[str, Outbox]] = {}
        self.is_dead = False
        ready = self._start(launch)
        self.model_info = ready.model
        self._stats = ready.stats
        Thread(target=self._read, name="engine-reader", daemon=True).start()

    @property
    def stats(self) -> EngineStats:
        if self.is_dead:
            return EngineStats(model=self.model_info.name)
        return replace(self._stats, pid=self._popen.pid)

    def submit(self, request: Request) -> Iterator[Event]:
        outbox: Outbox = SimpleQueue()
        with self._lock:
            if self.is_dead:
                raise EngineDied("the engine process ended; ask again")
            ticket = next(self._tickets)
            self._open[ticket] = request.id, outbox
            self._send(Submit(ticket, request))
        return self._events(ticket, outbox, timeout=request.deadline_s + _PATIENCE_S)

    def cancel(self, request_id: str) -> None:
        with self._lock:
            for ticket in [ticket for ticket, (id_, _) in self._open.items() if id_ == request_id]:
                self._send(Cancel(ticket))

    def kill(self) -> None:
        # The engine keeps nothing that a gentle end would save, and may be deep in a long step.
        self._popen.kill()
        self._popen.wait()

    def _start(self, launch: Launch) -> Ready:
        try:
            self._pipe.send(launch)
            answer = self._pipe.recv()
        except (EOFError, OSError):
            self.kill()
            answer = ModelUnavailable(
                f"the engine process ended with status {self._popen.returncode} while it loaded "
                f"{launch.model}; the file may be damaged or larger than the memory"
            )
        if isinstance(answer, Ready):
            return answer
        self._pipe.close()
        self._popen.wait()
        raise answer

    def _send(self, message: Submit | Cancel) -> None:
        try:
            self._pipe.send(message)
        except OSError:
            self._popen.kill()  # the reader sees the end of the pipe and tells every open stream

    def _events(self, ticket: int, outbox: Outbox, *, timeout: float) -> Iterator[Event]:
        try:
            while True:
                item = self._wait(outbox, timeout)
                if isinstance(item, EngineError):
                    raise item
                yield item
                if item.finish_reason:
                    return
        finally:
            self._abandon(ticket)

    def _wait(self, outbox: Outbox, timeout: float) -> Event | EngineError:
        try:
            return outbox.get(timeout=timeout)
        except Empty:
            self._popen.kill()
            return EngineDied(f"the engine gave no sign for {timeout:.0f} s and was ended; ask again")

    def _abandon(self, ticket: int) -> None:
        """A caller that stops reading wants no more tokens computed for it."""
        with self._lock:
            if self._open.pop(ticket, None):
                self._send(Cancel(ticket))

    def _read(self) -> None:
        try:
            while True:
                self._dispatch(self._pipe.recv())
        except (EOFError, OSError):
            self._bury()

    def _dispatch(self, batch: Batch) -> None:
        self._stats = batch.stats
        with self._lock:
            for ticket, item in batch.items:
                is_last = isinstance(item, EngineError) or item.finish_reason
                _, outbox = (
                    self._open.pop(ticket, (None, None)) if is_last else self._open.get(ticket, (None, None))
                )
                if outbox:
                    outbox.put(item)

    def _bury(self) -> None:
        self.kill()
        with self._lock:
            self.is_dead = True
            self._pipe.close()
            for _, outbox in self._open.values():
                outbox.put(EngineDied("the engine process ended; the committed text is safe, ask again"))
            self._open.clear()
