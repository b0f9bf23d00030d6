"""The store against its registry."""

import hashlib
from collections.abc import Iterator
from datetime import timedelta

from django.core.files.storage import Storage, storages
from django.utils import timezone

from apps.tuning.models import Artifact
from galley.invariants.found import Found, Inputs

ORPHANED_AFTER = timedelta(hours=24)
_FOLDER = "sha256"
_BLOCK = 1 << 20


def files_are_whole(found: Found, _inputs: Inputs) -> None:
    """Reads every registered file, so it takes as long as the store is large."""
    storage = storages["artifacts"]
    for sha256, size, path in _registered():
        found.looked_at(1)
        if not storage.exists(path):
            found.wrong(f"artifact {sha256} has no file")
        elif storage.size(path) != size or _digest(storage, path) != sha256:
            found.wrong(f"artifact {sha256} has a file with another content")
    found.wrong_where(
        """
        SELECT concat_ws(' ', 'release', r.id, 'is of adapter', a.id, 'that has not passed its gate')
        FROM tuning_release r JOIN tuning_adapter a ON a.id = r.adapter_id WHERE NOT a.gate_passed
        UNION ALL
        SELECT concat_ws(' ', 'adapter', a.id, 'names', file.key, file.value, 'that is not registered')
        FROM tuning_adapter a CROSS JOIN LATERAL jsonb_each_text(a.files) AS file
        LEFT JOIN tuning_artifact t ON t.sha256 = file.value WHERE t.sha256 IS NULL
        """
    )


def no_orphans(found: Found, _inputs: Inputs) -> None:
    storage = storages["artifacts"]
    registered = {path for _sha256, _size, path in _registered()}
    newest = timezone.now() - ORPHANED_AFTER
    for path in _files_below(storage, _FOLDER):
        found.looked_at(1)
        if path not in registered and storage.get_modified_time(path) < newest:
            found.wrong(f"{path} is in the store and in no row")


def _registered() -> Iterator[tuple[str, int, str]]:
    for sha256, size in Artifact.objects.values_list("sha256", "size").iterator():
        yield sha256, size, f"{_FOLDER}/{sha256[:2]}/{sha256[2:4]}/{sha256}"


def _files_below(storage: Storage, folder: str) -> Iterator[str]:
    if not storage.exists(folder):
        return
    folders, names = storage.listdir(folder)
    yield from (f"{folder}/{name}" for name in names)
    for name in folders:
        yield from _files_below(storage, f"{folder}/{name}")


def _digest(storage: Storage, path: str) -> str:
    digest = hashlib.sha256()
    with storage.open(path) as file:
        for block in iter(lambda: file.read(_BLOCK), b""):
            digest.update(block)
    return digest.hexdigest()
