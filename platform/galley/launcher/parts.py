"""The programs of Galley itself, in the order in which they start; they stop in the reverse order."""

import sys
from pathlib import Path

from galley.launcher.child import Part

# Drafts resume after their last committed token and training after its last checkpoint, so a
# worker that has not come to rest by then may be ended.
WORKER_STOP_DEADLINE_S = 10.0
# uvicorn lets running requests end for 8 s (its flag below) and needs a moment of its own.
WEB_STOP_DEADLINE_S = 10.0


def workers() -> list[Part]:
    return [
        _celery("writing", "worker", "-P", "threads", "-c", "16", "-Q", "writing", "-n", "writing@%h"),
        _celery("training", "worker", "-P", "threads", "-c", "1", "-Q", "training", "-n", "training@%h"),
    ]


def beat(home: Path) -> Part:
    """The clock. It keeps no pid file, because a stale one would stop the next start."""
    return _celery("beat", "beat", "-s", str(home / "run" / "beat"), "--pidfile=")


def web(port: int) -> Part:
    return Part(
        name="web",
        argv=(
            *(sys.executable, "-m", "uvicorn", "galley.asgi:application"),
            *("--host", "127.0.0.1", "--port", str(port), "--lifespan", "off"),
            *("--timeout-graceful-shutdown", "8", "--no-server-header"),
        ),
        environment={"GALLEY_WEB_POOL": "1"},
        stop_deadline_s=WEB_STOP_DEADLINE_S,
    )


def _celery(name: str, *arguments: str) -> Part:
    return Part(
        name=name,
        argv=(sys.executable, "-m", "celery", "-A", "galley", *arguments, "-l", "INFO"),
        stop_deadline_s=WORKER_STOP_DEADLINE_S,
    )
