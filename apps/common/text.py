"""Text from outside: cleaned at the door, hashed the same way everywhere."""

import hashlib
import unicodedata

from django.utils.translation import gettext as _

from apps.common.errors import Invalid

MAX_LINE_CHARS = 500
MAX_TEXT_CHARS = 200_000
_ALLOWED_CONTROLS = {"\n", "\t"}


def clean_text(text: str, *, field: str, max_chars: int = MAX_TEXT_CHARS, required: bool = False) -> str:
    """The text with Unix line ends; refuses what PostgreSQL or UTF-8 cannot hold.

    Raises Invalid with reason `control_characters`, `text_too_long` or `empty`.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if any(unicodedata.category(char) in ("Cc", "Cs") and char not in _ALLOWED_CONTROLS for char in text):
        raise Invalid(
            "control_characters",
            _("The text holds control characters. Paste it as plain text and try again."),
            field=field,
        )
    if len(text) > max_chars:
        raise Invalid(
            "text_too_long",
            _("The text has %(num)s characters; at most %(max)s fit here.")
            % {"num": len(text), "max": max_chars},
            field=field,
        )
    if required and not text.strip():
        raise Invalid("empty", _("This must not be empty."), field=field)
    return text


def clean_line(text: str, *, field: str, max_chars: int = MAX_LINE_CHARS, required: bool = False) -> str:
    """Like `clean_text`, on one line with single spaces."""
    return " ".join(clean_text(text, field=field, max_chars=max_chars, required=required).split())


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
