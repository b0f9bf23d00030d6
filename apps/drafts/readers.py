"""Who reads a stream, and whether they still may: asked when they come and every few seconds after."""

from collections.abc import Collection
from dataclasses import dataclass

from channels.db import database_sync_to_async
from django.contrib.auth import HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.models import Session
from django.utils.crypto import constant_time_compare

from apps.accounts.models import ApiToken, User, token_hash
from apps.common.leases import ClockTimestamp


@dataclass(frozen=True)
class Reader:
    """What somebody showed at the door: the key of a session, or the hash of an API token."""

    session_key: str = ""
    token_sha256: str = ""


@dataclass(frozen=True)
class _Claim:
    user_id: int
    password_hash: str | None = None
    """The session's hash of the password: a session of before a new password is worth nothing."""

    def holds_for(self, user: User) -> bool:
        if self.password_hash is None:
            return True
        valid = (user.get_session_auth_hash(), *user.get_session_auth_fallback_hash())
        return any(constant_time_compare(self.password_hash, each) for each in valid)


def reader_of(*, authorization: str, session_key: str | None) -> Reader:
    """A bearer token counts before a session, as in the JSON API."""
    scheme, _space, secret = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return Reader(token_sha256=token_hash(secret))
    return Reader(session_key=session_key or "")


def welcome(draft_id: int, readers: Collection[Reader]) -> set[Reader]:
    """Those who may read the draft at this moment; three queries at most, however many they are.

    Sessions are looked up as rows, so they must be kept in the database (also behind a cache).
    """
    claims = _of_sessions([reader.session_key for reader in readers if reader.session_key])
    claims |= _of_tokens([reader.token_sha256 for reader in readers if reader.token_sha256])
    members = User.objects.filter(is_active=True, memberships__project__briefs__drafts=draft_id)
    users = members.in_bulk({claim.user_id for claim in claims.values()})
    return {
        reader
        for reader, claim in claims.items()
        if claim.user_id in users and claim.holds_for(users[claim.user_id])
    }


@database_sync_to_async
def comes_in(draft_id: int, reader: Reader) -> bool:
    """Whether somebody at the door may read the draft. Their token counts as used."""
    if reader not in welcome(draft_id, [reader]):
        return False
    if reader.token_sha256:
        ApiToken.objects.filter(sha256=reader.token_sha256).update(last_used_at=ClockTimestamp())
    return True


def _of_sessions(keys: Collection[str]) -> dict[Reader, _Claim]:
    claims = {}
    if keys:
        for session in Session.objects.filter(session_key__in=keys, expire_date__gt=ClockTimestamp()):
            data = session.get_decoded()
            if SESSION_KEY in data:
                claim = _Claim(int(data[SESSION_KEY]), data.get(HASH_SESSION_KEY, ""))
                claims[Reader(session_key=session.session_key)] = claim
    return claims


def _of_tokens(hashes: Collection[str]) -> dict[Reader, _Claim]:
    if not hashes:
        return {}
    tokens = ApiToken.objects.filter(sha256__in=hashes, revoked_at__isnull=True)
    rows = tokens.values_list("sha256", "user_id")
    return {Reader(token_sha256=sha256): _Claim(user_id) for sha256, user_id in rows}
