"""Addresses and the store, as the environment names them, in a process of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """
import json
from django.conf import settings
[hints] = settings.CHANNEL_LAYERS["default"]["CONFIG"]["hosts"]
store = settings.STORAGES["artifacts"]["OPTIONS"]["location"]
print(json.dumps([hints["address"], settings.CELERY_BROKER_URL, store]))
"""


def read_with(**environment: str) -> Any:
    wanted = {**os.environ, "DJANGO_SETTINGS_MODULE": "galley.settings", **environment}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=wanted, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("configured", "hints", "messages"),
    [
        (
            "redis://:secret@192.0.2.10:6380/0",
            "redis://:secret@192.0.2.10:6380/0",
            "redis://:secret@192.0.2.10:6380/1",
        ),
        ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/1"),
        ("unix:///run/r.sock?db=0", "unix:///run/r.sock?db=0", "redis+socket:///run/r.sock?virtual_host=1"),
    ],
)
def test_hints_and_messages_have_a_numbered_database_each(configured: str, hints: str, messages: str) -> None:
    assert read_with(REDIS_URL=configured)[:2] == [hints, messages]


def test_the_store_may_be_shared_and_is_below_the_home_otherwise(tmp_path: Path) -> None:
    home, shared = tmp_path / "home", tmp_path / "shared"
    assert read_with(GALLEY_HOME=str(home))[2] == str(home / "store")
    assert read_with(GALLEY_HOME=str(home), GALLEY_STORE=str(shared))[2] == str(shared)
