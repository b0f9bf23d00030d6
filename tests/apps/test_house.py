"""Guards of the house rules that no type checker and no linter can see."""

import json
import os
import platform
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "peft", "llama_cpp", "numpy", "inference.backends", "inference.training")


def test_platform_is_still_the_standard_librarys() -> None:
    assert platform.__file__ == f"{sysconfig.get_path('stdlib')}/platform.py"
    assert not list((ROOT / "platform").glob("*.py"))


@pytest.mark.parametrize(
    ("process", "modules"),
    [
        ("web", "galley.asgi"),
        ("celery parent", "galley.celery, django; django.setup(); import workers"),
        ("engine's public surface", "inference"),
    ],
)
def test_nothing_heavy_is_loaded_in(process: str, modules: str) -> None:
    program = f"import json, sys; import {modules}; print(json.dumps(sorted(sys.modules)))"
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "galley.settings"}

    answer = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )

    loaded = json.loads(answer.stdout)
    assert [name for name in loaded if name.startswith(HEAVY)] == []


def test_every_folder_of_tests_is_a_package() -> None:
    """Otherwise `tests/inference` would stand in for the engine."""
    folders = {path.parent for path in (ROOT / "tests").rglob("*.py")}

    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []
