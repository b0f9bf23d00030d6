"""The stream of a draft: chunks are committed first, then a hint goes out to those who follow it."""

import asyncio
import logging
import os
import threading
from collections.abc import Sequence
from functools import cache
from queue import SimpleQueue
from typing import Any

from channels.layers import get_channel_layer
from django.db import connection, transaction
from redis.exceptions import RedisError

from apps.common.faults import fault_point
from apps.common.leases import LEASE, LeaseLost
from apps.drafts.models import Draft, Job
from apps.drafts.selectors import expected_wait_s, queue_position, tokens_per_second

logger = logging.getLogger(__name__)

HINT_TIMEOUT_S = 2.0

Message = dict[str, Any]


# One statement, and so one round trip: this is what a worker does twenty times a second for every draft.
_APPEND = """
    WITH held AS (
        UPDATE drafts_job SET lease_until = clock_timestamp() + %s
        WHERE id = %s AND fence = %s AND state = 'running'
        RETURNING draft_id
    ), grown AS (
        UPDATE drafts_draft
        SET last_seq = last_seq + 1, num_tokens = num_tokens + %s,
            first_token_at = coalesce(first_token_at, clock_timestamp())
        FROM held WHERE drafts_draft.id = held.draft_id
        RETURNING drafts_draft.id, attempt, last_seq
    )
    INSERT INTO drafts_chunk (draft_id, attempt, seq, text, token_ids)
    SELECT id, attempt, last_seq, %s, %s::bigint[] FROM grown
"""


def append(*, job: Job, text: str, token_ids: Sequence[int]) -> None:
    """Commit one chunk, the progress and the heartbeat together.

    Raises LeaseLost when the fence is no longer ours; then nothing is written.
    """
    fault_point("before_chunk_commit")
    values: list[Any] = [LEASE, job.pk, job.fence, len(token_ids), text, list(token_ids)]
    with connection.cursor() as cursor:
        cursor.execute(_APPEND, values)
        if not cursor.rowcount:
            raise LeaseLost(job)
    hint_on_commit(job.draft_id)


def group_name(draft_id: int) -> str:
    return f"draft.{draft_id}"


def hint_on_commit(draft_id: int) -> None:
    """Wake the readers of a draft. Losing the hint is harmless: they also poll."""

    def hint() -> None:
        fault_point("before_hint")
        _bell().ring(draft_id)

    transaction.on_commit(hint)


class _Bell(threading.Thread):
    """Sends the hints of this process over one connection, and delays no writer when Redis hangs."""

    def __init__(self) -> None:
        super().__init__(name="hints", daemon=True)
        self._ids: SimpleQueue[int] = SimpleQueue()
        self._is_heard = True

    def ring(self, draft_id: int) -> None:
        self._ids.put(draft_id)

    def run(self) -> None:
        with asyncio.Runner() as runner:
            while True:
                draft_ids = {self._ids.get()}
                while not self._ids.empty():
                    draft_ids.add(self._ids.get())
                runner.run(self._send(draft_ids))

    async def _send(self, draft_ids: set[int]) -> None:
        layer = get_channel_layer()
        try:
            async with asyncio.timeout(HINT_TIMEOUT_S):
                for draft_id in draft_ids:
                    await layer.group_send(group_name(draft_id), {"type": "draft.changed", "d": draft_id})
        except (RedisError, OSError) as error:
            if self._is_heard:  # said once: an outage has twenty hints a second
                logger.warning("no hints until Redis is back: %s", error or "Redis is silent")
            self._is_heard = False
        else:
            self._is_heard = True


@cache
def _bell() -> _Bell:
    bell = _Bell()
    bell.start()
    return bell


os.register_at_fork(after_in_child=_bell.cache_clear)  # threads do not survive a fork


def snapshot(draft: Draft) -> Message:
    """What a reader must know of a draft besides its text."""
    position = queue_position(draft)
    return {
        "state": draft.state,
        "state_label": str(draft.get_state_display()),
        "reason": draft.job.reason,
        "attempt": draft.attempt,
        "last_seq": draft.last_seq,
        "num_tokens": draft.num_tokens,
        "finish_reason": draft.finish_reason,
        "content_sha256": draft.content_sha256,
        "revision": draft.revision,
        "position": position,
        "expected_wait_s": expected_wait_s(position),
        "tokens_per_second": tokens_per_second(draft),
    }
