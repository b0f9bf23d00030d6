"""Promote and roll back: one row each, after the gate only, and every release can be told later."""

import pytest
from django.db import DatabaseError, transaction

from apps.tuning.models import Adapter, Release, ReleaseKind
from apps.tuning.selectors import live_release
from tests.support.cast import Newsroom, assert_refused
from tests.support.factories import an_adapter


def promote(room: Newsroom, adapter: Adapter) -> None:
    assert room.ada.post(f"/adapters/{adapter.pk}/promote").status_code == 201


def roll_back(room: Newsroom) -> Release:
    answer = room.ada.post("/releases/rollback", project_id=room.project.pk)
    assert answer.status_code == 201, answer.json()
    return Release.objects.get(pk=answer.json()["id"])


def live(room: Newsroom) -> Adapter | None:
    release = live_release(room.project)
    return release.adapter if release else None


def test_promote(newsroom: Newsroom) -> None:
    adapter = an_adapter(newsroom)

    answer = newsroom.ada.post(f"/adapters/{adapter.pk}/promote")

    assert answer.status_code == 201
    body = answer.json()
    assert (body["number"], body["kind"], body["adapter_id"]) == (1, "promotion", adapter.pk)
    assert newsroom.eli.get("/releases", project_id=newsroom.project.pk).json()[0] == body
    assert live(newsroom) == adapter


def test_roll_back_to_the_base_model(newsroom: Newsroom) -> None:
    promote(newsroom, an_adapter(newsroom))

    release = roll_back(newsroom)

    assert (release.number, release.kind, release.adapter) == (2, "rollback", None)
    assert release.label == "Base model"
    answer = newsroom.ada.post("/releases/rollback", project_id=newsroom.project.pk)
    assert_refused(answer, 409, "nothing_to_roll_back")


def test_a_chain_is_rolled_back_one_by_one(newsroom: Newsroom) -> None:
    first, second = an_adapter(newsroom), an_adapter(newsroom)
    promote(newsroom, first)
    promote(newsroom, second)

    assert roll_back(newsroom).adapter == first
    assert roll_back(newsroom).adapter is None
    answer = newsroom.ada.post("/releases/rollback", project_id=newsroom.project.pk)
    assert_refused(answer, 409, "nothing_to_roll_back")
    assert list(Release.objects.values_list("number", flat=True)) == [4, 3, 2, 1]


def test_what_is_promoted_after_a_roll_back_goes_back_to_what_was_live_then(newsroom: Newsroom) -> None:
    a, b, c = an_adapter(newsroom), an_adapter(newsroom), an_adapter(newsroom)
    promote(newsroom, a)
    promote(newsroom, b)
    assert roll_back(newsroom).adapter == a
    promote(newsroom, c)

    assert roll_back(newsroom).adapter == a
    assert roll_back(newsroom).adapter is None
    promote(newsroom, b)
    assert roll_back(newsroom).adapter is None


def test_nothing_was_ever_promoted(newsroom: Newsroom) -> None:
    answer = newsroom.ada.post("/releases/rollback", project_id=newsroom.project.pk)

    assert_refused(answer, 409, "nothing_to_roll_back")
    assert newsroom.ada.get("/releases", project_id=newsroom.project.pk).json() == []


def test_what_the_gate_refused_does_not_go_live(newsroom: Newsroom) -> None:
    adapter = an_adapter(newsroom, gate_passed=False)

    assert_refused(newsroom.ada.post(f"/adapters/{adapter.pk}/promote"), 409, "gate_not_passed")
    with pytest.raises(DatabaseError, match="only after its gate"), transaction.atomic():
        _insert(newsroom, adapter)
    assert live(newsroom) is None


def test_the_database_refuses_an_adapter_of_another_project(newsroom: Newsroom) -> None:
    adapter = an_adapter(newsroom)

    with pytest.raises(DatabaseError, match="in its own project"), transaction.atomic():
        Release.objects.create(
            project=newsroom.foreign_project,
            number=1,
            kind=ReleaseKind.PROMOTION,
            adapter=adapter,
            created_by=newsroom.mallory.user,
        )


def _insert(room: Newsroom, adapter: Adapter) -> Release:
    return Release.objects.create(
        project=room.project,
        number=1,
        kind=ReleaseKind.PROMOTION,
        adapter=adapter,
        created_by=room.ada.user,
    )


def test_what_is_live_is_not_promoted_again(newsroom: Newsroom) -> None:
    adapter = an_adapter(newsroom)
    promote(newsroom, adapter)

    assert_refused(newsroom.ada.post(f"/adapters/{adapter.pk}/promote"), 409, "already_live")


def test_releases_and_adapters_never_change(newsroom: Newsroom) -> None:
    promote(newsroom, an_adapter(newsroom))

    with pytest.raises(DatabaseError, match="Cannot update"), transaction.atomic():
        Release.objects.update(adapter=None)
    with pytest.raises(DatabaseError, match="Cannot update"), transaction.atomic():
        Adapter.objects.update(gate_passed=True)


@pytest.mark.parametrize("who", ["eli", "rosa"])
def test_only_an_admin_decides_what_is_live(newsroom: Newsroom, who: str) -> None:
    adapter, member = an_adapter(newsroom), getattr(newsroom, who)

    assert_refused(member.post(f"/adapters/{adapter.pk}/promote"), 403, "forbidden")
    answer = member.post("/releases/rollback", project_id=newsroom.project.pk)
    assert_refused(answer, 403, "forbidden")
    assert len(member.get("/adapters", project_id=newsroom.project.pk).json()) == 1


def test_a_stranger_finds_nothing(newsroom: Newsroom) -> None:
    adapter, project = an_adapter(newsroom), newsroom.project

    assert_refused(newsroom.mallory.post(f"/adapters/{adapter.pk}/promote"), 404, "not_found")
    assert_refused(newsroom.mallory.get("/adapters", project_id=project.pk), 404, "not_found")
    assert_refused(newsroom.mallory.get("/releases", project_id=project.pk), 404, "not_found")
    assert_refused(newsroom.mallory.post("/releases/rollback", project_id=project.pk), 404, "not_found")
