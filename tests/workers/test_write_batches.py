"""A batch from its file to its last text, through the worker and a real engine process."""

import json

from asgiref.sync import async_to_sync
from pytest_django import Settings

from apps.batches import services
from apps.batches.feeding import FEED
from apps.batches.files import read_table
from apps.batches.models import Batch, BatchState, RowState
from apps.batches.progress import progress_of
from apps.batches.results import jsonl_response
from apps.batches.selectors import counts
from apps.batches.services import BatchInput
from apps.drafts.models import Draft, DraftState
from tests.support.cast import Newsroom
from tests.workers.conftest import OpenEngine
from workers import sweeper
from workers.generation import write_next

NUM_ROWS = 30
FILE = "title;facts\r\n" + "".join(f"Ferry {n};from {n} May\r\n" for n in range(1, NUM_ROWS + 1))


def a_started_batch(room: Newsroom) -> Batch:
    batch = services.create_batch(
        user=room.eli.user,
        project_id=room.project.pk,
        table=read_table(FILE.encode("utf-8-sig")),
        batch=BatchInput(name="Ferries", preset_id=room.preset.pk, seed=1),
    )
    return services.start_batch(user=room.eli.user, batch_id=batch.pk)


def write_all() -> int:
    """As many jobs as there are, one after the other, with no help from the sweeper."""
    num = 0
    while write_next() is not None:
        num += 1
    return num


def test_a_batch_is_written_to_its_end(newsroom: Newsroom, open_engine: OpenEngine) -> None:
    open_engine(num_tokens=8)
    batch = a_started_batch(newsroom)

    assert write_all() == NUM_ROWS

    progress = progress_of(batch, counts(batch))
    assert (progress.state, progress.counts[RowState.READY]) == ("done", NUM_ROWS)
    drafts = {row.number: row.drafts[0] for row in batch.rows.all()}
    assert [draft.seed for draft in drafts.values()] == [*range(1, NUM_ROWS + 1)]
    assert all(draft.text and draft.state == DraftState.READY for draft in drafts.values())
    assert drafts[7].brief.must_say == ["from 7 May"]
    assert _texts(batch) == [draft.text for draft in drafts.values()]


@async_to_sync
async def _texts(batch: Batch) -> list[str]:
    body = b"".join([part async for part in jsonl_response(batch)])
    return [json.loads(line)["text"] for line in body.splitlines()]


def test_a_pause_in_the_middle(newsroom: Newsroom, open_engine: OpenEngine) -> None:
    open_engine(num_tokens=8)
    batch = a_started_batch(newsroom)
    write_next()
    services.pause_batch(user=newsroom.eli.user, batch_id=batch.pk)

    assert write_all() == FEED
    sweeper.sweep()
    assert write_all() == 0
    assert counts(batch)[RowState.WAITING] == NUM_ROWS - FEED - 1

    services.resume_batch(user=newsroom.eli.user, batch_id=batch.pk)
    assert write_all() == NUM_ROWS - FEED - 1
    assert counts(batch)[RowState.READY] == NUM_ROWS


def test_rows_that_no_model_could_write_are_written_at_the_second_try(
    newsroom: Newsroom, open_engine: OpenEngine, settings: Settings
) -> None:
    settings.GALLEY_MODEL = "/nowhere.gguf"
    batch = a_started_batch(newsroom)
    while write_next() is not None:
        batch.rows.filter(number__gt=2, state=RowState.WAITING).update(state=RowState.CANCELLED)
    failed = counts(batch)[RowState.FAILED]
    assert failed and not counts(batch)[RowState.READY]

    open_engine(num_tokens=8)
    services.retry_failed(user=newsroom.eli.user, batch_id=batch.pk)
    write_all()

    assert counts(batch)[RowState.READY] == failed
    assert Draft.objects.count() == 2 * failed
    batch.refresh_from_db()
    assert batch.state == BatchState.OPEN
