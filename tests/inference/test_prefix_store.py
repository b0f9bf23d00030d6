"""A cache on disk that may lose anything and invents nothing."""

import os
from pathlib import Path

from inference.backends.prefixes import PrefixStore


def test_what_was_saved_is_loaded_by_another_process(tmp_path: Path) -> None:
    PrefixStore(tmp_path).save("style", b"state")
    loaded = PrefixStore(tmp_path).load("style")
    assert loaded is not None
    assert bytes(loaded) == b"state"


def test_what_is_not_there_is_none(tmp_path: Path) -> None:
    assert PrefixStore(tmp_path / "nowhere").load("style") is None


def test_a_damaged_state_is_thrown_away(tmp_path: Path) -> None:
    store = PrefixStore(tmp_path)
    store.save("style", b"state")
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    assert store.load("style") is None
    assert not path.exists()


def test_what_was_read_longest_ago_goes_first(tmp_path: Path) -> None:
    store = PrefixStore(tmp_path, max_bytes=300)
    for age, name in enumerate(("new", "old", "older")):
        store.save(name, bytes(60))
        os.utime(tmp_path / f"{name}.kv", (1000 - age, 1000 - age))
    assert store.load("older") is not None
    store.save("last", bytes(60))
    assert [store.load(name) is not None for name in ("new", "old", "older", "last")] == [
        True, False, True, True,
    ]  # fmt: skip


def test_a_folder_that_cannot_be_written_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    store = PrefixStore(tmp_path / "taken")
    store.save("style", b"state")
    assert store.load("style") is None
