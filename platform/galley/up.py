"""`python -m galley.up`: the whole product from one process. `make up` ends here.

python -m galley.up                             everything, until Ctrl-C
python -m galley.up --services-only             PostgreSQL and Redis alone, until Ctrl-C
python -m galley.up --services-only COMMAND     ... for the length of one command
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import environ

from galley import embedded
from galley.launcher import home as home_folder
from galley.launcher import parts
from galley.launcher.errors import Refused
from galley.launcher.report import Report
from galley.launcher.stamps import files_below, when_changed
from galley.launcher.supervisor import StopRequested, Supervisor
from galley.model_choice import chosen_model

ROOT = Path(__file__).resolve().parents[2]
NEEDED_SPACE_BYTES = 500 * 1024 * 1024
HEALTH_DEADLINE_S = 180.0  # a large model is read from the disk in this time
HEALTH_POLL_S = 0.3
NOT_SEEN = "not seen"  # what /healthz says of a part that may still come


def main() -> None:
    options = _read_arguments()
    environ.Env.read_env(ROOT / ".env", overwrite=False)
    home = Path(os.environ.get("GALLEY_HOME") or ROOT / "var").expanduser().resolve()
    os.environ["GALLEY_HOME"] = str(home)
    try:
        if options.services_only:
            sys.exit(_run_services(home, options.command))
        _run_all(home)
    except Refused as refused:
        sys.exit(f"galley: {refused}")


def _read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m galley.up", description="Start Galley.")
    parser.add_argument("--services-only", action="store_true", help="PostgreSQL and Redis alone")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="run this with the services up")
    return parser.parse_args()


# --- PostgreSQL and Redis alone ------------------------------------------------------------------


def _run_services(home: Path, command: list[str]) -> int:
    """Returns the exit status of the command, or 0 after Ctrl-C."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # A handler instead of SIG_IGN, which the command would inherit: Ctrl-C belongs to it.
        signal.signal(number, lambda *_: None)
    with embedded.running(home) as addresses:
        if command:
            return subprocess.run(command, env={**os.environ, **addresses}).returncode
        for name, address in addresses.items():
            print(f"{name}={address}", flush=True)
        signal.pause()
    return 0


# --- everything ----------------------------------------------------------------------------------


def _run_all(home: Path) -> None:
    began = time.monotonic()
    report = Report()
    port = _port()
    home_folder.prepare(home)
    with home_folder.locked(home) as lock_fd:
        listener = _listen(port)
        home_folder.require_space(home, needed_bytes=NEEDED_SPACE_BYTES)
        report.say(f"Galley starts; its state is in {home}")
        supervisor = Supervisor(home, lock_fd=lock_fd, report=report)
        try:
            _start(supervisor, home, listener, report)
            _announce(home, port, report, seconds=time.monotonic() - began)
            supervisor.watch()
        except StopRequested:
            pass
        finally:
            listener.close()  # the web server has its own hold on it, and ends first
            _stop(supervisor, report)


def _start(supervisor: Supervisor, home: Path, listener: socket.socket, report: Report) -> None:
    port = listener.getsockname()[1]
    with report.step("PostgreSQL and Redis"):
        for part in embedded.parts(home):
            supervisor.start(part)
        # Named for the children only now: until here, a name in the environment is somebody else's server.
        os.environ.update(embedded.addresses(home), PORT=str(port))
        # For the life of this stack: a part that is started again must not open what was chosen since.
        os.environ["GALLEY_MODEL"] = os.environ.get("GALLEY_MODEL") or chosen_model(home)
        _require_services()
    supervisor.run_step("database tables", *_manage("migrate", "--no-input"))
    _seed_once(supervisor, home)
    _collect_static(supervisor, home)
    with report.step("workers, clock and web"):
        supervisor.start(*parts.workers())
        supervisor.start(parts.beat(home))
        supervisor.start(parts.web(listener))
        healthy = partial(_is_healthy, port)
        supervisor.wait_for("/healthz", healthy, deadline_s=HEALTH_DEADLINE_S, every_s=HEALTH_POLL_S)


def _seed_once(supervisor: Supervisor, home: Path) -> None:
    """On the first start only: whoever deletes the demo project does not want it back."""
    seeded = home / "seeded"
    if not seeded.exists():
        supervisor.run_step("demo project", *_manage("seed_demo"))
        seeded.touch()


def _collect_static(supervisor: Supervisor, home: Path) -> None:
    sources = files_below(ROOT / "static-build", *sorted(ROOT.glob("apps/*/static")))
    packages = ROOT / "requirements" / "base.lock"  # the admin's files come from there
    with when_changed(home / "run" / "static.stamp", [packages, *sources], made=home / "static") as is_due:
        if is_due:
            supervisor.run_step("static files", *_manage("collectstatic", "--no-input", "--clear"))


def _stop(supervisor: Supervisor, report: Report) -> None:
    with report.step("stopping"):
        supervisor.stop()


def _announce(home: Path, port: int, report: Report, *, seconds: float) -> None:
    # In a session of its own, as every child: Ctrl-C is for the supervisor alone.
    command = _manage("demo_signins")
    sign_ins = subprocess.run(command, stdout=subprocess.PIPE, text=True, start_new_session=True).stdout
    report.say(f"\nGalley is ready after {seconds:.1f} s: http://127.0.0.1:{port}/\n")
    report.say(sign_ins)
    report.say(f"Logs are in {home / 'logs'}. Ctrl-C stops everything.")


def _manage(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, str(ROOT / "manage.py"), *arguments)


# --- what must be true ---------------------------------------------------------------------------


def _port() -> int:
    value = os.environ.get("PORT") or "8000"
    if not value.isdecimal() or not 0 < int(value) < 65536:
        raise Refused(f"PORT must be a number from 1 to 65535, not {value!r}.")
    return int(value)


def _listen(port: int) -> socket.socket:
    try:
        return parts.listen(port)
    except OSError as error:
        raise Refused(
            f"Port {port} cannot be used ({error.strerror}): stop the program that has it, "
            f"or choose another port, for example PORT={port % 65535 + 1} make up."
        ) from error


def _require_services() -> None:
    """The embedded ones are up by now; those that the environment names are somebody else's care."""
    if problem := embedded.database_problem(os.environ["DATABASE_URL"]):
        raise Refused(
            f"The server that DATABASE_URL names cannot be used ({problem}): start it or unset the variable."
        )
    if problem := embedded.redis_problem(os.environ["REDIS_URL"]):
        raise Refused(
            f"The server that REDIS_URL names cannot be used ({problem}): start it or unset the variable."
        )


def _is_healthy(port: int) -> bool:
    """Raises Refused where a part has come up and says that it cannot work: waiting does not mend that."""
    health = _health(port)
    if health is None:
        return False
    problems = {name: part.get("error", "") for name, part in health["parts"].items() if not part["ok"]}
    if problems and NOT_SEEN not in problems.values():
        raise Refused("; ".join(f"{name}: {problem}" for name, problem in problems.items()))
    return not problems


def _health(port: int) -> dict[str, Any] | None:
    """What /healthz answers, or None while nobody does."""
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/healthz")
        answer: dict[str, Any] = json.load(connection.getresponse())
        return answer
    except (OSError, HTTPException, ValueError):
        return None
    finally:
        connection.close()


if __name__ == "__main__":
    main()
