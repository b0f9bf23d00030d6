"""`python -m bench [NAME ...] [--json]`: measure, print, keep; ends non-zero when a bar is missed."""

import argparse
import json
import sys
from dataclasses import asdict
from importlib import import_module

from bench import form

NAMES = ("batch", "start", "loop", "faults", "engine", "model", "distill", "exporter", "stream", "claims")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)}; all by default")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    missed = 0
    for name in options.names or NAMES:
        rows = import_module(f"bench.{name}").measure()
        path = form.keep(name, rows)
        missed += sum(not row.holds for row in rows)
        print(
            json.dumps([asdict(row) for row in rows])
            if options.json
            else f"{name}\n{form.table(rows)}\n{path.name} kept\n"
        )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
