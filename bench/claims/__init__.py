"""Claims of a long queue: four processes, 10,000 jobs of 50 people, a PostgreSQL that syncs to disk."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from bench.form import Row
from galley import embedded

NUM_JOBS = 10_000
NUM_USERS = 50
NUM_PROCESSES = 4
MIN_CLAIMS_PER_S = 300
MAX_P95_MS = 50
MAX_BEFORE = 2
SETTINGS = {
    "DJANGO_SETTINGS_MODULE": "galley.settings",
    "GALLEY_LOG_LEVEL": "WARNING",
    "GALLEY_MAX_QUEUED": str(2 * NUM_JOBS),
}


def measure() -> list[Row]:
    with (
        tempfile.TemporaryDirectory(prefix="galley-bench-") as folder,
        embedded.running(Path(folder)) as urls,
    ):
        environment = {**os.environ, **urls, "GALLEY_HOME": folder, **SETTINGS}
        _finished(_start(environment, "manage.py", "migrate", "-v", "0"))
        _finished(_door(environment, "fill", NUM_JOBS, NUM_USERS))
        doors = [_door(environment, "claim") for _number in range(NUM_PROCESSES)]
        claims = [json.loads(_finished(door)) for door in doors]
        _finished(_door(environment, "fill", NUM_JOBS - 1, 1))
        looks = json.loads(_finished(_door(environment, "look")))
        num_before = json.loads(_finished(_door(environment, "come_late")))
    return [*_claim_rows(claims), *_look_rows(looks, num_before)]


def _claim_rows(claims: list[dict[str, Any]]) -> list[Row]:
    taken = [pk for each in claims for pk in each["jobs"]]
    rate = len(taken) / (max(each["ended"] for each in claims) - min(each["began"] for each in claims))
    p95 = quantiles([ms for each in claims for ms in each["ms"]], n=20)[-1]
    num_twice = len(taken) - len(set(taken))
    return [
        Row(
            claim=f"claims of {NUM_JOBS} jobs of {NUM_USERS} people by {NUM_PROCESSES} processes",
            figure=rate,
            unit="/s",
            bar=f">= {MIN_CLAIMS_PER_S}",
            holds=rate >= MIN_CLAIMS_PER_S,
        ),
        Row(
            claim="one of these claims, p95",
            figure=p95,
            unit="ms",
            bar=f"<= {MAX_P95_MS}",
            holds=p95 <= MAX_P95_MS,
        ),
        Row(claim="jobs claimed twice", figure=num_twice, unit="", bar="0", holds=num_twice == 0),
        Row(
            claim="jobs never claimed",
            figure=NUM_JOBS - len(set(taken)),
            unit="",
            bar="0",
            holds=len(set(taken)) == NUM_JOBS,
        ),
    ]


def _look_rows(looks: dict[str, list[float]], num_before: int) -> list[Row]:
    return [
        Row(
            claim=f"jobs before the one of whoever comes behind another's {NUM_JOBS - 1}",
            figure=num_before,
            unit="",
            bar=f"<= {MAX_BEFORE}",
            holds=num_before <= MAX_BEFORE,
        ),
        Row(claim="the last place in line, looked up", figure=median(looks["position"]), unit="ms"),
        Row(claim="the wait expected there, looked up", figure=median(looks["wait"]), unit="ms"),
        Row(claim="one more draft asked for behind that queue", figure=median(looks["ask"]), unit="ms"),
    ]


def _door(environment: dict[str, str], act: str, *numbers: int) -> "subprocess.Popen[str]":
    return _start(environment, "-m", "bench.claims.door", act, *map(str, numbers))


def _start(environment: dict[str, str], *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, *arguments], env=environment, stdout=subprocess.PIPE, text=True)


def _finished(process: "subprocess.Popen[str]") -> str:
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, process.args))} ended with status {process.returncode}")  # type: ignore[arg-type]
    return output
