"""/projects/{id}/members: who is in, in which role, and the admin who stays."""

import pytest

from apps.audit.models import AuditEvent
from tests.support.cast import Newsroom, assert_refused


def roles(room: Newsroom) -> dict[str, str]:
    members = room.ada.get(f"{room.address}/members").json()
    return {member["username"]: member["role"] for member in members}


def test_it_works(newsroom: Newsroom) -> None:
    answer = newsroom.ada.post(f"{newsroom.address}/members", username="mallory", role="editor")

    assert answer.status_code == 200
    assert roles(newsroom) == {"ada": "admin", "eli": "editor", "rosa": "reviewer", "mallory": "editor"}
    assert newsroom.mallory.get(newsroom.address).status_code == 200


def test_setting_a_member_again_changes_the_role(newsroom: Newsroom) -> None:
    newsroom.ada.post(f"{newsroom.address}/members", username="eli", role="reviewer")

    assert roles(newsroom)["eli"] == "reviewer"


def test_a_removed_member_is_a_stranger_at_once(newsroom: Newsroom) -> None:
    answer = newsroom.ada.delete(f"{newsroom.address}/members/{newsroom.eli.user.pk}")

    assert answer.status_code == 204
    assert_refused(newsroom.eli.get(newsroom.address), 404, "not_found")
    assert AuditEvent.objects.filter(action="member.removed", data__user=newsroom.eli.user.pk).exists()


@pytest.mark.parametrize("who", ["eli", "rosa"])
def test_only_an_admin_manages_members(newsroom: Newsroom, who: str) -> None:
    member = getattr(newsroom, who)

    assert_refused(member.post(f"{newsroom.address}/members", username=who, role="admin"), 403, "forbidden")
    removal = member.delete(f"{newsroom.address}/members/{newsroom.ada.user.pk}")
    assert_refused(removal, 403, "forbidden")
    assert roles(newsroom) == {"ada": "admin", "eli": "editor", "rosa": "reviewer"}


def test_a_stranger_sees_no_members_and_sets_none(newsroom: Newsroom) -> None:
    address = f"{newsroom.address}/members"

    assert_refused(newsroom.mallory.get(address), 404, "not_found")
    assert_refused(newsroom.mallory.post(address, username="mallory", role="admin"), 404, "not_found")


def test_the_last_admin_stays(newsroom: Newsroom) -> None:
    address = f"{newsroom.address}/members"

    assert_refused(newsroom.ada.post(address, username="ada", role="editor"), 409, "last_admin")
    assert_refused(newsroom.ada.delete(f"{address}/{newsroom.ada.user.pk}"), 409, "last_admin")

    newsroom.ada.post(address, username="rosa", role="admin")
    assert newsroom.ada.post(address, username="ada", role="editor").status_code == 200
    assert_refused(newsroom.rosa.delete(f"{address}/{newsroom.rosa.user.pk}"), 409, "last_admin")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"username": "nobody", "role": "editor"}, "unknown_user"),
        ({"username": "eli\0", "role": "editor"}, "control_characters"),
        ({"username": "", "role": "editor"}, "unknown_user"),
        ({"username": "mallory", "role": "owner"}, "unknown_role"),
    ],
)
def test_bad_input(newsroom: Newsroom, fields: dict[str, str], reason: str) -> None:
    assert_refused(newsroom.ada.post(f"{newsroom.address}/members", **fields), 400, reason)


@pytest.mark.parametrize("member_id", [999_999_999, 2**70])
def test_somebody_who_is_no_member_cannot_be_removed(newsroom: Newsroom, member_id: int) -> None:
    assert_refused(newsroom.ada.delete(f"{newsroom.address}/members/{member_id}"), 404, "not_found")
