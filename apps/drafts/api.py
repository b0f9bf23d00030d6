"""Drafts over JSON and server-sent events."""

import json
from collections.abc import AsyncIterator
from datetime import datetime

from django.http import StreamingHttpResponse
from django.utils.translation import gettext as _
from ninja import Router, Schema, Status

from apps.accounts.http import SignedInRequest
from apps.common.api import PROBLEMS
from apps.common.errors import Invalid
from apps.drafts import services, stream
from apps.drafts.consumers import parse_cursor
from apps.drafts.models import Draft
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
        return stream.queue_position(draft)

    @staticmethod
    def resolve_tokens_per_second(draft: Draft) -> float | None:
        return stream.tokens_per_second(draft)


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
    cursor = parse_cursor(request.headers.get("Last-Event-ID") or after)
    if cursor is None:
        raise Invalid("bad_cursor", _("The cursor is a whole number from 0 on."), field="after")
    response = StreamingHttpResponse(_event_lines(draft_id, cursor), content_type="text/event-stream")
    response["Cache-Control"] = "no-store"
    response["X-Accel-Buffering"] = "no"
    return response


async def _event_lines(draft_id: int, cursor: int) -> AsyncIterator[str]:
    async with stream.hints(draft_id) as wake:
        async for message in stream.follow(draft_id, after=cursor, wake=wake):
            head = f"id: {message['seq']}\n" if message["type"] == "chunk" else ""
            yield f"{head}event: {message['type']}\ndata: {json.dumps(message)}\n\n"


@router.post("/drafts/{int:draft_id}/cancel", response={200: DraftOut, **PROBLEMS})
def cancel_draft(request: SignedInRequest, draft_id: int) -> Draft:
    services.cancel_draft(user=request.user, draft_id=draft_id)
    return services.draft_for(request.user, draft_id)


@router.patch("/drafts/{int:draft_id}", response={200: DraftOut, **PROBLEMS})
def edit_draft(request: SignedInRequest, draft_id: int, body: EditIn) -> Draft:
    return services.edit_draft(user=request.user, draft_id=draft_id, **body.dict())
