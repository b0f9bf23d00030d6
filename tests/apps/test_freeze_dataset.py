"""A run's samples, frozen: the same decisions give the same bytes, and a brief stays on its side."""

import json
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, transaction

from apps.common.leases import JobState
from apps.projects.models import Brief
from apps.tuning import artifacts, services
from apps.tuning.models import Artifact, Dataset, Run, Sample, Split
from apps.tuning.selectors import MAX_CHARS, usable_samples
from tests.support.cast import Newsroom
from tests.support.factories import TEXT, a_brief, a_claimed_run, a_review, an_approval, approvals

pytestmark = pytest.mark.usefixtures("home")


def frozen(room: Newsroom) -> tuple[Run, Dataset]:
    """What a fresh run freezes; the run is over afterwards."""
    run = a_claimed_run(room)
    dataset = services.freeze_dataset(run=run)
    services.end_run(run=run, state=JobState.DONE)
    return run, dataset


def records(home: Path, artifact: Artifact) -> list[dict[str, Any]]:
    lines = artifacts.fetch(artifact.sha256, home / artifact.sha256).read_text(encoding="utf-8")
    return [json.loads(line) for line in lines.splitlines()]


def test_it_works(newsroom: Newsroom, home: Path) -> None:
    decisions = approvals(newsroom, 4)

    run, dataset = frozen(newsroom)

    assert (dataset.num_train, dataset.num_heldout) == (3, 1)
    assert Run.objects.get(pk=run.pk).dataset == dataset
    first = records(home, dataset.train_file)[0]
    draft = decisions[0].review.draft
    assert first == {
        "id": str(decisions[0].pk),
        "messages": draft.messages,
        "completion": decisions[0].text,
        "must_say": [],
        "weight": 1.0,
    }
    held_back = records(home, dataset.heldout_file)
    assert [record["id"] for record in held_back] == [str(decisions[2].pk)]


def test_the_same_decisions_give_the_same_dataset(newsroom: Newsroom) -> None:
    approvals(newsroom, 4)

    _run, first = frozen(newsroom)
    _run, second = frozen(newsroom)

    assert first == second
    assert Dataset.objects.count() == 1


def test_a_new_decision_gives_a_new_dataset_and_leaves_the_old_one(newsroom: Newsroom) -> None:
    approvals(newsroom, 4)
    run, first = frozen(newsroom)
    an_approval(newsroom, text=TEXT + " And more.")

    _run, second = frozen(newsroom)

    assert (first.num_train + first.num_heldout, second.num_train + second.num_heldout) == (4, 5)
    assert Run.objects.get(pk=run.pk).dataset == first


def test_a_run_that_is_taken_up_again_keeps_its_dataset(newsroom: Newsroom) -> None:
    approvals(newsroom, 4)
    run = a_claimed_run(newsroom)
    first = services.freeze_dataset(run=run)
    an_approval(newsroom, text=TEXT + " And more.")

    assert services.freeze_dataset(run=run) == first


def test_every_text_of_a_brief_is_on_one_side_for_ever(newsroom: Newsroom) -> None:
    briefs = [a_brief(newsroom, subject=f"Subject {number}") for number in range(8)]
    _approve(newsroom, briefs, "first")
    frozen(newsroom)
    sides = dict(Sample.objects.values_list("brief_id", "split"))
    assert sorted(sides.values()) == ["heldout"] * 2 + ["train"] * 6

    _approve(newsroom, reversed(briefs), "second")
    _run, dataset = frozen(newsroom)

    assert (dataset.num_train, dataset.num_heldout) == (12, 4)
    assert {(brief, split) for brief, split in Sample.objects.values_list("brief_id", "split")} == set(
        sides.items()
    )
    with pytest.raises(DatabaseError, match="Cannot update"), transaction.atomic():
        Sample.objects.update(split=Split.TRAIN)


def _approve(room: Newsroom, briefs: Any, which: str) -> None:
    for brief in briefs:
        assert isinstance(brief, Brief)
        an_approval(room, brief=brief, text=f"{TEXT} The {which} text about {brief.subject}.")


def test_texts_that_teach_nothing_are_left_out_and_counted(newsroom: Newsroom) -> None:
    kept = an_approval(newsroom)
    an_approval(newsroom, text=TEXT)
    an_approval(newsroom, text="Too short.")
    an_approval(newsroom, text="long " * (MAX_CHARS // 5 + 1))
    a_review(newsroom, text=TEXT + " Not decided yet.")

    usable = usable_samples(newsroom.project)

    assert usable.decisions == [kept]
    assert [(row.reason, len(row.decisions)) for row in usable.exclusions] == [
        ("too_short", 1),
        ("too_long", 1),
        ("duplicate", 1),
    ]
    assert (usable.is_enough, usable.num_missing) == (False, 3)


def test_nothing_of_another_project_is_learned(newsroom: Newsroom) -> None:
    approvals(newsroom, 3)

    assert usable_samples(newsroom.foreign_project).decisions == []
