"""What keeps Galley from starting is said in one sentence that names the way out."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from galley import install
from galley.launcher import home as home_folder
from galley.launcher.errors import Refused
from tests.support.servers import free_port


def refusal(**environment: str) -> str:
    """What `python -m galley.up` says when it does not start."""
    done = subprocess.run(
        [sys.executable, "-m", "galley.up"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_taken_port(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        said = refusal(PORT=str(port), GALLEY_HOME=str(tmp_path))

    assert re.fullmatch(rf"galley: Port {port} cannot be used \(.*\): stop .* PORT=\d+ make up\.\n", said)


@pytest.mark.parametrize("port", ["abc", "0", "65536", "-1", "80 80"])
def test_a_port_that_is_none(tmp_path: Path, port: str) -> None:
    assert "PORT must be a number from 1 to 65535" in refusal(PORT=port, GALLEY_HOME=str(tmp_path))


def test_a_home_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "home").touch()

    assert "set GALLEY_HOME to a folder that you can write to" in refusal(GALLEY_HOME=str(tmp_path / "home"))


def test_a_database_that_nobody_serves(tmp_path: Path) -> None:
    said = refusal(
        PORT=str(free_port()), GALLEY_HOME=str(tmp_path), DATABASE_URL="postgresql://app@127.0.0.1:9/app"
    )

    assert "The server that DATABASE_URL names cannot be used" in said


def test_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"has \d+ MB free and Galley needs \d+ MB: free some space"):
        home_folder.require_space(tmp_path, needed_bytes=2**62)

    home_folder.require_space(tmp_path, needed_bytes=1)


def test_a_missing_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("CC", "CXX"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refused, match=r"no C and C\+\+ compiler: install one .*build-essential"):
        install.require_compiler()

    for program in ("cc", "c++"):
        (tmp_path / program).touch(mode=0o755)
    install.require_compiler()
