"""A checkpoint is whole or it is passed over."""

from collections.abc import Callable
from pathlib import Path

import pytest

from inference.training.checkpoints import MANIFEST, REQUIRED, STAGING, newest_sealed, require_space, seal
from inference.training.errors import NoSpace


def files_of(step: int) -> dict[str, bytes]:
    return {name: f"{name} after {step} steps".encode() for name in REQUIRED}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_sealed_checkpoint_is_read_back(tmp_path: Path) -> None:
    seal(tmp_path, 3, files_of(3))
    found = newest_sealed(tmp_path)
    assert found is not None
    assert (found.step, found.files) == (3, files_of(3))


def test_newest_is_the_highest_number_and_two_are_kept(tmp_path: Path) -> None:
    for step in (8, 9, 10):
        seal(tmp_path, step, files_of(step))
    found = newest_sealed(tmp_path)
    assert found is not None and found.step == 10
    assert names(tmp_path) == ["checkpoint-10", "checkpoint-9"]


def test_no_checkpoint_yet(tmp_path: Path) -> None:
    assert newest_sealed(tmp_path) is None
    assert newest_sealed(tmp_path / "absent") is None


def remove(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", [*REQUIRED, MANIFEST])
@pytest.mark.parametrize("damage", [remove, empty, truncate, flip_a_bit])
def test_any_damage_falls_back_to_the_one_before(
    tmp_path: Path, name: str, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    seal(tmp_path, 2, files_of(2))
    newest = seal(tmp_path, 4, files_of(4))
    damage(newest / name)
    found = newest_sealed(tmp_path)
    assert found is not None and found.step == 2
    assert "checkpoint-4 passed over" in caplog.text


def test_manifest_of_another_checkpoint_does_not_count(tmp_path: Path) -> None:
    seal(tmp_path, 2, files_of(2)).rename(tmp_path / "checkpoint-9")
    assert newest_sealed(tmp_path) is None


def test_damaged_one_is_replaced_when_training_comes_there_again(tmp_path: Path) -> None:
    seal(tmp_path, 2, files_of(2))
    remove(seal(tmp_path, 4, files_of(4)) / "state.json")
    seal(tmp_path, 3, files_of(3))
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-3"]


def test_what_a_kill_left_in_staging_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / STAGING).mkdir()
    (tmp_path / STAGING / "optimizer.safetensors").write_bytes(b"half")
    assert newest_sealed(tmp_path) is None
    seal(tmp_path, 1, files_of(1))
    assert names(tmp_path) == ["checkpoint-1"]


def test_incomplete_state_is_never_sealed(tmp_path: Path) -> None:
    files = files_of(1)
    del files["rng.safetensors"]
    with pytest.raises(ValueError, match=r"rng\.safetensors"):
        seal(tmp_path, 1, files)
    assert names(tmp_path) == []


def test_too_little_space_is_said_before_writing(tmp_path: Path) -> None:
    require_space(tmp_path, 1)
    with pytest.raises(NoSpace, match="Free some space"):
        require_space(tmp_path, 1 << 62)
