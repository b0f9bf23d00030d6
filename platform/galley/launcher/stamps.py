"""Skip a slow step whose inputs are what they were when it last succeeded."""

import hashlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def when_changed(stamp: Path, inputs: Iterable[Path], *, made: Path) -> Iterator[bool]:
    """Yields whether the step is due: an input changed or `made` is gone. Failure leaves no stamp."""
    digest = _digest(inputs)
    is_current = stamp.exists() and stamp.read_text() == digest and made.exists()
    yield not is_current
    stamp.parent.mkdir(exist_ok=True)
    stamp.write_text(digest)


def files_below(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())


def _digest(inputs: Iterable[Path]) -> str:
    """Of full names and contents, so that a checkout that was moved installs itself again."""
    digest = hashlib.sha256(sys.version.encode())
    for path in inputs:
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"\n{path} {content}".encode())
    return digest.hexdigest()
