"""The trail: a row for each act, sealed, append-only, and tampering is found."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import DatabaseError, connection, transaction

from apps.audit.models import AuditEvent
from apps.audit.services import first_broken_event
from apps.tuning import services as tuning
from tests.support.cast import Newsroom
from tests.support.factories import (
    a_brief,
    a_claimed_job,
    a_claimed_run,
    a_draft,
    a_review,
    an_adapter,
    approvals,
)


def test_each_act_writes_one_row_with_who_and_where(newsroom: Newsroom) -> None:
    before = AuditEvent.objects.latest("id").pk
    project, eli, ada, rosa = newsroom.project, newsroom.eli, newsroom.ada, newsroom.rosa

    ada.post(f"{newsroom.address}/members", username="mallory", role="editor")
    ada.delete(f"{newsroom.address}/members/{newsroom.mallory.user.pk}")
    eli.patch(f"/presets/{newsroom.preset.pk}", temperature=0.1)
    brief = a_brief(newsroom)
    eli.put(f"/briefs/{brief.pk}", subject="Other", preset_id=newsroom.preset.pk)
    eli.post(f"/drafts/{a_claimed_job(newsroom, brief=brief).draft_id}/cancel")
    draft = a_draft(newsroom, brief=brief)
    review = eli.post(f"/drafts/{draft.pk}/submit").json()
    rosa.post(f"/reviews/{review['id']}/comments", text="Nice.")
    seen = {"content_sha256": review["content_sha256"]}
    rosa.post(f"/reviews/{review['id']}/decision", decision="approve", **seen)
    adapter = an_adapter(newsroom)
    ada.post(f"/adapters/{adapter.pk}/promote")
    ada.post("/releases/rollback", project_id=project.pk)
    run = a_claimed_run(newsroom)
    ada.post(f"/training/runs/{run.pk}/stop")
    tuning.leave_run(run=run)
    ada.post(f"/training/runs/{run.pk}/resume")

    events = AuditEvent.objects.filter(pk__gt=before)
    assert Counter(events.values_list("action", flat=True)) == Counter(
        ["member.set", "member.removed", "preset.changed", "brief.created", "brief.updated"]
        + ["drafts.requested"] * 2
        + ["draft.stopped", "draft.submitted", "review.commented", "review.approve"]
        + ["release.promoted", "release.rolled_back", "run.stopped", "run.resumed"]
    )
    assert set(events.values_list("project_id", flat=True)) == {project.pk}
    decided = events.get(action="review.approve")
    assert (decided.actor_id, decided.object_type, decided.object_id) == (
        rosa.user.pk, "review", str(review["id"])
    )  # fmt: skip
    assert decided.data["content_sha256"] == review["content_sha256"]


def test_a_refused_act_leaves_no_row(newsroom: Newsroom) -> None:
    before = AuditEvent.objects.count()

    newsroom.eli.post(f"{newsroom.address}/members", username="mallory", role="admin")
    newsroom.eli.post(f"{newsroom.address}/briefs", subject="", preset_id=newsroom.preset.pk)
    newsroom.ada.post("/training/runs", project_id=newsroom.project.pk)
    newsroom.ada.post("/releases/rollback", project_id=newsroom.project.pk)

    assert AuditEvent.objects.count() == before


def test_the_chain_holds(newsroom: Newsroom) -> None:
    a_review(newsroom)
    approvals(newsroom, 1)

    assert AuditEvent.objects.count() > 10
    assert first_broken_event() is None


def test_a_row_can_be_neither_changed_nor_deleted(newsroom: Newsroom) -> None:
    for act in (
        lambda: AuditEvent.objects.update(action="nothing.happened"),
        lambda: AuditEvent.objects.all().delete(),
    ):
        with pytest.raises(DatabaseError, match="Cannot update or delete"), transaction.atomic():
            act()


@contextmanager
def without_triggers() -> Iterator[None]:
    """What somebody with the rights of the database's owner could do."""
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        yield
        cursor.execute("SET LOCAL session_replication_role = origin")


@pytest.mark.parametrize(
    "change",
    [
        "action = 'member.removed'",
        "actor_id = NULL",
        "project_id = project_id + 1",
        "object_id = '0'",
        'data = \'{"role": "admin"}\'',
        "at = at - interval '1 day'",
        "hash = repeat('0', 64)",
        "previous_hash = ''",
    ],
)
def test_a_row_changed_behind_the_triggers_is_found(newsroom: Newsroom, change: str) -> None:
    victim = AuditEvent.objects.filter(action="member.set").order_by("id")[1]

    with without_triggers(), connection.cursor() as cursor:
        cursor.execute(f"UPDATE audit_auditevent SET {change} WHERE id = %s", [victim.pk])

    assert first_broken_event() == victim


def test_a_row_deleted_behind_the_triggers_is_missed_by_the_next(newsroom: Newsroom) -> None:
    first, second, third = AuditEvent.objects.order_by("id")[:3]

    with without_triggers(), connection.cursor() as cursor:
        cursor.execute("DELETE FROM audit_auditevent WHERE id = %s", [second.pk])

    assert first_broken_event() == third
    assert first.pk < second.pk
