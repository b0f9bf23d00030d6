"""One house for all fault tests of a session; each scenario has its own audience."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.house import House
from tests.faults.stage import Stage, on_stage, opened


@pytest.fixture(scope="session")
def inhabited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, dict[str, Any]]]:
    with opened(tmp_path_factory.mktemp("house") / "home", num_workers=3) as house_and_people:
        yield house_and_people


@pytest.fixture
def stage(inhabited: tuple[House, dict[str, Any]], tmp_path: Path) -> Iterator[Stage]:
    with on_stage(*inhabited, tmp_path) as stage:
        yield stage
