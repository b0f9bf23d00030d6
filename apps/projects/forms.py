"""Forms of projects. They shape the input; the services judge it."""

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from apps.common.forms import LinesField
from apps.projects.models import Brief, Project, Role
from apps.projects.services import MAX_WORDS, MIN_WORDS, BriefInput


class ProjectForm(forms.Form):
    name = forms.CharField(label=_("Name"), max_length=120)
    description = forms.CharField(
        label=_("What it is for"), required=False, widget=forms.Textarea(attrs={"rows": 3})
    )


class MemberForm(forms.Form):
    username = forms.CharField(label=_("Username"), widget=forms.TextInput(attrs={"autocomplete": "off"}))
    role = forms.ChoiceField(label=_("Role"), choices=Role.choices, initial=Role.EDITOR)


class BriefForm(forms.Form):
    subject = forms.CharField(label=_("Subject"), help_text=_("What the text is about, in one line."))
    audience = forms.CharField(label=_("Audience"), required=False, help_text=_("Who reads it."))
    angle = forms.CharField(label=_("Angle"), required=False, help_text=_("What makes it worth reading."))
    must_say = LinesField(
        label=_("Must say"),
        required=False,
        widget=forms.Textarea(attrs={"rows": 5}),
        help_text=_("Facts that have to be in the text, word for word. One per line."),
    )
    must_not_say = LinesField(
        label=_("Must not say"),
        required=False,
        widget=forms.Textarea(attrs={"rows": 5}),
        help_text=_("Words and claims to keep out. One per line."),
    )
    tone = forms.CharField(label=_("Tone"), required=False, help_text=_("Such as: warm, plain, urgent."))
    num_words = forms.IntegerField(
        label=_("Length in words"),
        initial=120,
        widget=forms.NumberInput(attrs={"min": MIN_WORDS, "max": MAX_WORDS}),
    )
    preset_id = forms.TypedChoiceField(label=_("Style preset"), coerce=int)

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        presets: Any = project.presets  # type: ignore[attr-defined]  # reverse side of styles.StylePreset
        self.fields["preset_id"].choices = list(presets.values_list("pk", "name"))  # type: ignore[attr-defined]

    def to_input(self) -> BriefInput:
        return BriefInput(**self.cleaned_data)

    @staticmethod
    def initial_of(brief: Brief) -> dict[str, Any]:
        return {name: getattr(brief, name) for name in BriefForm.base_fields}
