"""The programs of Galley itself, in the order in which they start; they stop in the reverse order."""

import socket
import sys
from pathlib import Path

from galley.launcher.child import Part

# Drafts resume after their last committed token and training after its last checkpoint, so a
# worker that has not come to rest by then may be ended.
WORKER_STOP_DEADLINE_S = 10.0
# uvicorn lets running requests end for 8 s (its flag below) and needs a moment of its own.
WEB_STOP_DEADLINE_S = 10.0
WEB_BACKLOG = 2048


def workers() -> list[Part]:
    return [writing(), training()]


def writing(name: str = "writing") -> Part:
    """A worker that writes drafts; several on one machine need a name each."""
    arguments = ("worker", "-P", "threads", "-c", "2", "-Q", "writing", "-n", f"{name}@%h")
    return _celery(name, *arguments, pool_size=6)


def training() -> Part:
    return _celery("training", "worker", "-P", "threads", "-c", "1", "-Q", "training", "-n", "training@%h")


def beat(home: Path) -> Part:
    """The clock. It keeps no pid file, because a stale one would stop the next start."""
    return _celery("beat", "beat", "-s", str(home / "run" / "beat"), "--pidfile=")


def listen(port: int) -> socket.socket:
    """The socket of the web server, held by whoever starts it: while the server is being started
    again, browsers wait in its backlog instead of being refused. Raises OSError for a port in use."""
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Inherited by every connection; asyncio cannot tell that a socket it was handed is TCP.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(WEB_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def web(listener: socket.socket) -> Part:
    return Part(
        name="web",
        argv=(
            *(sys.executable, "-m", "uvicorn", "galley.asgi:application"),
            *("--fd", str(listener.fileno()), "--lifespan", "off"),
            *("--timeout-graceful-shutdown", "8", "--no-server-header"),
            *("--ws", "galley.sockets:Socket", "--ws-max-size", "65536", "--ws-per-message-deflate", "false"),
        ),
        environment={"GALLEY_DB_POOL": "16", "GALLEY_DB_WAIT_S": "1", "PGAPPNAME": "web"},
        stop_deadline_s=WEB_STOP_DEADLINE_S,
        fds=(listener.fileno(),),
    )


def _celery(name: str, *arguments: str, pool_size: int = 0) -> Part:
    return Part(
        name=name,
        argv=(sys.executable, "-m", "celery", "-A", "galley", *arguments, "-l", "INFO"),
        # By the name PostgreSQL tells whose a session is.
        environment={"GALLEY_DB_POOL": str(pool_size), "PGAPPNAME": name},
        stop_deadline_s=WORKER_STOP_DEADLINE_S,
    )
