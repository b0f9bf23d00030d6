"""Between a service's refusal and the page: at the field, or as a message."""

from collections.abc import Iterator
from contextlib import contextmanager

from django import forms
from django.contrib import messages
from django.http import HttpRequest

from apps.common.errors import Busy, Conflict, Invalid


@contextmanager
def refusals_on(form: forms.Form) -> Iterator[None]:
    """What a service refuses inside the block stands at its field, or above the form."""
    try:
        yield
    except (Invalid, Conflict, Busy) as error:
        field = getattr(error, "field", "")
        form.add_error(field if field in form.fields else None, error.message)


@contextmanager
def refusals_said(request: HttpRequest) -> Iterator[None]:
    """For a button without a form: the refusal is said on the page that comes next."""
    try:
        yield
    except (Invalid, Conflict, Busy) as error:
        messages.error(request, error.message)


class LinesField(forms.CharField):
    """A text area of one item per line; the value is a tuple without the empty lines."""

    widget = forms.Textarea

    def prepare_value(self, value: object) -> object:
        return "\n".join(value) if isinstance(value, list | tuple) else value

    def to_python(self, value: object) -> tuple[str, ...]:  # type: ignore[override]
        lines = value if isinstance(value, list | tuple) else str(value or "").splitlines()
        return tuple(line for line in lines if line.strip())

    def run_validators(self, value: object) -> None:
        """The service looks at every line by itself."""
