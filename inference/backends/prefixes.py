"""Computed beginnings of prompts on disk, so that the first brief after a restart need not wait."""

import logging
import os
import tempfile
from contextlib import suppress
from hashlib import sha256
from mmap import ACCESS_READ, mmap
from pathlib import Path

logger = logging.getLogger(__name__)

State = bytes | memoryview

MAX_BYTES = 1 << 30
_DIGEST_SIZE = 32
_SUFFIX = ".kv"


class PrefixStore:
    """A folder of states by name. It is a cache: what is lost or damaged is computed again.

    Each file begins with the SHA-256 of the rest. When the folder outgrows `max_bytes`, what was
    read longest ago goes first.
    """

    def __init__(self, folder: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self._folder, self._max_bytes = folder, max_bytes

    def load(self, name: str) -> memoryview | None:
        """The state as it lies in the file: read where it is used, and copied nowhere."""
        path = self._folder / f"{name}{_SUFFIX}"
        try:
            with path.open("rb") as file:
                content = memoryview(mmap(file.fileno(), 0, access=ACCESS_READ))
            os.utime(path)
        except (OSError, ValueError):  # an empty file cannot be mapped
            return None
        digest, state = content[:_DIGEST_SIZE], content[_DIGEST_SIZE:]
        if sha256(state).digest() == digest:
            return state
        logger.warning("%s is damaged and was thrown away", path)
        path.unlink(missing_ok=True)
        return None

    def save(self, name: str, state: State) -> None:
        """Never fails: on a full disk the next process computes the prefix again."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._write(self._folder / f"{name}{_SUFFIX}", state)
            self._prune()
        except OSError as error:
            logger.warning("a prompt's beginning could not be kept: %s", error)

    def _write(self, path: Path, state: State) -> None:
        with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as fresh:
            try:
                fresh.write(sha256(state).digest())
                fresh.write(state)
                fresh.flush()
                os.replace(fresh.name, path)
            except OSError:
                Path(fresh.name).unlink(missing_ok=True)
                raise

    def _prune(self) -> None:
        """Other engines may use the folder as well: a file that is gone already is fine."""
        sizes: list[tuple[float, int, Path]] = []
        for path in self._folder.glob(f"*{_SUFFIX}"):
            with suppress(FileNotFoundError):
                found = path.stat()
                sizes.append((found.st_mtime, found.st_size, path))
        excess = sum(size for _, size, _ in sizes) - self._max_bytes
        for _, size, path in sorted(sizes):
            if excess <= 0:
                return
            path.unlink(missing_ok=True)
            excess -= size
