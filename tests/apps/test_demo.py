"""The demo project of the first start."""

import pytest
from django.core.management import call_command

from apps.accounts.models import User
from apps.projects.models import Brief, Project
from galley import demo

pytestmark = pytest.mark.django_db


def test_it_has_a_project_a_cast_that_can_sign_in_and_briefs() -> None:
    assert demo.seed()

    project = Project.objects.get(name=demo.PROJECT)
    roles = dict(project.memberships.values_list("user__username", "role"))
    assert roles == {"ada": "admin", "eli": "editor", "rosa": "reviewer"}
    assert User.objects.get(username="eli").check_password(demo.PASSWORD)
    assert Brief.objects.filter(project=project).count() == len(demo.BRIEFS)


def test_a_second_start_adds_nothing() -> None:
    demo.seed()

    assert not demo.seed()
    assert (Project.objects.count(), User.objects.count()) == (1, 3)


def test_the_sign_ins_are_printed_for_those_who_exist(capsys: pytest.CaptureFixture[str]) -> None:
    demo.seed()

    call_command("demo_signins")

    printed = capsys.readouterr().out
    assert all(person.username in printed for person in demo.CAST)
    assert demo.PASSWORD in printed
