"""Task names and the doorbell. Services know a task's name, never its module."""

import logging

from celery import current_app
from django.db import transaction
from kombu.exceptions import OperationalError

from apps.common.faults import fault_point

logger = logging.getLogger(__name__)

WRITE_DRAFTS = "writing.write_drafts"
TRAIN = "tuning.train"


def ring_on_commit(task: str, *, row_id: int) -> None:
    """Tell a worker to look at the table once this transaction is committed.

    A lost message is harmless: the sweeper rings again.
    """

    def ring() -> None:
        fault_point("before_doorbell")
        try:
            current_app.send_task(task, args=[row_id], retry=False)
        except (OperationalError, OSError) as error:
            logger.warning("doorbell %s %s not rung, the sweeper will: %s", task, row_id, error)

    transaction.on_commit(ring)
