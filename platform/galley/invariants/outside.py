"""What only somebody outside can know: what was promised to clients, shown on screens, logged, kept open."""

import json
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from django.apps import apps
from django.db import connection

from galley.invariants.found import Found, Inputs

PAGE = 1000
LEAK_SHARE = 0.05
LEAK_MARGIN = 2
"""A handful more than before is no leak where there were few."""


def acknowledged_rows_exist(found: Found, inputs: Inputs) -> None:
    """`--journal`: a line of JSON for every 2xx, with `kind` (as `drafts.Draft`) and `id`."""
    if inputs.journal is None:
        found.not_applicable = "needs the journal of a client, --journal"
        return
    for page in _pages(inputs.journal):
        found.looked_at(len(page))
        for kind in sorted({line["kind"] for line in page}):
            ids = {line["id"] for line in page if line["kind"] == kind}
            there = apps.get_model(kind)._default_manager.filter(pk__in=ids).values_list("pk", flat=True)
            for missing in sorted(ids - set(there)):
                found.wrong(f"{kind} {missing} was acknowledged and is not there")


def shown_is_stored(found: Found, inputs: Inputs) -> None:
    """`--shown`: a line of JSON for every text on a screen, with `draft`, `attempt` and `text`."""
    if inputs.shown is None:
        found.not_applicable = "needs what browsers have shown, --shown"
        return
    for page in _pages(inputs.shown):
        found.looked_at(len(page))
        found.wrong_where(
            """
            SELECT concat_ws(' ', 'draft', shown.draft, 'attempt', shown.attempt, 'showed',
                             length(shown.text), 'characters that are not the first of its text')
            FROM unnest(%s::bigint[], %s::integer[], %s::text[]) AS shown (draft, attempt, text)
            LEFT JOIN LATERAL (
                SELECT string_agg(c.text, '' ORDER BY c.seq) AS text FROM drafts_chunk c
                WHERE c.draft_id = shown.draft AND c.attempt = shown.attempt
            ) AS stored ON true
            WHERE NOT starts_with(coalesce(stored.text, ''), shown.text)
            """,
            *([line[name] for line in page] for name in ("draft", "attempt", "text")),
        )


def side_effects_are_stable(found: Found, _inputs: Inputs) -> None:
    found.not_applicable = "Galley sends neither webhooks nor e-mail"


def nothing_leaks(found: Found, inputs: Inputs) -> None:
    """`--baseline`: what `usage` returned of each process at the start, with its present `pid`."""
    if inputs.baseline is None:
        found.not_applicable = "needs what the processes used before, --baseline"
        return
    baseline = json.loads(inputs.baseline.read_text(encoding="utf-8"))
    for process in baseline["processes"]:
        found.looked_at(1)
        for what, present in usage(process["pid"]).items():
            _compare(found, f"{process['name']}: {what}", process[what], present)
    _compare(found, "PostgreSQL sessions", baseline["num_sessions"], num_sessions())


def _compare(found: Found, what: str, before: int, present: int) -> None:
    if present > before + max(LEAK_MARGIN, LEAK_SHARE * before):
        found.wrong(f"{what} went from {before} to {present}")


def usage(pid: int) -> dict[str, int]:
    """Open files (sockets among them) and children of a process, as Linux counts them."""
    folder = Path(f"/proc/{pid}")
    children = [path.read_text().split() for path in folder.glob("task/*/children")]
    return {"num_files": len(os.listdir(folder / "fd")), "num_children": sum(map(len, children))}


def num_sessions() -> int:
    """Of this database, this one left out."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        (num,) = cursor.fetchone()
    return int(num)


def logs_keep_secrets(found: Found, inputs: Inputs) -> None:
    """`--logs` and `--canary`: words that were planted where secrets are, so that they are in no log."""
    if not (inputs.logs and inputs.canaries):
        found.not_applicable = "needs logs and the planted secrets, --logs and --canary"
        return
    for path in inputs.logs:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, start=1):
                found.looked_at(1)
                if any(canary in line for canary in inputs.canaries):
                    found.wrong(f"{path} line {number} holds a planted secret")


def _pages(path: Path) -> Iterator[Sequence[dict[str, Any]]]:
    with path.open(encoding="utf-8") as lines:
        rows = (json.loads(line) for line in lines if line.strip())
        while page := list(islice(rows, PAGE)):
            yield page
