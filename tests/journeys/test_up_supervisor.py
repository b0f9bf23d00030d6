"""The supervisor with small stand-in programs: order, revival, and ends that always come."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from galley.launcher import home as home_folder
from galley.launcher.child import Part
from galley.launcher.errors import Refused
from galley.launcher.report import Report
from galley.launcher.supervisor import StopRequested, Supervisor


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = {number: signal.getsignal(number) for number in numbers}
    home_folder.prepare(tmp_path)
    with home_folder.locked(tmp_path) as lock_fd:
        supervisor = Supervisor(tmp_path, lock_fd=lock_fd, report=Report())
        yield supervisor
        supervisor.stop()
    for number, handler in handlers.items():
        signal.signal(number, handler)


def program(name: str, source: str, **options: object) -> Part:
    return Part(name=name, argv=(sys.executable, "-c", source), **options)  # type: ignore[arg-type]


def says_when_it_ends(name: str, diary: Path) -> Part:
    started = diary.with_name(f"{name}.started")
    source = f"""
import signal, sys, time
def end(*_):
    with open({str(diary)!r}, "a") as diary: diary.write("{name}\\n")
    sys.exit()
signal.signal(signal.SIGTERM, end)
open({str(started)!r}, "w").close()
time.sleep(60)
"""
    return program(name, source, ready=started.exists)


def wait_until_gone(pid: int) -> None:
    give_up_at = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < give_up_at, f"process {pid} is still there"
        time.sleep(0.02)


def test_parts_end_in_the_reverse_order_of_their_start(supervisor: Supervisor, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    for name in ("database", "worker", "web"):
        supervisor.start(says_when_it_ends(name, diary))

    supervisor.stop()

    assert diary.read_text().split() == ["web", "worker", "database"]


def test_a_part_that_dies_starts_again_and_a_line_says_so(
    supervisor: Supervisor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pids = tmp_path / "pids"
    source = f"import os, time; open({str(pids)!r}, 'a').write(f'{{os.getpid()}}\\n'); time.sleep(60)"
    supervisor.start(program("worker", source, ready=lambda: pids.exists() and bool(pids.read_text())))

    os.kill(int(pids.read_text()), signal.SIGKILL)
    supervisor.wait_for("a second life", lambda: len(pids.read_text().split()) == 2, deadline_s=10)

    assert "worker was ended by SIGKILL and starts again in 1 s" in capsys.readouterr().out


def test_a_part_that_does_not_stay_up_ends_the_start(supervisor: Supervisor) -> None:
    broken = program("web", "raise SystemExit(3)", ready=lambda: False)

    with pytest.raises(Refused, match=r"web does not stay up: see the end of .*web\.log"):
        supervisor.start(broken)


def test_a_part_that_never_gets_ready_is_given_up(supervisor: Supervisor) -> None:
    with pytest.raises(Refused, match="Redis did not come up in 0 s"):
        supervisor.wait_for("Redis", lambda: False, deadline_s=0.1)


def test_a_part_that_will_not_end_is_killed_at_its_deadline(supervisor: Supervisor, tmp_path: Path) -> None:
    deaf = tmp_path / "deaf"
    source = f"""
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open({str(deaf)!r}, "w").write(str(os.getpid()))
time.sleep(60)
"""
    ready = lambda: deaf.exists() and bool(deaf.read_text())  # noqa: E731
    supervisor.start(program("worker", source, ready=ready, stop_deadline_s=0.3))
    began = time.monotonic()

    supervisor.stop()

    assert 0.3 <= time.monotonic() - began < 2
    wait_until_gone(int(deaf.read_text()))


def test_the_children_of_a_part_end_with_it(supervisor: Supervisor, tmp_path: Path) -> None:
    grandchild = tmp_path / "grandchild"
    source = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
open({str(grandchild)!r}, "w").write(str(child.pid))
time.sleep(60)
"""
    supervisor.start(
        program("worker", source, ready=lambda: grandchild.exists() and bool(grandchild.read_text()))
    )

    supervisor.stop()

    wait_until_gone(int(grandchild.read_text()))


def test_a_signal_ends_every_wait(supervisor: Supervisor) -> None:
    os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StopRequested):
        supervisor.wait_for("nothing", lambda: False, deadline_s=10)


def test_a_failed_step_shows_the_end_of_its_log(supervisor: Supervisor) -> None:
    with pytest.raises(Refused, match=r"(?s)ended with status 1.*setup\.log.*the column is missing"):
        supervisor.run_step(
            "database tables", sys.executable, "-c", "raise SystemExit('the column is missing')"
        )
