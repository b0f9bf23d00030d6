"""Bring your own model: `manage.py model add|list|use|check`."""

import os
import sys
from argparse import REMAINDER, ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand


class Command(BaseCommand):
    help = (
        "add PATH-or-OWNER/NAME, list, use NAME, check [NAME]; `model add --help` tells the options. "
        "What `use` chose is opened from the next start on, unless GALLEY_MODEL is set."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("action", choices=["add", "list", "use", "check"])
        parser.add_argument("arguments", nargs=REMAINDER)

    def handle(self, *_args: Any, action: str, arguments: list[str], **_options: Any) -> None:
        """Become the engine's own command: nothing that has loaded Django may know the engine."""
        environment = {
            **os.environ,
            "GALLEY_HOME": str(settings.HOME),
            "GALLEY_CONTEXT": str(settings.GALLEY_CONTEXT),
            "GALLEY_MAX_SEQUENCES": str(settings.GALLEY_MAX_SEQUENCES),
        }
        command = [sys.executable, "-m", "inference", "model", action, *arguments]
        os.execve(sys.executable, command, environment)
