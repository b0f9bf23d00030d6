"""The type of a request that the sign-in wall has let through."""

from django.http import HttpRequest

from apps.accounts.models import User


class SignedInRequest(HttpRequest):
    """LoginRequiredMiddleware stands before every view that takes one."""

    user: User
