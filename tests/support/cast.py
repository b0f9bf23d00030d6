"""The cast: Ada runs the project, Eli writes, Rosa reviews, Mallory is in another one."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from django.test import Client

from apps.accounts.models import ApiToken, User
from apps.projects.models import Project, Role
from apps.projects.services import create_project, set_member
from apps.styles.models import Kind, StylePreset


class Answer(Protocol):
    """What of a response the tests look at."""

    status_code: int

    @property
    def content(self) -> bytes: ...

    @property
    def json(self) -> Callable[[], Any]: ...

    def __getitem__(self, header: str) -> str: ...


class Person:
    """Somebody with a bearer token and a program that speaks to the JSON API."""

    def __init__(self, user: User) -> None:
        self.user = user
        _token, self.secret = ApiToken.objects.issue(user=user, name="tests")
        self.headers = {"Authorization": f"Bearer {self.secret}"}
        self._client = Client(headers=self.headers)

    def get(self, path: str, **query: Any) -> Answer:
        return self._client.get(f"/api/v1{path}", query)

    def post(self, path: str, **body: Any) -> Answer:
        return self.send("POST", path, json.dumps(body))

    def patch(self, path: str, **body: Any) -> Answer:
        return self.send("PATCH", path, json.dumps(body))

    def put(self, path: str, **body: Any) -> Answer:
        return self.send("PUT", path, json.dumps(body))

    def delete(self, path: str) -> Answer:
        return self.send("DELETE", path, "")

    def send(self, method: str, path: str, body: str | bytes) -> Answer:
        """A body as it is: also what no JSON library would write."""
        return self._client.generic(method, f"/api/v1{path}", body, content_type="application/json")


@dataclass(frozen=True, kw_only=True)
class Newsroom:
    """A project with its cast. Mallory is an admin, but of a project of her own."""

    ada: Person
    eli: Person
    rosa: Person
    mallory: Person
    project: Project
    foreign_project: Project

    @property
    def preset(self) -> StylePreset:
        return self.project.presets.get(kind=Kind.NEWS)

    @property
    def address(self) -> str:
        return f"/projects/{self.project.pk}"


def person(username: str) -> Person:
    """No password: argon2 is slow by design, and the API does not ask for one."""
    return Person(User.objects.create(username=username, first_name=username.capitalize()))


def newsroom() -> Newsroom:
    ada, eli, rosa, mallory = (person(name) for name in ("ada", "eli", "rosa", "mallory"))
    project = create_project(user=ada.user, name="The Riverside Post")
    for member, role in ((eli, Role.EDITOR), (rosa, Role.REVIEWER)):
        set_member(user=ada.user, project_id=project.pk, username=member.user.username, role=role)
    foreign_project = create_project(user=mallory.user, name="The Hillside Times")
    return Newsroom(
        ada=ada, eli=eli, rosa=rosa, mallory=mallory, project=project, foreign_project=foreign_project
    )


def assert_refused(response: Answer, status: int, reason: str) -> dict[str, Any]:
    """A refusal has its status, its stable reason and a sentence for people; the body comes back."""
    body: dict[str, Any] = json.loads(response.content)
    assert (response.status_code, body["reason"]) == (status, reason), body
    assert body["message"]
    return body
