"""GET /healthz: the state of every part, 200 only when all of them are up."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import redis
from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.db import DatabaseError, connection
from django.http import HttpRequest, JsonResponse

from apps.common.leases import ClockTimestamp
from apps.drafts.models import Worker
from apps.drafts.selectors import WORKER_SILENCE_S

PARTS = ("writing", "training", "beat")


@login_not_required
def healthz(request: HttpRequest) -> JsonResponse:
    parts = {"web": {"ok": True}, "database": _tried(_database), "redis": _tried(_redis)}
    parts |= _workers() if parts["database"]["ok"] else {role: {"ok": False} for role in PARTS}
    healthy = all(part["ok"] for part in parts.values())
    return JsonResponse({"ok": healthy, "parts": parts}, status=200 if healthy else 503)


def _tried(probe: Callable[[], None]) -> dict[str, Any]:
    try:
        probe()
    except (DatabaseError, redis.RedisError, OSError) as error:
        return {"ok": False, "error": type(error).__name__}
    return {"ok": True}


def _database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def _redis() -> None:
    with redis.Redis.from_url(settings.REDIS_URL, socket_timeout=2) as client:
        client.ping()


def _workers() -> dict[str, dict[str, Any]]:
    alive = Worker.objects.filter(seen_at__gt=ClockTimestamp() - timedelta(seconds=WORKER_SILENCE_S))
    parts: dict[str, dict[str, Any]] = {role: {"ok": False, "error": "not seen"} for role in PARTS}
    for worker in alive.order_by("seen_at"):
        problem = worker.info.get("error", "")
        parts[worker.role] = {"ok": not problem, **worker.info}
    return parts
