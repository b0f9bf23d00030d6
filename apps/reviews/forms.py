"""The decision form. It shapes the input; the service judges it."""

from django import forms
from django.utils.translation import gettext_lazy as _

from apps.reviews.models import DecisionKind, ReasonCode
from apps.reviews.services import DecisionInput


class DecisionForm(forms.Form):
    decision = forms.ChoiceField(choices=DecisionKind.choices)
    content_sha256 = forms.CharField(widget=forms.HiddenInput)
    text = forms.CharField(required=False, strip=False, widget=forms.Textarea)
    reasons = forms.MultipleChoiceField(
        label=_("Reasons"), required=False, choices=ReasonCode.choices, widget=forms.CheckboxSelectMultiple
    )
    comment = forms.CharField(
        label=_("Comment for the author"), required=False, widget=forms.Textarea(attrs={"rows": 3})
    )

    def to_input(self) -> DecisionInput:
        return DecisionInput(**self.cleaned_data | {"reasons": tuple(self.cleaned_data["reasons"])})


class CommentForm(forms.Form):
    text = forms.CharField(label=_("Comment"), widget=forms.Textarea(attrs={"rows": 2}))
