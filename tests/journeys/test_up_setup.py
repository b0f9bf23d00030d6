"""What `make` installs: locks that agree and name no registry, and a set-up that needs nothing yet."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)


def lock(name: str) -> str:
    return (ROOT / "requirements" / f"{name}.lock").read_text()


def pins(name: str) -> dict[str, str]:
    return dict(PIN.findall(lock(name)))


def test_the_locks_agree_on_what_they_share() -> None:
    base, dev, ml = pins("base"), pins("dev"), pins("ml")

    assert base.items() <= dev.items()
    for other in (base, dev):
        assert {name: ml[name] for name in other.keys() & ml.keys()} == {
            name: other[name] for name in other.keys() & ml.keys()
        }


def test_the_lock_of_the_engine_leaves_its_accelerator_to_the_wheel_of_torch() -> None:
    assert pins("ml")["torch"] == "2.13.0"
    assert not [name for name in pins("ml") if name.startswith(("nvidia", "cuda", "triton"))]


@pytest.mark.parametrize("name", ["base", "dev", "node"])
def test_hashed_locks_have_a_hash_for_every_pin(name: str) -> None:
    blocks = re.split(r"\n(?=\S)", lock(name).strip())

    assert len(blocks) == len(pins(name)) > 0
    assert all("--hash=sha256:" in block for block in blocks)


@pytest.mark.parametrize("name", ["base", "dev", "ml", "node"])
def test_locks_name_no_registry(name: str) -> None:
    assert not re.search(r"://|--(extra-)?index-url|--find-links", lock(name))


def test_the_set_up_needs_no_package() -> None:
    """-S and -I: the standard library alone, as in an empty .venv."""
    program = f"import sys; sys.path.append({str(ROOT / 'platform')!r}); import galley.install"

    subprocess.run([sys.executable, "-I", "-S", "-c", program], check=True)
