"""The content-addressed store, through Django's storage API so that a bucket serves many machines."""

import hashlib
import os
from pathlib import Path
from threading import get_ident

from django.core.files.base import File
from django.core.files.storage import storages
from django.utils.translation import gettext as _

from apps.common.errors import GalleyError
from apps.tuning.models import Artifact

_BLOCK = 1 << 20


def put(path: Path, *, kind: str) -> Artifact:
    """Store a file under its SHA-256. The row is written last, after the stored size was looked at."""
    sha256, size = _digest(path), path.stat().st_size
    if existing := Artifact.objects.filter(pk=sha256).first():
        return existing
    storage, name = storages["artifacts"], _name(sha256)
    if not storage.exists(name):
        with path.open("rb") as source:
            storage.save(name, File(source))
    if storage.size(name) != size:
        storage.delete(name)
        raise GalleyError("store_failed", _("The store kept only part of a file. Is the disk full?"))
    artifact, _created = Artifact.objects.get_or_create(sha256=sha256, defaults={"size": size, "kind": kind})
    return artifact


def fetch(sha256: str, target: Path) -> Path:
    """Copy an artifact to `target`, verified; a target that is whole already is left alone."""
    if target.exists() and _digest(target) == sha256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.{get_ident()}.part")
    storage, name = storages["artifacts"], _name(sha256)
    if not storage.exists(name):
        raise GalleyError("artifact_missing", _("A file of the store is gone: %s") % sha256[:12])
    with storage.open(name) as source, partial.open("wb") as sink:
        for block in iter(lambda: source.read(_BLOCK), b""):
            sink.write(block)
        sink.flush()
        os.fsync(sink.fileno())
    if _digest(partial) != sha256:
        partial.unlink()
        raise GalleyError("artifact_damaged", _("A file of the store is damaged: %s") % sha256[:12])
    os.replace(partial, target)
    return target


def _name(sha256: str) -> str:
    return f"sha256/{sha256[:2]}/{sha256[2:4]}/{sha256}"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
