"""GET /healthz: every part by name, 200 only when all are up."""

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings

from apps.common.leases import ClockTimestamp
from apps.drafts.models import Worker
from workers.presence import report

pytestmark = pytest.mark.django_db


def health(client: Client) -> tuple[int, dict[str, Any]]:
    answer = client.get("/healthz")
    return answer.status_code, answer.json()["parts"]


def report_all(**writing: str) -> None:
    report(name="writing@here", role="writing", info=writing or {"model": "tiny"})
    report(name="training@here", role="training", info={})
    report(name="beat", role="beat", info={})


def test_all_parts_are_up(client: Client) -> None:
    report_all()

    status, parts = health(client)

    assert status == 200
    assert {name: part["ok"] for name, part in parts.items()} == dict.fromkeys(
        ["web", "database", "redis", "writing", "training", "beat"], True
    )
    assert parts["writing"]["model"] == "tiny"


def test_a_part_that_was_never_seen_is_down(client: Client) -> None:
    status, parts = health(client)

    assert status == 503
    assert parts["writing"] == {"ok": False, "error": "not seen"}
    assert parts["database"] == {"ok": True}


def test_a_part_that_fell_silent_is_down(client: Client) -> None:
    report_all()
    Worker.objects.filter(role="beat").update(seen_at=ClockTimestamp() - timedelta(seconds=21))

    status, parts = health(client)

    assert (status, parts["beat"]["ok"], parts["training"]["ok"]) == (503, False, True)


def test_a_worker_without_its_model_says_why(client: Client) -> None:
    report_all(error="the model /nowhere.gguf cannot be read")

    status, parts = health(client)

    assert status == 503
    assert parts["writing"] == {"ok": False, "error": "the model /nowhere.gguf cannot be read"}


def test_redis_that_is_away_is_named(client: Client, settings: Settings) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"

    status, parts = health(client)

    assert (status, parts["redis"]) == (503, {"ok": False, "error": "ConnectionError"})
