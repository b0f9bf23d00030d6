"""The preset form. It shapes the input; the service judges it."""

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from apps.styles.models import Kind, StylePresetVersion
from apps.styles.services import PresetInput, input_of


class VersionForm(forms.Form):
    """What a version holds."""

    instructions = forms.CharField(
        label=_("Instructions"),
        required=False,
        widget=forms.Textarea(attrs={"rows": 8}),
        help_text=_("How texts of this style are written. The model reads this before every brief."),
    )
    temperature = forms.FloatField(
        label=_("Temperature"),
        initial=0.6,
        help_text=_("0 always takes the likeliest word; 0.5 to 0.7 is usual."),
    )
    top_k = forms.IntegerField(label=_("Top k"), initial=40)
    top_p = forms.FloatField(label=_("Top p"), initial=0.95)
    min_p = forms.FloatField(label=_("Min p"), initial=0.0)
    repetition_penalty = forms.FloatField(label=_("Repetition penalty"), initial=1.05)
    max_tokens = forms.IntegerField(label=_("Max tokens"), initial=512)
    note = forms.CharField(
        label=_("What changed, and why"), required=False, help_text=_("Shown in the history of versions.")
    )

    number_names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "max_tokens")

    @property
    def numbers(self) -> list[forms.BoundField]:
        return [self[name] for name in self.number_names]

    def to_input(self) -> PresetInput:
        return PresetInput(**{name: self.cleaned_data[name] for name in VersionForm.base_fields})

    @staticmethod
    def initial_of(version: StylePresetVersion) -> dict[str, Any]:
        return vars(input_of(version)) | {"note": ""}


class PresetForm(VersionForm):
    name = forms.CharField(label=_("Name"))
    kind = forms.ChoiceField(label=_("Kind"), choices=Kind.choices, initial=Kind.CUSTOM)
