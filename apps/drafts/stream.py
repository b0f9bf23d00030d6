"""The stream of a draft: chunks committed first, then a hint; readers pull from their own cursor."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from asgiref.sync import async_to_sync
from channels.db import database_sync_to_async
from channels.layers import get_channel_layer
from django.db import transaction
from django.db.models import F
from redis.exceptions import RedisError

from apps.common.leases import LEASE, ClockTimestamp, require_held
from apps.drafts.models import LIVE_STATES, Chunk, Draft, Job

logger = logging.getLogger(__name__)

POLL_S = 1.0
"""A reader looks this often even without a hint, so a lost hint costs a second and nothing else."""
PING_S = 10.0
PAGE = 200

Message = dict[str, Any]


@transaction.atomic
def append(*, job: Job, text: str, token_ids: Sequence[int]) -> None:
    """Commit one chunk, the progress and the heartbeat together.

    Raises LeaseLost when the fence is no longer ours; then nothing is written.
    """
    require_held(job, lease_until=ClockTimestamp() + LEASE)
    draft = Draft.objects.filter(pk=job.draft_id)
    draft.update(last_seq=F("last_seq") + 1, num_tokens=F("num_tokens") + len(token_ids))
    draft.filter(first_token_at__isnull=True).update(first_token_at=ClockTimestamp())
    attempt, seq = draft.values_list("attempt", "last_seq").get()
    Chunk.objects.create(
        draft_id=job.draft_id, attempt=attempt, seq=seq, text=text, token_ids=list(token_ids)
    )
    hint_on_commit(job.draft_id)


def group_name(draft_id: int) -> str:
    return f"draft.{draft_id}"


def hint_on_commit(draft_id: int) -> None:
    """Wake the readers of a draft. Losing the hint is harmless: they also poll."""

    def hint() -> None:
        try:
            async_to_sync(get_channel_layer().group_send)(
                group_name(draft_id), {"type": "draft.changed", "d": draft_id}
            )
        except (RedisError, OSError) as error:
            logger.warning("hint for draft %s not sent: %s", draft_id, error)

    transaction.on_commit(hint)


async def follow(draft_id: int, *, after: int, wake: asyncio.Event) -> AsyncIterator[Message]:
    """Messages from `after` to the end of the draft: chunks in order, states as they change, pings.

    `wake` is set by whoever receives the hints. The last message is a terminal state.
    """
    cursor, attempt, shown_state = after, 0, None
    quiet_s = 0.0
    while True:
        wake.clear()
        snapshot, chunks = await _read(draft_id, cursor)
        if not attempt:  # a cursor beyond the end would swallow the chunks up to it
            cursor = min(cursor, snapshot["last_seq"])
        if attempt and snapshot["attempt"] != attempt:
            cursor = 0
            yield {"type": "reset", "attempt": snapshot["attempt"]}
            attempt = snapshot["attempt"]
            continue
        attempt = snapshot["attempt"]
        for chunk in chunks:
            cursor = chunk["seq"]
            yield {"type": "chunk", "attempt": attempt, **chunk}
        if chunks:
            quiet_s = 0.0
        if len(chunks) == PAGE:
            continue
        if snapshot != shown_state and cursor >= snapshot["last_seq"]:
            shown_state = snapshot
            yield {"type": "state", **snapshot}
            if snapshot["state"] not in LIVE_STATES:
                return
        if quiet_s >= PING_S:
            quiet_s = 0.0
            yield {"type": "ping"}
        try:
            await asyncio.wait_for(wake.wait(), POLL_S)
        except TimeoutError:
            quiet_s += POLL_S


@database_sync_to_async
def _read(draft_id: int, cursor: int) -> tuple[Message, list[Message]]:
    """The draft as it stands and its chunks after the cursor, in this order: never ahead of the chunks."""
    draft = Draft.objects.select_related("job").get(pk=draft_id)
    chunks = Chunk.objects.filter(
        draft_id=draft_id, attempt=draft.attempt, seq__gt=cursor, seq__lte=draft.last_seq
    )
    rows = chunks.order_by("seq").values_list("seq", "text")[:PAGE]
    return snapshot(draft), [{"seq": seq, "text": text} for seq, text in rows]


def snapshot(draft: Draft) -> Message:
    """What a reader must know of a draft besides its text."""
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
        "position": queue_position(draft),
        "tokens_per_second": tokens_per_second(draft),
    }


def queue_position(draft: Draft) -> int | None:
    """How many waiting jobs stand before this one, plus one; None once it is being written."""
    if draft.state != "queued":
        return None
    return Job.objects.filter(state="queued", pk__lte=draft.job.pk).count()


def tokens_per_second(draft: Draft) -> float | None:
    if not (draft.started_at and draft.finished_at and draft.num_tokens):
        return None
    seconds = (draft.finished_at - draft.started_at).total_seconds()
    return round(draft.num_tokens / seconds, 1) if seconds > 0 else None


@asynccontextmanager
async def hints(draft_id: int) -> AsyncIterator[asyncio.Event]:
    """An event that is set whenever the draft changes, for readers that are not Channels consumers."""
    layer = get_channel_layer()
    channel = await layer.new_channel()
    await layer.group_add(group_name(draft_id), channel)
    wake = asyncio.Event()

    async def listen() -> None:
        while True:
            await layer.receive(channel)
            wake.set()

    listener = asyncio.create_task(listen())
    try:
        yield wake
    finally:
        listener.cancel()
        await layer.group_discard(group_name(draft_id), channel)
