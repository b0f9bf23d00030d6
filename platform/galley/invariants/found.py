"""What a check is given, and what it has found."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.db import connection

MAX_SHOWN = 20
DAY_S = 86_400.0


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """`deadline_s`: a job that is active for longer is stuck; with `idle` none may be active at all.

    The files are written by whoever has watched from outside; a check whose file is missing does not apply.
    """

    deadline_s: float = DAY_S
    idle: bool = False
    journal: Path | None = None
    shown: Path | None = None
    baseline: Path | None = None
    logs: Sequence[Path] = ()
    canaries: Sequence[str] = ()


@dataclass
class Found:
    """`violations` are the first of `num_violations`, a sentence with ids each."""

    name: str
    says: str
    num_rows: int = 0
    num_violations: int = 0
    violations: list[str] = field(default_factory=list)
    not_applicable: str = ""

    @property
    def holds(self) -> bool:
        return not self.num_violations

    def looked_at(self, num_rows: int) -> None:
        self.num_rows += num_rows

    def count(self, table: str) -> None:
        self.looked_at(_all(f"SELECT count(*) FROM {table}")[0][0])

    def wrong(self, sentence: str) -> None:
        self.num_violations += 1
        if len(self.violations) < MAX_SHOWN:
            self.violations.append(sentence)

    def wrong_where(self, statement: str, *values: Any) -> None:
        """Each row of this SELECT is a violation, and its one column the sentence."""
        limited = f"SELECT *, count(*) OVER () FROM ({statement}) AS wrong LIMIT {MAX_SHOWN}"
        found = _all(limited, *values)
        self.num_violations += found[0][1] if found else 0
        self.violations += [sentence for sentence, _count in found[: MAX_SHOWN - len(self.violations)]]


def _all(statement: str, *values: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values or None)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows
