"""Drafts over JSON and server-sent events."""

from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from datetime import datetime
from random import randint

from django.http import StreamingHttpResponse
from django.utils.translation import gettext as _
from ninja import Router, Schema, Status

from apps.accounts.http import SignedInRequest
from apps.common.api import PROBLEMS
from apps.common.errors import Invalid
from apps.drafts import selectors, services
from apps.drafts.models import Draft
from apps.drafts.readers import Reader, reader_of
from apps.drafts.tailing import Cursor, NotWelcome, StreamBroken, follow
from apps.projects.policies import Act
from apps.projects.services import brief_for

router = Router()


class WriteIn(Schema):
    candidates: int = 1
    seed: int | None = None
    client_request_id: str = ""


class QueuedDraft(Schema):
    id: int
    candidate: int
    seed: int
    stream: str
    events: str


class WriteOut(Schema):
    request_id: int
    drafts: list[QueuedDraft]


class EditIn(Schema):
    text: str
    revision: int


class DraftOut(Schema):
    id: int
    brief_id: int
    candidate: int
    state: str
    reason: str
    text: str
    generated_text: str
    revision: int
    content_sha256: str
    attempt: int
    last_seq: int
    num_tokens: int
    seed: int
    temperature: float
    preset_version: int
    release: int | None
    adapter_sha256: str
    model_name: str
    model_sha256: str
    finish_reason: str
    position: int | None
    expected_wait_s: int | None
    tokens_per_second: float | None
    created_at: datetime
    started_at: datetime | None
    first_token_at: datetime | None
    finished_at: datetime | None

    @staticmethod
    def resolve_reason(draft: Draft) -> str:
        return draft.job.reason

    @staticmethod
    def resolve_preset_version(draft: Draft) -> int:
        return draft.preset_version.number

    @staticmethod
    def resolve_release(draft: Draft) -> int | None:
        return draft.release.number if draft.release else None

    @staticmethod
    def resolve_position(draft: Draft) -> int | None:
        return selectors.queue_position(draft)

    @staticmethod
    def resolve_expected_wait_s(draft: Draft) -> int | None:
        return selectors.expected_wait_s(selectors.queue_position(draft))

    @staticmethod
    def resolve_tokens_per_second(draft: Draft) -> float | None:
        return selectors.tokens_per_second(draft)


@router.post("/briefs/{int:brief_id}/drafts", response={202: WriteOut, **PROBLEMS})
def request_drafts(request: SignedInRequest, brief_id: int, body: WriteIn) -> Status[dict[str, object]]:
    """Queue drafts; the same `client_request_id` gives the same drafts again."""
    queued = services.request_drafts(user=request.user, brief_id=brief_id, **body.dict())
    drafts = [
        {
            "id": draft.pk,
            "candidate": draft.candidate,
            "seed": draft.seed,
            "stream": draft.stream_path,
            "events": f"/api/v1/drafts/{draft.pk}/events",
        }
        for draft in queued.drafts.order_by("candidate")
    ]
    return Status(202, {"request_id": queued.pk, "drafts": drafts})


@router.get("/briefs/{int:brief_id}/drafts", response={200: list[DraftOut], **PROBLEMS})
def list_drafts(request: SignedInRequest, brief_id: int) -> list[Draft]:
    brief = brief_for(request.user, brief_id)
    return list(brief.drafts.select_related("job", "preset_version", "release"))


@router.get("/drafts/{int:draft_id}", response={200: DraftOut, **PROBLEMS})
def get_draft(request: SignedInRequest, draft_id: int) -> Draft:
    return services.draft_for(request.user, draft_id)


@router.get("/drafts/{int:draft_id}/events", response={200: str, **PROBLEMS})
def draft_events(request: SignedInRequest, draft_id: int, after: str = "0") -> StreamingHttpResponse:
    """Server-sent events after the cursor: `chunk`, `state`, `reset`, `ping`; ends with the draft."""
    services.draft_for(request.user, draft_id, Act.READ)
    cursor = Cursor.parse(request.headers.get("Last-Event-ID") or after)
    if cursor is None:
        raise Invalid("bad_cursor", _("The cursor is the id of an event, or a whole number."), field="after")
    reader = reader_of(
        authorization=request.headers.get("Authorization", ""), session_key=request.session.session_key
    )
    lines = _event_lines(draft_id, reader, cursor)
    response = StreamingHttpResponse(lines, content_type="text/event-stream")
    response["Cache-Control"] = "no-store"
    response["X-Accel-Buffering"] = "no"
    return response


async def _event_lines(draft_id: int, reader: Reader, cursor: Cursor) -> AsyncIterator[str]:
    yield f"retry: {randint(500, 8000)}\n\n"  # full jitter, as in the browser
    with suppress(NotWelcome, StreamBroken):  # the stream ends; the door tells whoever comes back why
        async with aclosing(follow(draft_id, reader=reader, after=cursor)) as events:
            async for event in events:
                head = f"id: {event.cursor}\n" if event.cursor else ""
                yield f"{head}event: {event.type}\ndata: {event.json}\n\n"


@router.post("/drafts/{int:draft_id}/cancel", response={200: DraftOut, **PROBLEMS})
def cancel_draft(request: SignedInRequest, draft_id: int) -> Draft:
    services.cancel_draft(user=request.user, draft_id=draft_id)
    return services.draft_for(request.user, draft_id)


@router.patch("/drafts/{int:draft_id}", response={200: DraftOut, **PROBLEMS})
def edit_draft(request: SignedInRequest, draft_id: int, body: EditIn) -> Draft:
    return services.edit_draft(user=request.user, draft_id=draft_id, **body.dict())
