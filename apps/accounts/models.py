"""People and the tokens of their programs."""

import hashlib
import secrets

from django.conf import settings
from django.contrib.auth.models import AbstractUser
from django.db import models

from apps.common.leases import ClockTimestamp


class User(AbstractUser):
    """A person. What they may do is their role in each project (projects.Membership)."""

    @property
    def display_name(self) -> str:
        return self.get_full_name() or self.username


class ApiTokenManager(models.Manager["ApiToken"]):
    def issue(self, *, user: User, name: str) -> tuple["ApiToken", str]:
        """A new token and its secret; only the hash is stored, so the secret is shown once."""
        secret = f"galley_{secrets.token_urlsafe(32)}"
        return self.create(user=user, name=name, sha256=token_hash(secret)), secret

    def user_for(self, secret: str) -> User | None:
        tokens = self.filter(sha256=token_hash(secret), revoked_at__isnull=True, user__is_active=True)
        token = tokens.select_related("user").first()
        if token is None:
            return None
        tokens.update(last_used_at=ClockTimestamp())
        return token.user


class ApiToken(models.Model):
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=100)
    sha256 = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField(db_default=ClockTimestamp())
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    objects: ApiTokenManager = ApiTokenManager()

    def __str__(self) -> str:
        return f"{self.name} of {self.user}"


def token_hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
