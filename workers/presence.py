"""Signs of life: each worker says every 5 s that it is there, and knows when it has been asked to end."""

import logging
import threading
from collections.abc import Callable
from typing import Any

from celery.signals import worker_ready, worker_shutdown, worker_shutting_down
from celery.worker.consumer import Consumer
from django.conf import settings
from django.db import Error as DatabaseProblem
from django.db import connection

from apps.common.leases import ClockTimestamp
from apps.drafts.models import Worker
from inference import ModelUnavailable
from workers import engine

logger = logging.getLogger(__name__)

REPORT_S = 5.0
_stopping = threading.Event()


@worker_ready.connect
def on_ready(sender: Consumer, **_: Any) -> None:
    """Celery has connected. The first report opens the engine where drafts are written."""
    queues = set(sender.app.amqp.queues.consume_from)
    if "writing" in queues:
        _start_reporting("writing", sender.hostname, _writing_info)
    if "training" in queues:
        _start_reporting("training", sender.hostname, dict)


@worker_shutting_down.connect
def on_shutdown(**_: Any) -> None:
    _stopping.set()


@worker_shutdown.connect
def on_shutdown_complete(sender: Any, **_: Any) -> None:
    """Take the row away: the next start must not look healthy on our last sign of life."""
    Worker.objects.filter(name=sender.hostname).delete()


def is_stopping() -> bool:
    """Whether this worker has been asked to end: work in hand goes back at the next safe point."""
    return _stopping.is_set()


def report(*, name: str, role: str, info: dict[str, Any]) -> None:
    Worker.objects.update_or_create(
        name=name, defaults={"role": role, "seen_at": ClockTimestamp(), "info": info}
    )


def _start_reporting(role: str, name: str, info: Callable[[], dict[str, Any]]) -> None:
    def loop() -> None:
        while True:
            try:
                report(name=name, role=role, info=info())
            except DatabaseProblem as error:
                logger.warning("sign of life not written: %s", error)
            finally:
                connection.close()
            if _stopping.wait(REPORT_S):
                return

    threading.Thread(target=loop, name=f"{role}-report", daemon=True).start()


def _writing_info() -> dict[str, Any]:
    try:
        model = engine.get_engine().model_info
    except ModelUnavailable as error:
        return {"error": str(error)}
    return {
        "model": model.name,
        "context": model.context_length,
        "slots": settings.GALLEY_MAX_SEQUENCES,
    }
