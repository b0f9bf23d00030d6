"""The worker's engine, real in its own process, on a model without weights."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pytest_django import Settings

from inference import Engine
from workers import engine

OpenEngine = Callable[..., Engine]


@pytest.fixture
def open_engine(home: Path, settings: Settings) -> Iterator[OpenEngine]:
    """Opens the worker's engine on the fake model, `num_tokens` words at `tokens_per_second`."""

    def open_(*, tokens_per_second: int = 2000, num_tokens: int = 40) -> Engine:
        settings.GALLEY_MODEL = f"fake:?tokens_per_second={tokens_per_second}&num_tokens={num_tokens}"
        return engine.get_engine()

    yield open_
    engine.close_engine()
