"""The JSON API as a whole: described, closed to strangers, and every refusal with a reason."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from apps.accounts.models import ApiToken, User
from apps.common.leases import ClockTimestamp
from tests.support.cast import Newsroom, Person, assert_refused, person
from tests.support.factories import a_brief

CALLS = """
GET /projects                           POST /projects
GET /projects/{id}/members              POST /projects/{id}/members
GET /projects/{id}/presets              POST /projects/{id}/presets
GET /projects/{id}/briefs               POST /projects/{id}/briefs
PATCH /presets/{id}
POST /briefs/{id}/drafts
GET /drafts/{id}                        GET /drafts/{id}/events
POST /drafts/{id}/cancel                PATCH /drafts/{id}              POST /drafts/{id}/submit
GET /projects/{id}/batches              POST /projects/{id}/batches
POST /projects/{id}/batches/upload      GET /batches/{id}               DELETE /batches/{id}
PUT /batches/{id}/mapping               GET /batches/{id}/rows          GET /batches/{id}/results
POST /batches/{id}/start                POST /batches/{id}/pause        POST /batches/{id}/resume
POST /batches/{id}/cancel               POST /batches/{id}/retry
GET /reviews                            POST /reviews/claim             POST /reviews/{id}/decision
POST /training/runs                     GET /training/runs/{id}
POST /training/runs/{id}/stop           POST /training/runs/{id}/resume
GET /adapters                           POST /adapters/{id}/promote
GET /releases                           POST /releases/rollback
"""


def document(client: Client) -> dict[str, Any]:
    answer = client.get("/api/v1/openapi.json")
    assert answer.status_code == 200
    body: dict[str, Any] = answer.json()
    return body


def operations(client: Client) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document(client)["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def test_every_promised_call_is_in_the_document(client: Client) -> None:
    described = {
        f"{method} {re.sub(r'{[^}]+}', '{id}', path.removeprefix('/api/v1'))}"
        for method, path, _operation in operations(client)
    }

    promised = {" ".join(call.split()) for call in re.findall(r"[A-Z]+ /\S+", CALLS)}
    assert promised <= described


def test_every_call_describes_its_refusals_and_has_a_name_of_its_own(client: Client) -> None:
    names = []
    for _method, _path, operation in operations(client):
        names.append(operation["operationId"])
        assert {"401", "404", "409", "422"} <= operation["responses"].keys()
    assert len(set(names)) == len(names)


@pytest.mark.django_db
def test_every_call_refuses_who_has_not_signed_in(client: Client) -> None:
    refused = 0
    for method, path, _operation in operations(client):
        address = re.sub(r"{[^}]+}", "1", path)
        for headers in ({}, {"Authorization": "Bearer galley_made_up"}, {"Authorization": "Basic YTpi"}):
            answer = client.generic(method, address, "{}", content_type="application/json", headers=headers)
            assert_refused(answer, 401, "unauthenticated")
            refused += 1
    assert refused > 60


def test_a_token_from_the_command_line_opens_the_api(
    newsroom: Newsroom, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("create_token", "eli")
    secret = capsys.readouterr().out.strip()

    answer = client.get("/api/v1/projects", headers={"Authorization": f"Bearer {secret}"})

    assert [project["name"] for project in answer.json()] == ["The Riverside Post"]
    assert not ApiToken.objects.filter(sha256=secret).exists()  # the secret itself is stored nowhere
    assert ApiToken.objects.get(name="command line").last_used_at is not None


@pytest.mark.django_db
def test_there_is_no_token_for_nobody() -> None:
    with pytest.raises(CommandError, match="'nobody'"):
        call_command("create_token", "nobody")


@pytest.mark.django_db
def test_a_revoked_token_and_one_of_a_person_who_left_are_refused() -> None:
    revoked, left = person("ravi"), person("lea")
    ApiToken.objects.filter(user=revoked.user).update(revoked_at=ClockTimestamp())
    User.objects.filter(pk=left.user.pk).update(is_active=False)

    for somebody in (revoked, left):
        assert_refused(somebody.get("/projects"), 401, "unauthenticated")


def test_a_session_writes_only_with_its_csrf_token(newsroom: Newsroom) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(newsroom.eli.user)
    assert browser.get("/api/v1/projects").status_code == 200

    address = f"/api/v1/briefs/{a_brief(newsroom).pk}/drafts"
    assert browser.post(address, "{}", content_type="application/json").status_code == 403


@pytest.mark.parametrize("path", ["/nothing", "/projects/x", "/drafts/1/nothing", "/projects/-1"])
def test_an_address_that_does_not_exist_is_404(newsroom: Newsroom, path: str) -> None:
    assert_refused(newsroom.eli.get(path), 404, "not_found")


def test_a_method_that_an_address_does_not_have_is_405(newsroom: Newsroom) -> None:
    assert newsroom.eli.delete("/projects").status_code == 405


def test_two_roles_of_one_person_stay_in_their_projects(newsroom: Newsroom) -> None:
    """Mallory is an admin at home; here that counts for nothing, even as an editor."""
    newsroom.ada.post(f"{newsroom.address}/members", username="mallory", role="editor")

    answer = newsroom.mallory.post("/training/runs", project_id=newsroom.project.pk)

    assert_refused(answer, 403, "forbidden")


def test_a_person_is_told_apart_by_token(newsroom: Newsroom) -> None:
    other = Person(newsroom.eli.user)

    assert other.secret != newsroom.eli.secret
    assert other.get("/projects").json() == newsroom.eli.get("/projects").json()
