"""What every test may ask for."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from asgiref.sync import SyncToAsync
from django.conf import settings as configured
from django.db import connections
from pytest_django import Settings

from tests.support import cast


def pytest_sessionstart() -> None:
    """WhiteNoise warns about a folder that `collectstatic` has not made yet."""
    Path(configured.STATIC_ROOT).mkdir(parents=True, exist_ok=True)


@pytest.fixture(scope="session")
def helper_thread(django_db_setup: None) -> Iterator[None]:
    """Async tests reach the database from one helper thread; its connection would outlive the database."""
    yield
    SyncToAsync.single_thread_executor.submit(connections.close_all).result()


@pytest.fixture
def newsroom(db: None, helper_thread: None) -> cast.Newsroom:
    return cast.newsroom()


@pytest.fixture
def home(settings: Settings, tmp_path: Path) -> Path:
    """A state folder of this test alone: its artefacts and caches."""
    settings.HOME = tmp_path
    settings.STORAGES = settings.STORAGES | {
        "artifacts": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": str(tmp_path / "store")},
        }
    }
    return tmp_path
