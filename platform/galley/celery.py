"""Celery carries doorbells: each message is one id, and the row in PostgreSQL is the truth.

No result backend, no eta, no retry, no revoke: retry and schedule are columns (house.md, rule 1).
"""

import os
from typing import Any

from celery import Celery
from celery.signals import setup_logging

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "galley.settings")

app = Celery("galley")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.update(
    accept_content=["json"],
    task_serializer="json",
    task_ignore_result=True,
    task_acks_late=False,
    task_create_missing_queues=True,
    task_default_queue="writing",
    task_routes={"tuning.*": {"queue": "training"}},
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    worker_send_task_events=False,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    broker_connection_retry_on_startup=True,
    beat_schedule={
        "sweep": {"task": "sweeper.sweep", "schedule": 5.0, "options": {"expires": 5}},
        "nightly": {"task": "sweeper.nightly", "schedule": 60.0, "options": {"expires": 60}},
    },
    imports=["workers"],
)


@setup_logging.connect
def keep_django_logging(**_: Any) -> None:
    """Workers log as the settings say; a receiver of this signal keeps Celery's own set-up away."""
