"""POST /projects, and what a new project starts with."""

import pytest

from apps.projects.models import Project
from tests.support.cast import Newsroom, assert_refused


def test_it_works(newsroom: Newsroom) -> None:
    answer = newsroom.eli.post("/projects", name=" The  Evening Post ", description="A second paper.")

    assert answer.status_code == 201
    project = Project.objects.get(pk=answer.json()["id"])
    assert (project.name, project.description) == ("The Evening Post", "A second paper.")
    assert project.role_of(newsroom.eli.user) == "admin"


def test_it_starts_with_a_preset_of_every_kind_that_the_model_was_taught(newsroom: Newsroom) -> None:
    project = newsroom.eli.post("/projects", name="The Evening Post").json()

    presets = newsroom.eli.get(f"/projects/{project['id']}/presets").json()

    assert [preset["kind"] for preset in presets] == ["news", "fiction", "marketing"]
    assert all(preset["current"]["number"] == 1 for preset in presets)


def test_each_person_lists_their_own_projects_only(newsroom: Newsroom) -> None:
    assert [row["name"] for row in newsroom.rosa.get("/projects").json()] == ["The Riverside Post"]
    assert [row["name"] for row in newsroom.mallory.get("/projects").json()] == ["The Hillside Times"]


def test_a_foreign_project_cannot_be_told_from_an_absent_one(newsroom: Newsroom) -> None:
    foreign = assert_refused(newsroom.mallory.get(newsroom.address), 404, "not_found")
    absent = assert_refused(newsroom.mallory.get("/projects/999999999"), 404, "not_found")

    assert foreign == absent


def test_an_id_beyond_what_a_row_can_have_is_absent(newsroom: Newsroom) -> None:
    assert_refused(newsroom.ada.get(f"/projects/{2**70}"), 404, "not_found")


def test_a_taken_name_is_refused_whatever_its_case(newsroom: Newsroom) -> None:
    assert_refused(newsroom.eli.post("/projects", name="the riverside POST"), 409, "name_taken")


@pytest.mark.parametrize(
    ("name", "reason"),
    [("", "empty"), ("  \n ", "empty"), ("x" * 121, "text_too_long"), ("a\0b", "control_characters")],
)
def test_a_name_that_cannot_be_kept_is_refused(newsroom: Newsroom, name: str, reason: str) -> None:
    body = assert_refused(newsroom.eli.post("/projects", name=name), 400, reason)

    assert body["field"] == "name"
    assert Project.objects.count() == 2
