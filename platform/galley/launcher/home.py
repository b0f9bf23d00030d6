"""The state folder of one copy of Galley, and the lock that keeps a second copy out of it."""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from galley.launcher.child import POLL_S
from galley.launcher.errors import Refused

DYING_S = 1.0  # a killed process holds its locks for some milliseconds more
REMAINS_DEADLINE_S = 20.0


def prepare(home: Path) -> None:
    """Make the folders that every part expects. Raises Refused where that is not possible."""
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in ("run", "logs"):
            (home / folder).mkdir(exist_ok=True, mode=0o700)
    except OSError as error:
        raise Refused(
            f"Cannot keep state in {home} ({error.strerror}): "
            "set GALLEY_HOME to a folder that you can write to."
        ) from error


def require_space(folder: Path, *, needed_bytes: int) -> None:
    """Refuse before the disk is full, because a database that runs into the end of it stops."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise Refused(
            f"The disk of {folder} has {free >> 20} MB free and Galley needs {needed_bytes >> 20} MB: "
            "free some space, or set GALLEY_HOME to a folder on another disk."
        )


def log_path(home: Path, part: str) -> Path:
    return home / "logs" / f"{part}.log"


@contextmanager
def locked(home: Path) -> Iterator[int]:
    """Hold the home; yields a file descriptor that every child must inherit.

    Two locks, which the kernel drops with their last holder, so that none can be stale: `up.lock`
    is ours alone, `parts.lock` our children hold too. Where only the second is held, a supervisor
    was killed and its children are about to end: this waits for them.
    """
    with (home / "run" / "up.lock").open("a+") as own, (home / "run" / "parts.lock").open("a") as shared:
        if not _lock_within(DYING_S, own):
            own.seek(0)
            raise Refused(
                f"Galley is already running on {home} (process {own.read()}): stop that one, "
                "or set GALLEY_HOME and PORT to start a second copy beside it."
            )
        own.truncate(0)
        own.write(str(os.getpid()))
        own.flush()
        if not _lock_within(REMAINS_DEADLINE_S, shared):
            raise Refused(
                f"Parts of an earlier run on {home} do not end: find them with "
                f"`fuser {home}/run/parts.lock` and end them."
            )
        yield shared.fileno()


def _lock_within(deadline_s: float, file: IO[str]) -> bool:
    give_up_at = time.monotonic() + deadline_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > give_up_at:
                return False
        time.sleep(POLL_S)
