"""`make lock`: writes requirements/*.lock from pyproject.toml. Needs the package index.

base and dev carry hashes. ml does not: torch's wheels differ from machine to machine and
llama.cpp is compiled. All three agree on shared packages, because each is resolved within the
one before it. No index address is written, so that each machine uses its own.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "requirements"
PYTHON = "3.11"

# Pinned, these would be installed beside a torch that has no use for them; unpinned, pip follows the wheel.
CUDA_OF_TORCH = re.compile(r"^(nvidia|cuda|triton)")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([f"{folder}/bin/pip", "install", "--quiet", "uv"], check=True)
        write_locks(f"{folder}/bin/uv")


def write_locks(uv: str) -> None:
    base, dev, ml, node = (REQUIREMENTS / f"{name}.lock" for name in ("base", "dev", "ml", "node"))
    project = str(ROOT / "pyproject.toml")
    base.write_text(resolve(uv, project, "--generate-hashes"))
    dev.write_text(resolve(uv, project, "--extra", "dev", "--generate-hashes", "--constraint", str(base)))
    pins = resolve(uv, project, "--extra", "ml", "--constraint", str(dev))
    ml.write_text("".join(line for line in pins.splitlines(keepends=True) if not CUDA_OF_TORCH.match(line)))
    node.write_text(resolve(uv, str(REQUIREMENTS / "node.in"), "--generate-hashes"))


def resolve(uv: str, *arguments: str) -> str:
    quiet = ("--quiet", "--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links")
    command = [uv, "pip", "compile", "--universal", "--python-version", PYTHON, *quiet, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
