"""Acts on style presets. A change makes a version; a version is never changed."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _

from apps.accounts.models import User
from apps.audit.services import record
from apps.common.errors import Conflict, Invalid
from apps.common.text import clean_line, clean_text
from apps.projects.models import Project
from apps.projects.policies import Act, not_found, project_for, require
from apps.styles.models import Kind, StylePreset, StylePresetVersion

# Word for word what the model that ships was taught with (a test holds the two together).
STANDARD_INSTRUCTIONS = {
    Kind.NEWS: (
        "Write a news report: the lead says what happened, the body gives the facts in order, one quote, "
        "a short close. Plain words, no opinion."
    ),
    Kind.FICTION: (
        "Write a scene: a place, a person, something that happens. Sensory detail and dialogue. "
        "Show, do not explain."
    ),
    Kind.MARKETING: (
        "Write promotional copy: a hook, the benefits, a call to action. Speak to the reader as you."
    ),
}
_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0, 2),
    "top_k": (0, 1000),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "repetition_penalty": (0.5, 2),
    "max_tokens": (16, 4096),
}


@dataclass(frozen=True, kw_only=True)
class PresetInput:
    """What a version holds. Ranges are those of the engine's sampling settings."""

    instructions: str = ""
    temperature: float = 0.6
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.0
    repetition_penalty: float = 1.05
    max_tokens: int = 512
    note: str = ""

    def cleaned_fields(self) -> dict[str, Any]:
        for name, (low, high) in _RANGES.items():
            if not low <= getattr(self, name) <= high:
                message = _("Choose a value from %(low)s to %(high)s.") % {"low": low, "high": high}
                raise Invalid("out_of_range", message, field=name)
        return asdict(self) | {
            "instructions": clean_text(self.instructions, field="instructions", max_chars=4000),
            "note": clean_line(self.note, field="note", max_chars=200),
        }


@transaction.atomic
def create_preset(*, user: User, project_id: int, name: str, kind: str, preset: PresetInput) -> StylePreset:
    project = project_for(user, project_id, Act.STYLE)
    if kind not in Kind.values:
        raise Invalid("unknown_kind", _("Choose news, fiction, marketing or an own style."), field="kind")
    values = preset.cleaned_fields()
    try:
        with transaction.atomic():
            row = StylePreset.objects.create(
                project=project,
                name=clean_line(name, field="name", max_chars=80, required=True),
                kind=kind,
            )
    except IntegrityError as error:
        raise Conflict("name_taken", _("The project has a preset of this name already.")) from error
    StylePresetVersion.objects.create(preset=row, number=1, created_by=user, **values)
    record(actor=user, action="preset.created", obj=row, project_id=project.pk, name=row.name)
    return row


@transaction.atomic
def change_preset(*, user: User, preset_id: int, preset: PresetInput) -> StylePresetVersion:
    """A new version, unless nothing but the note would differ: then the current one comes back."""
    row = preset_for(user, preset_id, Act.STYLE)
    StylePreset.objects.select_for_update().get(pk=row.pk)
    values = preset.cleaned_fields()
    current = row.current
    if all(getattr(current, name) == value for name, value in values.items() if name != "note"):
        return current
    version = StylePresetVersion.objects.create(
        preset=row, number=current.number + 1, created_by=user, **values
    )
    record(actor=user, action="preset.changed", obj=row, project_id=row.project_id, version=version.number)
    return version


def preset_for(user: User, preset_id: int, act: Act = Act.READ) -> StylePreset:
    presets = StylePreset.objects.filter(project__memberships__user=user)
    preset = presets.select_related("project").filter(pk=preset_id).first()
    if preset is None:
        raise not_found()
    require(user, preset.project, act)
    return preset


def input_of(version: StylePresetVersion) -> PresetInput:
    """The version as a form, to change a part of it."""
    return PresetInput(**{field.name: getattr(version, field.name) for field in fields(PresetInput)})


def add_standard_presets(*, project: Project, user: User, **_signal: Any) -> None:
    for kind, instructions in STANDARD_INSTRUCTIONS.items():
        create_preset(
            user=user,
            project_id=project.pk,
            name=str(kind.label),
            kind=kind,
            preset=PresetInput(instructions=instructions),
        )
