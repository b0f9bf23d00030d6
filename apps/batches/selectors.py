"""What the pages and the API ask about batches."""

from collections import Counter
from collections.abc import Iterable

from django.db.models import Count, QuerySet

from apps.batches.models import Batch, BatchRow
from apps.projects.models import Project

Counts = Counter[str]
"""Rows by state; a state without rows counts 0."""


def batches_of(project: Project) -> QuerySet[Batch]:
    return project.batches.select_related("owner", "preset")


def counts_of(batches: Iterable[Batch]) -> dict[int, Counts]:
    """By the batch's id, in one query."""
    counts: dict[int, Counts] = {batch.pk: Counter() for batch in batches}
    rows = BatchRow.objects.filter(batch__in=list(counts)).order_by().values_list("batch", "state")
    for batch_id, state, num in rows.annotate(num=Count("pk")):
        counts[batch_id][state] = num
    return counts


def counts(batch: Batch) -> Counts:
    return counts_of([batch])[batch.pk]


def rows_of(batch: Batch, *, state: str = "") -> QuerySet[BatchRow]:
    """In the order of the file; with `state`, only the rows in it."""
    return batch.rows.filter(state=state) if state else batch.rows.all()


def with_drafts(rows: QuerySet[BatchRow]) -> QuerySet[BatchRow]:
    return rows.select_related("brief").prefetch_related(
        "request__drafts__job", "request__drafts__release__adapter"
    )
