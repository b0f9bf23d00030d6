"""`python -m bench.claims.door ACT ...`: one process of the bench, with Django; says what it saw as JSON."""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import django

django.setup()

from apps.accounts.models import User  # noqa: E402
from apps.drafts import selectors, services  # noqa: E402
from apps.drafts.models import Draft, DraftRequest, Job, Priority  # noqa: E402
from apps.projects.models import Brief  # noqa: E402
from apps.projects.services import BriefInput, create_brief, create_project  # noqa: E402

NUM_LOOKS = 50


def fill(num_jobs: str, num_users: str) -> None:
    """The rows as people's requests leave them, written at one go: each has one job a round."""
    people = [User.objects.create(username=f"p{n}-{time.monotonic_ns()}") for n in range(int(num_users))]
    brief = _brief_of(people[0])
    version = brief.preset.current
    owners = [people[number % len(people)] for number in range(int(num_jobs))]
    requests = DraftRequest.objects.bulk_create(
        DraftRequest(brief=brief, user=user, client_request_id=f"{number}-{user.pk}")
        for number, user in enumerate(owners)
    )
    drafts = Draft.objects.bulk_create(
        Draft(
            brief=brief,
            request=request,
            candidate=0,
            author=request.user,
            preset_version=version,
            seed=1,
            temperature=1.0,
        )
        for request in requests
    )
    first = Job.objects.next_turn(user=people[0], priority=Priority.INTERACTIVE)
    Job.objects.bulk_create(
        Job(draft=draft, user=draft.author, turn=first + number // len(people))
        for number, draft in enumerate(drafts)
    )


def _brief_of(user: User) -> Brief:
    project = create_project(user=user, name=f"The {user.username} Post")
    preset = project.presets.first()
    assert preset is not None
    fields = BriefInput(preset_id=preset.pk, subject="Opening of the library", num_words=60)
    return create_brief(user=user, project_id=project.pk, brief=fields)


def claim() -> dict[str, Any]:
    """Claim until nothing is left; clocks of all processes count from the same moment."""
    jobs, times_ms = [], []
    began = before = time.monotonic()
    while job := Job.objects.claim_next(worker="bench"):
        after = time.monotonic()
        jobs.append(job.pk)
        times_ms.append((after - before) * 1000)
        before = after
    return {"jobs": jobs, "ms": times_ms, "began": began, "ended": before}


def look() -> dict[str, list[float]]:
    """Milliseconds of what a page and a request ask of a long queue."""
    last = Job.objects.order_by("turn", "pk").last()
    user = User.objects.create(username="late")
    brief = _brief_of(user)
    assert last is not None
    return {
        "position": _times_ms(lambda: selectors.position_of(last)),
        "wait": _times_ms(lambda: selectors.expected_wait_s(10_000)),
        "ask": _times_ms(lambda: services.request_drafts(user=user, brief_id=brief.pk, batch=True)),
    }


def _times_ms(act: Callable[[], object]) -> list[float]:
    times_ms = []
    for _ in range(NUM_LOOKS):
        started = time.monotonic()
        act()
        times_ms.append((time.monotonic() - started) * 1000)
    return times_ms


def come_late() -> int:
    """How many jobs are claimed before the one of a person who asks last."""
    user = User.objects.create(username="latest")
    job = services.request_drafts(user=user, brief_id=_brief_of(user).pk).drafts.get().job
    num_before = 0
    while (claimed := Job.objects.claim_next(worker="bench")) != job:
        assert claimed is not None
        num_before += 1
    return num_before


if __name__ == "__main__":
    acts: dict[str, Callable[..., Any]] = {each.__name__: each for each in (fill, look, claim, come_late)}
    print(json.dumps(acts[sys.argv[1]](*sys.argv[2:])))
