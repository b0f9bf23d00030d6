"""PostgreSQL and Redis from wheels: they start, keep what they are given, and end."""

import os
import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from redis import Redis

from galley import embedded
from galley.launcher.errors import Refused


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test run itself has named its servers; here the embedded ones of another home are wanted."""
    monkeypatch.delenv("DATABASE_URL")
    monkeypatch.delenv("REDIS_URL")


def test_both_servers_answer_and_keep_what_they_were_given(tmp_path: Path) -> None:
    with embedded.running(tmp_path) as urls:
        with psycopg.connect(urls["DATABASE_URL"]) as connection:
            connection.execute("CREATE TABLE words AS SELECT 'galley' AS word")
        with Redis.from_url(urls["REDIS_URL"]) as client:
            client.set("word", "galley")

    with embedded.running(tmp_path) as urls:
        with psycopg.connect(urls["DATABASE_URL"]) as connection:
            assert connection.execute("SELECT word FROM words").fetchone() == ("galley",)
        with Redis.from_url(urls["REDIS_URL"]) as client:
            assert client.get("word") == b"galley"


def test_nothing_answers_after_the_with(tmp_path: Path) -> None:
    with embedded.running(tmp_path) as urls:
        pass

    assert embedded.database_problem(urls["DATABASE_URL"])
    assert embedded.redis_problem(urls["REDIS_URL"])


def test_a_second_user_of_the_same_home_is_told_who_has_it(tmp_path: Path) -> None:
    with (
        embedded.running(tmp_path),
        pytest.raises(Refused, match=rf"already running .* \(process {os.getpid()}\).*GALLEY_HOME"),
        embedded.running(tmp_path),
    ):
        pass


def test_servers_that_the_environment_names_are_not_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://somebody@elsewhere/else")

    assert [part.name for part in embedded.parts(tmp_path)] == ["redis"]
    assert embedded.addresses(tmp_path)["DATABASE_URL"] == "postgresql://somebody@elsewhere/else"


@pytest.mark.parametrize("folder", ["x" * 90, "a folder", "a,b", "päth"])
def test_a_path_that_no_socket_can_have_is_replaced_by_a_short_one(tmp_path: Path, folder: str) -> None:
    home = tmp_path / folder

    with embedded.running(home) as urls:
        assert re.fullmatch(r"unix:///tmp/galley-\d+-[0-9a-f]{16}/redis\.sock\?db=0", urls["REDIS_URL"])
        assert embedded.runtime_dir(home).stat().st_mode & 0o777 == 0o700
    embedded.runtime_dir(home).rmdir()


def test_a_runtime_folder_that_others_can_open_is_refused(tmp_path: Path) -> None:
    home = tmp_path / ("x" * 90)
    embedded.runtime_dir(home).mkdir(mode=0o755)
    try:
        with pytest.raises(Refused, match="opened by others"), embedded.running(home):
            pass
    finally:
        embedded.runtime_dir(home).rmdir()


def test_a_killed_parent_takes_its_servers_along_and_the_home_can_be_used_at_once(tmp_path: Path) -> None:
    program = """
import sys, time
from pathlib import Path
from galley import embedded
with embedded.running(Path(sys.argv[1])):
    print("up", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        parent.kill()

        with embedded.running(tmp_path) as urls:  # not even reaped yet: waits for the servers' end
            assert embedded.database_problem(urls["DATABASE_URL"]) is None


def test_an_interrupted_first_start_is_begun_again(tmp_path: Path) -> None:
    half = tmp_path / "postgresql.unfinished"
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")

    with embedded.running(tmp_path) as urls:
        assert embedded.database_problem(urls["DATABASE_URL"]) is None


def test_a_folder_that_cannot_hold_state_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with (
        pytest.raises(Refused, match=r"Cannot keep state in .*file.*set GALLEY_HOME"),
        embedded.running(tmp_path / "file"),
    ):
        pass
