"""The forms of a batch. They shape the input; the services judge it."""

import uuid
from pathlib import PurePath
from typing import Any

from django import forms
from django.core.files.uploadedfile import UploadedFile
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from apps.batches.columns import FIELDS, ColumnMapping
from apps.batches.files import MAX_BYTES, Table, read_table
from apps.batches.models import MAX_CANDIDATES, Batch
from apps.batches.services import BatchInput
from apps.common.errors import Invalid
from apps.projects.models import Project


def read_upload(file: "UploadedFile[Any]") -> Table:
    """The size is looked at before a byte of the file is."""
    if (file.size or 0) > MAX_BYTES:
        raise Invalid("bad_file", _("The file is larger than 2 MiB. Split it into several."), field="file")
    return read_table(file.read())


class BatchForm(forms.Form):
    """`client_request_id` is made with the page: a second click of the same page finds the first."""

    file = forms.FileField(
        label=gettext_lazy("File"),
        allow_empty_file=True,  # said in our own words
        help_text=gettext_lazy("CSV or JSON lines, up to 10,000 rows and 2 MiB."),
        widget=forms.ClearableFileInput(attrs={"accept": ".csv,.tsv,.txt,.jsonl,.ndjson,.json"}),
    )
    name = forms.CharField(
        label=gettext_lazy("Name"),
        required=False,
        help_text=gettext_lazy("Empty: the name of the file."),
    )
    preset_id = forms.TypedChoiceField(label=gettext_lazy("Style preset"), coerce=int)
    candidates = forms.IntegerField(
        label=gettext_lazy("Drafts per row"), min_value=1, max_value=MAX_CANDIDATES, initial=1
    )
    seed = forms.IntegerField(
        label=gettext_lazy("Seed"),
        required=False,
        help_text=gettext_lazy("The same seed and file write the same texts again. Empty: by chance."),
    )
    client_request_id = forms.CharField(widget=forms.HiddenInput, max_length=64)

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial.setdefault("client_request_id", uuid.uuid4().hex)
        presets: Any = project.presets  # type: ignore[attr-defined]  # reverse side of styles.StylePreset
        self.fields["preset_id"].choices = list(presets.values_list("pk", "name"))  # type: ignore[attr-defined]

    def to_input(self) -> BatchInput:
        values = {name: value for name, value in self.cleaned_data.items() if name != "file"}
        values["name"] = values["name"] or PurePath(self.cleaned_data["file"].name).stem[:120]
        return BatchInput(**values)


class MappingForm(forms.Form):
    """Which column holds what: one choice per field of a brief."""

    def __init__(self, *args: Any, batch: Batch, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial = dict(batch.mapping)
        columns = [("", "–"), *((column, column) for column in batch.columns)]
        for name, label in FIELDS.items():
            self.fields[name] = forms.ChoiceField(label=label, choices=columns, required=False)

    def to_mapping(self) -> ColumnMapping:
        return {field: column for field, column in self.cleaned_data.items() if column}
