"""The engine's own process: `python -m inference.engine.host FD`.

It lives as long as the pipe to its parent does. A crash, a bug in a model file's parser or a lack
of memory ends here, and the parent starts the next one.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from threading import Thread

from inference.backends import Runner
from inference.engine.loop import Loop
from inference.engine.messages import Launch, Ready, ToEngine
from inference.engine.scheduler import Limits
from inference.errors import EngineError
from inference.models import ResolvedModel, resolve

Inbox = SimpleQueue[ToEngine]
PipeToParent = Connection


def main() -> None:
    # Ctrl-C and a service manager's TERM reach the whole group; the parent decides when we end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    logging.basicConfig(level=logging.WARNING, format="engine: %(levelname)s %(message)s")
    pipe: PipeToParent = Connection(int(sys.argv[1]))
    launch: Launch = pipe.recv()
    try:
        loop = _load(launch, pipe)
    except EngineError as error:
        pipe.send(error)
        return
    inbox: Inbox = SimpleQueue()
    Thread(target=_read, args=(pipe, inbox), daemon=True).start()
    while True:
        pipe.send(loop.turn(_receive(inbox, wait=loop.is_idle)))


def _load(launch: Launch, pipe: PipeToParent) -> Loop:
    model = resolve(launch.model, launch.home)
    runner = _open_runner(model, launch)
    limits = Limits(
        max_sequences=launch.max_sequences,
        kv_cells=launch.n_ctx,
        max_lanes=runner.max_lanes,
        max_prefixes=runner.max_prefixes,
        max_guesses=runner.max_guesses,
    )
    loop = Loop(runner, limits)
    pipe.send(Ready(runner.info, loop.stats))
    return loop


def _open_runner(model: ResolvedModel, launch: Launch) -> Runner:
    if model.kind == "fake":
        from inference.backends.fake import FakeRunner

        return FakeRunner(model)
    if model.kind == "torch":
        from inference.backends.torch import TorchRunner  # seconds, and a GPU where there is one

        open_runner: Callable[..., Runner] = TorchRunner
    else:
        from inference.backends.llamacpp import LlamaCppRunner  # loads a C library; only where it is used

        open_runner = LlamaCppRunner
    return open_runner(
        model,
        cache=launch.home,
        n_ctx=launch.n_ctx,
        max_sequences=launch.max_sequences,
        threads=launch.threads,
    )


def _read(pipe: PipeToParent, inbox: Inbox) -> None:
    try:
        while True:
            inbox.put(pipe.recv())
    except (EOFError, OSError):
        os._exit(0)  # the parent is gone; a step that may be running computes for nobody


def _receive(inbox: Inbox, *, wait: bool) -> list[ToEngine]:
    messages = [inbox.get()] if wait else []
    try:
        while True:
            messages.append(inbox.get_nowait())
    except Empty:
        return messages


if __name__ == "__main__":
    main()
