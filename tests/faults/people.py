"""Fills an empty copy of Galley: a project, writers with tokens, and a brief for each.

`python -m tests.faults.people` prints them as JSON. Each writer has a limit of waiting drafts of
their own, so scenarios with many drafts need many writers.
"""

import json

import django

NUM_WRITERS = 24


def main() -> None:
    django.setup()

    from apps.projects.models import Role
    from apps.projects.services import BriefInput, create_brief, set_member
    from tests.support import cast

    room = cast.newsroom()
    writers = []
    for number in range(NUM_WRITERS):
        person = cast.person(f"writer{number}")
        set_member(
            user=room.ada.user,
            project_id=room.project.pk,
            username=person.user.username,
            role=Role.EDITOR,
        )
        fields = BriefInput(subject=f"Opening of hall {number}", preset_id=room.preset.pk, num_words=200)
        brief = create_brief(user=person.user, project_id=room.project.pk, brief=fields)
        writers.append({"token": person.secret, "brief": brief.pk})
    print(json.dumps({"writers": writers, "project": room.project.pk, "admin": room.ada.secret}))


if __name__ == "__main__":
    main()
