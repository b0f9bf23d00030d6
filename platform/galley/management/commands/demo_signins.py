"""Who can sign in to the demo project."""

from typing import Any

from django.core.management.base import BaseCommand

from apps.accounts.models import User
from galley import demo


class Command(BaseCommand):
    help = "Print the demo sign-ins that exist and still have their first password."

    def handle(self, *_args: Any, **_options: Any) -> None:
        users = {user.username: user for user in User.objects.filter(is_active=True)}
        for person in demo.CAST:
            user = users.get(person.username)
            if user and user.check_password(demo.PASSWORD):
                self.stdout.write(f"{person.username:<6} {demo.PASSWORD}   {person.role}: {person.does}")
