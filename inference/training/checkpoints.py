"""Checkpoints that are whole or absent.

A checkpoint is written into a staging folder, sealed by a manifest (size and SHA-256 of each
file), flushed, and only then renamed to its name. Reading checks the seal, so that a damaged
checkpoint is passed over and never resumed from in part.
"""

import errno
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from inference.training.errors import NoSpace

logger = logging.getLogger(__name__)

REQUIRED = ("adapter.safetensors", "optimizer.safetensors", "rng.safetensors", "state.json")
MANIFEST = "MANIFEST.json"
STAGING = ".staging"
NUM_KEPT = 2
SPARE_BYTES = 1 << 30

_NAME = re.compile(r"checkpoint-(\d+)")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Damaged(Exception):
    """A checkpoint folder does not hold what its manifest says."""


@dataclass(frozen=True)
class Checkpoint:
    """A sealed checkpoint: its step and its files, read and checked in one go."""

    step: int
    files: Mapping[str, bytes]


def seal(folder: Path, step: int, files: Mapping[str, bytes]) -> Path:
    """Write `folder/checkpoint-STEP` in full or not at all, then drop all but the newest two."""
    if files.keys() != set(REQUIRED):
        raise ValueError(f"a checkpoint has exactly the files {', '.join(REQUIRED)}")
    staging, target = folder / STAGING, folder / f"checkpoint-{step}"
    folder.mkdir(exist_ok=True)
    require_space(folder, 2 * sum(map(len, files.values())) + SPARE_BYTES)
    with full_disk_is_no_space():
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        for name, content in files.items():
            write_durably(staging / name, content)
        write_durably(staging / MANIFEST, json.dumps(_manifest(step, files), indent=1).encode())
        rename_durably(staging, target)
    _drop_others(folder, step)
    return target


def newest_sealed(folder: Path) -> Checkpoint | None:
    """The newest checkpoint whose every file matches its manifest, or None."""
    for step, path in sorted(_numbered(folder), reverse=True):
        try:
            return Checkpoint(step, _read(path, step))
        except Damaged as damage:
            logger.warning("%s passed over: %s", path.name, damage)
    return None


def require_space(folder: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise NoSpace(
            f"{free >> 20} MiB are free at {folder}, {num_bytes >> 20} MiB are needed."
            " Free some space, then resume the run."
        )


@contextmanager
def full_disk_is_no_space() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise NoSpace(f"the disk is full: {error}. Free some space, then resume the run.") from error
        raise


def write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def rename_durably(source: Path, target: Path) -> None:
    """Put a finished folder in its place; what stood there before is replaced."""
    _fsync_folder(source)
    shutil.rmtree(target, ignore_errors=True)
    source.rename(target)
    _fsync_folder(target.parent)


def _fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _manifest(step: int, files: Mapping[str, bytes]) -> dict[str, object]:
    return {"step": step, "files": {name: _passport(content) for name, content in files.items()}}


def _passport(content: bytes) -> dict[str, object]:
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _read(path: Path, step: int) -> dict[str, bytes]:
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        files = {name: (path / name).read_bytes() for name in REQUIRED}
    except (OSError, ValueError) as error:
        raise Damaged(str(error)) from error
    if manifest != _manifest(step, files):
        raise Damaged("its files differ from its manifest")
    return files


def _numbered(folder: Path) -> Iterator[tuple[int, Path]]:
    if folder.is_dir():
        for path in folder.iterdir():
            if match := _NAME.fullmatch(path.name):
                yield int(match[1]), path


def _drop_others(folder: Path, newest: int) -> None:
    """Keep the newest two. A higher number than the newest is one that was passed over as damaged."""
    kept = sorted((step for step, _ in _numbered(folder) if step <= newest), reverse=True)[:NUM_KEPT]
    for step, path in _numbered(folder):
        if step not in kept:
            shutil.rmtree(path)
