"""The first thing that `make` runs: finds a fitting Python, makes .venv with it, goes on there.

Standard library only, and no syntax newer than Python 3.7, so that an old Python can still say
what is missing. Everything after that is galley/install.py.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
CANDIDATES = (sys.executable, "python3.11", "python3.12", "python3")
FITS = "import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))"


def main() -> None:
    python = VENV / "bin" / "python"
    if not fits(str(python)):
        make_venv()
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "platform")}
    os.execve(python, [str(python), "-m", "galley.install", *sys.argv[1:]], environment)


def make_venv() -> None:
    found = next((python for python in CANDIDATES if fits(python)), None)
    if found is None:
        version = sys.version.split()[0]
        sys.exit(
            f"galley: Python 3.11 or 3.12 with venv is needed and this machine's python3 is {version}: "
            "install it (Debian, Ubuntu: apt-get install python3.11-venv) and run the command again."
        )
    print(f"  making .venv with {found}", flush=True)
    shutil.rmtree(VENV, ignore_errors=True)
    if subprocess.call([found, "-m", "venv", str(VENV)]):
        sys.exit("galley: .venv could not be made; the lines above say why.")


def fits(python: str) -> bool:
    try:
        return subprocess.call([python, "-c", FITS], stderr=subprocess.DEVNULL) == 0
    except OSError:
        return False


if __name__ == "__main__":
    main()
