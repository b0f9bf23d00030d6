"""Real PostgreSQL and Redis under a temporary home, for the whole test run.

A plugin named by `-p` in pyproject.toml, because pytest-django reads the settings before any
conftest.py is loaded. Servers that `DATABASE_URL` and `REDIS_URL` name are used as they are.
"""

import os
import shutil
import socket
import tempfile
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path

import pytest

from galley import embedded
from galley.launcher.errors import Refused


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None]:
    """A wrapper, so that it runs before pytest-django's own hook."""
    stack = ExitStack()
    early_config.add_cleanup(stack.close)
    home = Path(tempfile.mkdtemp(prefix="galley-tests-"))
    stack.callback(shutil.rmtree, home, ignore_errors=True)
    try:
        addresses = stack.enter_context(embedded.running(home, durable=False))
    except Refused as refused:
        raise pytest.UsageError(str(refused)) from refused
    os.environ.update(addresses, GALLEY_HOME=str(home), SECRET_KEY="tests-only")
    return (yield)


def free_port() -> int:
    """A port of the loopback address that nobody has right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
