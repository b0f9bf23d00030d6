"""The demo project with its cast, once."""

from typing import Any

from django.core.management.base import BaseCommand

from galley import demo


class Command(BaseCommand):
    help = "Create the demo project, its people and first briefs. Running it again changes nothing."

    def handle(self, *_args: Any, **_options: Any) -> None:
        demo.seed()
