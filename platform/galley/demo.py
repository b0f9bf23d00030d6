"""The demo project and its cast: what a newcomer meets on the first start."""

from dataclasses import dataclass

from django.db import transaction

from apps.accounts.models import User
from apps.projects.models import Project, Role
from apps.projects.services import BriefInput, create_brief, create_project, set_member

PASSWORD = "galley-demo"
PROJECT = "The Riverside Post"


@dataclass(frozen=True, kw_only=True)
class Person:
    username: str
    first_name: str
    last_name: str
    role: Role
    does: str


CAST = [
    Person(username="ada", first_name="Ada", last_name="Moreno", role=Role.ADMIN, does="trains and promotes"),
    Person(
        username="eli", first_name="Eli", last_name="Brandt", role=Role.EDITOR, does="writes briefs, edits"
    ),
    Person(username="rosa", first_name="Rosa", last_name="Lindqvist", role=Role.REVIEWER, does="reviews"),
]

BRIEFS = [
    (
        "news",
        BriefInput(
            subject="Opening of the new riverside library",
            preset_id=0,
            audience="residents of the old town",
            angle="what changes for families",
            must_say=(
                "the doors open on 4 May",
                "entry is free on Sundays",
                "the reading room has 240 seats",
            ),
            must_not_say=("luxury",),
            tone="plain",
            num_words=110,
        ),
    ),
    (
        "marketing",
        BriefInput(
            subject="Evening ferry to Lark Island",
            preset_id=0,
            audience="couples planning a weekend",
            angle="a slow evening on the water",
            must_say=("the last boat leaves at 21:30", "tickets cost 12 euros"),
            must_not_say=("cheap",),
            tone="warm",
            num_words=90,
        ),
    ),
    (
        "fiction",
        BriefInput(
            subject="A lighthouse keeper finds a letter",
            preset_id=0,
            audience="adult readers",
            angle="the letter is addressed to somebody who is not born yet",
            must_say=("the letter is dated 1911", "Ines Calder"),
            tone="quiet",
            num_words=130,
        ),
    ),
]


@transaction.atomic
def seed() -> bool:
    """Create the cast, the project and its first briefs; False when they exist already."""
    if Project.objects.filter(name=PROJECT).exists():
        return False
    people = {person.username: _person(person) for person in CAST}
    admin, editor = people["ada"], people["eli"]
    project = create_project(user=admin, name=PROJECT, description="A local paper that tries out Galley.")
    for person in CAST[1:]:
        set_member(user=admin, project_id=project.pk, username=person.username, role=person.role)
    presets = {preset.kind: preset.pk for preset in project.presets.all()}
    for kind, brief in BRIEFS:
        fields = brief.__dict__ | {"preset_id": presets[kind]}
        create_brief(user=editor, project_id=project.pk, brief=BriefInput(**fields))
    return True


def _person(person: Person) -> User:
    user, created = User.objects.get_or_create(
        username=person.username,
        defaults={
            "first_name": person.first_name,
            "last_name": person.last_name,
            "is_staff": person.role == Role.ADMIN,
            "is_superuser": person.role == Role.ADMIN,
        },
    )
    if created:
        user.set_password(PASSWORD)
        user.save()
    return user
