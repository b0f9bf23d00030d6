"""The form behind "Write"."""

import uuid
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

MAX_CANDIDATES_ON_PAGE = 4


class WriteForm(forms.Form):
    """`client_request_id` is made with the page: a second click of the same page finds the first."""

    candidates = forms.IntegerField(
        label=_("Candidates"), min_value=1, max_value=MAX_CANDIDATES_ON_PAGE, initial=2
    )
    seed = forms.IntegerField(
        label=_("Seed"),
        required=False,
        help_text=_("The same seed and brief write the same text again. Empty: by chance."),
    )
    client_request_id = forms.CharField(widget=forms.HiddenInput, max_length=64)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial.setdefault("client_request_id", uuid.uuid4().hex)
