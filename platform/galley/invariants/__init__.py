"""What must hold of a copy of Galley whatever has happened to it: invariants N1 to N14.

Each is a function that looks at the live database, or at what was written down outside of it, and
tells its `Found` what is wrong. Counting is left to PostgreSQL: a copy may hold millions of chunks.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from galley.invariants import files, outside, rows
from galley.invariants.found import Found, Inputs

Check = Callable[[Found, Inputs], None]

INVARIANTS: dict[str, tuple[str, Check]] = {
    "N1": ("every acknowledged request has its row", outside.acknowledged_rows_exist),
    "N2": ("every job ends, and within its deadline", rows.jobs_end),
    "N3": ("chunks are numbered 1 to n, and the draft counts them rightly", rows.chunks_are_numbered),
    "N4": ("what was shown is the beginning of what is stored", outside.shown_is_stored),
    "N5": ("a text is its chunks, and its hash is its own", rows.texts_are_their_chunks),
    "N6": ("one decision a round, on the text that was submitted", rows.decisions_bind_to_texts),
    "N7": ("each act has one row in the audit trail, whose chain is whole", rows.acts_are_audited),
    "N8": ("one nightly run for each project and date", rows.nights_are_single),
    "N9": (
        "registered files are there and whole; what is live has passed its gate",
        files.files_are_whole,
    ),
    "N10": ("no file lies in the store without its row for more than 24 hours", files.no_orphans),
    "N11": ("a repeated webhook or e-mail carries the same event id", outside.side_effects_are_stable),
    "N12": ("a text was written with the adapter that is pinned on it", rows.adapters_are_pinned),
    "N13": ("no process keeps more files, children or sessions than before", outside.nothing_leaks),
    "N14": ("no log holds a secret", outside.logs_keep_secrets),
}


def check_all(inputs: Inputs) -> list[Found]:
    return [check_one(name, inputs) for name in INVARIANTS]


def check_one(name: str, inputs: Inputs) -> Found:
    says, check = INVARIANTS[name]
    found = Found(name, says)
    check(found, inputs)
    return found


def as_record(found: Found) -> dict[str, Any]:
    return asdict(found)


__all__ = ["INVARIANTS", "Found", "Inputs", "as_record", "check_all", "check_one"]
