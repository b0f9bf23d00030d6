"""How texts and figures are shown."""

import re
from datetime import datetime

from django import template
from django.forms import BoundField
from django.utils import timezone
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from django.utils.timesince import timesince
from django.utils.translation import gettext as _

register = template.Library()


@register.filter
def manuscript(text: str) -> SafeString:
    """Paragraphs as they were written: an empty line parts them, every other break stays."""
    paragraphs = [part for part in re.split(r"\n{2,}", text) if part.strip()]
    return format_html_join("", "<p>{}</p>", ((part,) for part in paragraphs))


@register.filter
def ago(at: datetime) -> str:
    """How long since, in the largest unit."""
    if (timezone.now() - at).total_seconds() < 60:
        return _("just now")
    return _("%(age)s ago") % {"age": timesince(at, depth=1)}


@register.filter
def short_hash(sha256: str) -> str:
    return sha256[:12]


@register.simple_tag
def control(field: BoundField) -> SafeString:
    """The field's control, tied to its hint and its errors for those who do not see them."""
    described = [
        field.auto_id + suffix
        for suffix, there in (("_hint", field.help_text), ("_error", field.errors))
        if there
    ]
    attributes: dict[str, str | bool] = {}
    if described:
        attributes["aria-describedby"] = " ".join(described)
    if field.errors:
        attributes["aria-invalid"] = "true"
    return field.as_widget(attrs=attributes)
