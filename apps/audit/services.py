"""Writing and verifying the trail."""

import hashlib
import json
from datetime import UTC
from typing import Any

from django.contrib.auth.models import AbstractBaseUser
from django.db import connection, models, transaction

from apps.audit.models import AuditEvent

_CHAIN_LOCK = 4_743_001  # one writer of the chain at a time, whichever process it is in


def record(
    *, actor: AbstractBaseUser | None, action: str, obj: models.Model, project_id: int | None, **data: Any
) -> AuditEvent:
    """One row for one act, in the transaction of the act: if the row cannot be written, the act fails."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_CHAIN_LOCK])
            cursor.execute("SELECT clock_timestamp()")
            (now,) = cursor.fetchone()
        last = AuditEvent.objects.order_by("-id").values_list("hash", flat=True).first()
        event = AuditEvent(
            at=now,
            actor_id=actor.pk if actor else None,
            action=action,
            object_type=obj._meta.model_name or "",
            object_id=str(obj.pk),
            project_id=project_id,
            data=data,
            previous_hash=last or "",
        )
        event.hash = chain_hash(event)
        event.save()
        return event


def chain_hash(event: AuditEvent) -> str:
    """SHA-256 over the previous hash and the row's own facts in canonical JSON."""
    facts = [
        event.previous_hash,
        event.at.astimezone(UTC).isoformat(),
        event.actor_id,
        event.action,
        event.object_type,
        event.object_id,
        event.project_id,
        event.data,
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def first_broken_event() -> AuditEvent | None:
    """The first row whose hash or link does not hold, or None for a sound chain."""
    previous = ""
    for event in AuditEvent.objects.order_by("id").iterator():
        if event.previous_hash != previous or event.hash != chain_hash(event):
            return event
        previous = event.hash
    return None
