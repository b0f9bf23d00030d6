"""The night of a project: at most one run a date, or the reason why there is none."""

from datetime import date
from pathlib import Path

from apps.audit.models import AuditEvent
from apps.common.leases import JobState
from apps.tuning import services
from apps.tuning.models import NightlyRun, Run
from tests.support.cast import Newsroom
from tests.support.factories import TEXT, a_claimed_run, an_approval, approvals

MONDAY, TUESDAY = date(2026, 11, 23), date(2026, 11, 24)


def test_a_night_with_samples_starts_a_run(newsroom: Newsroom) -> None:
    approvals(newsroom, 4)

    night = services.start_nightly_run(project=newsroom.project, local_date=MONDAY)

    assert night is not None
    assert night.run is not None
    assert (night.run.state, night.run.is_nightly, night.skip_reason) == ("queued", True, "")
    assert AuditEvent.objects.filter(action="nightly.started", actor=None).count() == 1


def test_a_date_is_seen_to_once(newsroom: Newsroom) -> None:
    approvals(newsroom, 4)
    services.start_nightly_run(project=newsroom.project, local_date=MONDAY)

    assert services.start_nightly_run(project=newsroom.project, local_date=MONDAY) is None
    assert (Run.objects.count(), NightlyRun.objects.count()) == (1, 1)


def test_a_night_without_samples_says_so(newsroom: Newsroom) -> None:
    night = services.start_nightly_run(project=newsroom.project, local_date=MONDAY)

    assert night is not None
    assert (night.run, night.skip_reason) == (None, "no_samples")
    assert services.start_nightly_run(project=newsroom.project, local_date=MONDAY) is None


def test_a_night_beside_a_run_of_the_day_is_skipped(newsroom: Newsroom) -> None:
    approvals(newsroom, 4)
    a_claimed_run(newsroom)

    night = services.start_nightly_run(project=newsroom.project, local_date=MONDAY)

    assert night is not None
    assert night.skip_reason == "run_active"


def test_a_night_without_a_new_text_is_skipped(newsroom: Newsroom, home: Path) -> None:
    approvals(newsroom, 4)
    run = a_claimed_run(newsroom)
    services.freeze_dataset(run=run)
    services.end_run(run=run, state=JobState.DONE)

    idle = services.start_nightly_run(project=newsroom.project, local_date=MONDAY)
    assert idle is not None
    assert idle.skip_reason == "nothing_new"

    an_approval(newsroom, text=TEXT + " Something new.")
    busy = services.start_nightly_run(project=newsroom.project, local_date=TUESDAY)
    assert busy is not None
    assert busy.skip_reason == ""
