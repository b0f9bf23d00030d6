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
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Coalesce
from redis.exceptions import RedisError

from apps.common.faults import fault_point
from apps.common.leases import LEASE, ClockTimestamp, require_held
from apps.drafts.models import Chunk, Draft, Job
from apps.drafts.selectors import expected_wait_s, queue_position, tokens_per_second

logger = logging.getLogger(__name__)

HINT_TIMEOUT_S = 2.0

Message = dict[str, Any]


@transaction.atomic
def append(*, job: Job, text: str, token_ids: Sequence[int]) -> None:
    """Commit one chunk, the progress and the heartbeat together.

    Raises LeaseLost when the fence is no longer ours; then nothing is written.
    """
    require_held(job, lease_until=ClockTimestamp() + LEASE)
    draft = Draft.objects.filter(pk=job.draft_id)
    draft.update(
        last_seq=F("last_seq") + 1,
        num_tokens=F("num_tokens") + len(token_ids),
        first_token_at=Coalesce(F("first_token_at"), ClockTimestamp()),
    )
    attempt, seq = draft.values_list("attempt", "last_seq").get()
    Chunk.objects.create(
        draft_id=job.draft_id, attempt=attempt, seq=seq, text=text, token_ids=list(token_ids)
    )
    hint_on_commit(job.draft_id)
    fault_point("before_chunk_commit")


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
