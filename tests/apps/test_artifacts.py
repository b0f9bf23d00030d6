"""The content-addressed store: what comes out is what went in, or nothing."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.db import DatabaseError, transaction

from apps.common.errors import GalleyError
from apps.tuning import artifacts
from apps.tuning.models import Artifact

pytestmark = pytest.mark.django_db

CONTENT = b"one\ntwo\n" * 1000


@pytest.fixture
def source(home: Path) -> Path:
    path = home / "records.jsonl"
    path.write_bytes(CONTENT)
    return path


def stored(home: Path, artifact: Artifact) -> Path:
    (path,) = (home / "store").rglob(artifact.sha256)
    return path


def test_a_file_comes_back_as_it_was(home: Path, source: Path) -> None:
    artifact = artifacts.put(source, kind="dataset")

    copy = artifacts.fetch(artifact.sha256, home / "deep" / "down" / "copy")

    assert copy.read_bytes() == CONTENT
    assert (artifact.sha256, artifact.size) == (hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
    assert list(copy.parent.iterdir()) == [copy]


def test_the_same_content_is_stored_once(home: Path, source: Path) -> None:
    first = artifacts.put(source, kind="dataset")
    twin = home / "twin"
    twin.write_bytes(CONTENT)

    assert artifacts.put(twin, kind="dataset") == first
    assert Artifact.objects.count() == 1


def test_a_file_left_by_a_put_that_died_before_its_row_is_taken_over(home: Path, source: Path) -> None:
    artifact = artifacts.put(source, kind="dataset")
    Artifact.objects.all().delete()

    assert artifacts.put(source, kind="dataset") == artifact


def test_a_file_cut_short_in_the_store_is_refused_once_and_then_replaced(home: Path, source: Path) -> None:
    artifact = artifacts.put(source, kind="dataset")
    Artifact.objects.all().delete()
    stored(home, artifact).write_bytes(CONTENT[:100])

    with pytest.raises(GalleyError, match="only part of a file"):
        artifacts.put(source, kind="dataset")
    assert not Artifact.objects.exists()

    artifacts.put(source, kind="dataset")
    assert stored(home, artifact).read_bytes() == CONTENT


def test_a_damaged_file_is_never_handed_out(home: Path, source: Path) -> None:
    artifact = artifacts.put(source, kind="dataset")
    stored(home, artifact).write_bytes(b"X" + CONTENT[1:])

    with pytest.raises(GalleyError) as refused:
        artifacts.fetch(artifact.sha256, home / "copy")

    assert refused.value.reason == "artifact_damaged"
    assert not (home / "copy").exists()
    assert not list(home.glob(".copy*"))


def test_a_file_that_is_gone_from_the_store_is_named(home: Path, source: Path) -> None:
    artifact = artifacts.put(source, kind="dataset")
    stored(home, artifact).unlink()

    with pytest.raises(GalleyError, match=artifact.sha256[:12]) as refused:
        artifacts.fetch(artifact.sha256, home / "copy")

    assert refused.value.reason == "artifact_missing"


def test_a_copy_that_is_whole_is_left_alone_and_a_damaged_one_replaced(home: Path, source: Path) -> None:
    artifact = artifacts.put(source, kind="dataset")
    copy = artifacts.fetch(artifact.sha256, home / "copy")
    made_at = copy.stat().st_mtime_ns

    assert artifacts.fetch(artifact.sha256, copy).stat().st_mtime_ns == made_at

    copy.write_bytes(b"damaged")
    assert artifacts.fetch(artifact.sha256, copy).read_bytes() == CONTENT


def test_drafts_that_want_the_same_adapter_at_once_all_get_it(home: Path) -> None:
    source = home / "adapter"
    source.write_bytes(CONTENT * 500)
    artifact = artifacts.put(source, kind="adapter")
    copy = home / "copy"

    with ThreadPoolExecutor(8) as threads:
        fetched = list(threads.map(lambda _: artifacts.fetch(artifact.sha256, copy), range(16)))

    assert set(fetched) == {copy}
    assert copy.read_bytes() == CONTENT * 500


def test_a_row_of_the_store_never_changes(source: Path) -> None:
    artifacts.put(source, kind="dataset")

    with pytest.raises(DatabaseError, match="Cannot update"), transaction.atomic():
        Artifact.objects.update(size=1)
