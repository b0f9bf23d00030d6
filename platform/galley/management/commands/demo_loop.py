"""The loop as one asserted story against the running stack."""

import json
import time
from argparse import ArgumentParser
from contextlib import ExitStack, closing
from typing import Any

import httpx
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError

from apps.accounts.models import ApiToken, User
from galley.story import Client, Story, StoryFailed


class Command(BaseCommand):
    help = (
        "Brief, draft, review, train, gate, promote, better draft, roll back; ends non-zero if a step fails."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--url", default=f"http://127.0.0.1:{settings.PORT}", help="the running stack")
        parser.add_argument("--json", action="store_true", help="print the figures as JSON at the end")

    def handle(self, *_args: Any, url: str, json: bool, **_options: Any) -> None:
        started = time.monotonic()
        try:
            tokens = {name: self._token(name) for name in ("ada", "eli", "rosa")}
        except OperationalError as error:
            raise CommandError("The database does not answer. Start the stack with `make up`.") from error
        try:
            with ExitStack() as stack:
                clients = [stack.enter_context(closing(Client(url, secret))) for _, secret in tokens.values()]
                admin, editor, reviewer = clients
                figures = Story(admin=admin, editor=editor, reviewer=reviewer, say=self._say).tell()
        except StoryFailed as error:
            raise CommandError(f"The loop is broken: {error}") from error
        except httpx.TransportError as error:
            raise CommandError(f"Nothing answers at {url} ({error}). Start it with `make up`.") from error
        finally:
            for token, _secret in tokens.values():
                token.delete()
        figures["whole loop, s"] = round(time.monotonic() - started, 1)
        self._say(f"the loop holds: {figures['whole loop, s']} s")
        if json:
            self._print_json(figures)

    def _token(self, username: str) -> tuple[ApiToken, str]:
        user = User.objects.filter(username=username).first()
        if user is None:
            raise CommandError(f"The demo's {username!r} is missing. Run `manage.py seed_demo` first.")
        return ApiToken.objects.issue(user=user, name="demo_loop")

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()

    def _print_json(self, figures: dict[str, Any]) -> None:
        self.stdout.write(json.dumps(figures))
