"""Whether everything that must hold does: N1 to N14, on the live database."""

import json
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand

from galley.invariants import Found, Inputs, as_record, check_all
from galley.invariants.found import DAY_S


class Command(BaseCommand):
    help = "Check the invariants N1 to N14 on the live database; ends with 1 where one is violated."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true")
        parser.add_argument("--idle", action="store_true", help="no job may be active (N2)")
        parser.add_argument(
            "--deadline", type=float, default=DAY_S, metavar="SECONDS", help="for a job to end (N2)"
        )
        parser.add_argument("--journal", type=Path, help="requests that were acknowledged (N1)")
        parser.add_argument("--shown", type=Path, help="texts that were shown (N4)")
        parser.add_argument("--baseline", type=Path, help="what the processes used before (N13)")
        parser.add_argument("--logs", type=Path, nargs="+", default=[], help="to look through (N14)")
        parser.add_argument("--canary", nargs="+", default=[], help="what no log may hold (N14)")

    def handle(self, *_args: Any, **options: Any) -> None:
        inputs = Inputs(
            deadline_s=options["deadline"],
            idle=options["idle"],
            journal=options["journal"],
            shown=options["shown"],
            baseline=options["baseline"],
            logs=options["logs"],
            canaries=options["canary"],
        )
        all_found = check_all(inputs)
        if options["json"]:
            self.stdout.write(json.dumps([as_record(found) for found in all_found], ensure_ascii=False))
        else:
            for found in all_found:
                self.stdout.write("\n".join(_lines(found)))
        if not all(found.holds for found in all_found):
            sys.exit(1)


def _lines(found: Found) -> list[str]:
    verdict = found.not_applicable or ("holds" if found.holds else f"VIOLATED {found.num_violations} times")
    head = f"{found.name:<4} {found.says} ({found.num_rows} looked at): {verdict}"
    return [head, *(f"       {sentence}" for sentence in found.violations)]
