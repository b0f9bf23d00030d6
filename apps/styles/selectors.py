"""What the pages ask about styles."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from apps.styles.models import StylePreset, StylePresetVersion
from apps.styles.services import PresetInput


@dataclass(frozen=True, kw_only=True)
class Setting:
    name: str
    old: object
    new: object


@dataclass(frozen=True, kw_only=True)
class VersionEntry:
    """A version beside the one before it; the first has none."""

    version: StylePresetVersion
    previous: StylePresetVersion | None
    settings: Sequence[Setting]


def history(preset: StylePreset) -> list[VersionEntry]:
    """Newest first, each with what it changed."""
    versions = list(preset.versions.select_related("created_by"))
    return [
        VersionEntry(version=version, previous=previous, settings=_changed(previous, version))
        for version, previous in zip(versions, [*versions[1:], None], strict=True)
    ]


def _changed(old: StylePresetVersion | None, new: StylePresetVersion) -> list[Setting]:
    names = [field.name for field in fields(PresetInput) if field.name not in ("note", "instructions")]
    pairs = [(name, getattr(old, name, None), getattr(new, name)) for name in names]
    return [Setting(name=name, old=before, new=after) for name, before, after in pairs if before != after]
