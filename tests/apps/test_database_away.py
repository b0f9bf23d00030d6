"""A database that does not answer is a 503 with its reason; all else that nobody caught stays a 500."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import InterfaceError, OperationalError, connection
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from tests.support.cast import Newsroom

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def plain_static_files(settings: Settings) -> None:
    """The manifest is there only after `collectstatic`."""
    plain = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    settings.STORAGES = settings.STORAGES | {"staticfiles": plain}


def failing_with(error: Exception) -> Callable[..., Any]:
    def fail(*_: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("error", [OperationalError("server closed"), InterfaceError("connection is closed")])
@pytest.mark.parametrize("path", ["/", "/reviews/", "/admin/"])
def test_a_page_says_it_and_when_to_come_back(newsroom: Newsroom, path: str, error: Exception) -> None:
    client = Client(raise_request_exception=False)
    client.force_login(newsroom.ada.user)

    with connection.execute_wrapper(failing_with(error)):
        page = client.get(path)

    assert (page.status_code, page.headers["Retry-After"]) == (503, "2")
    text = page.content.decode()
    assert "The database does not answer right now." in text
    assert str(error) not in text


def test_a_program_gets_a_stable_reason(newsroom: Newsroom) -> None:
    client = Client(headers=newsroom.ada.headers, raise_request_exception=False)

    with connection.execute_wrapper(failing_with(OperationalError("server closed"))):
        answer = client.get("/api/v1/projects")

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert answer.json()["reason"] == "database_away"


def test_what_will_not_pass_by_itself_stays_our_mistake(newsroom: Newsroom) -> None:
    client = Client(headers=newsroom.ada.headers, raise_request_exception=False)

    with connection.execute_wrapper(failing_with(ValueError("a bug"))):
        answer, page = client.get("/api/v1/projects"), client.get(reverse("accounts:signin"))

    assert (answer.status_code, answer.json()["reason"]) == (500, "server_error")
    assert page.status_code == 200, "this page asks the database nothing"
