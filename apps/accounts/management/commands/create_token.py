"""A bearer token for a program of a person."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.accounts.models import ApiToken, User


class Command(BaseCommand):
    help = "Print a new API token of USERNAME. It is shown once: only its hash is stored."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--name", default="command line", help="what the token is for")

    def handle(self, *_args: Any, username: str, name: str, **_options: Any) -> None:
        user = User.objects.filter(username=username, is_active=True).first()
        if user is None:
            raise CommandError(f"Nobody here has the user name {username!r}.")
        _token, secret = ApiToken.objects.issue(user=user, name=name)
        self.stdout.write(secret)
