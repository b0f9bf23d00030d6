"""Style presets over JSON. PATCH makes a version."""

from dataclasses import replace
from datetime import datetime

from django.db.models import QuerySet
from ninja import Router, Schema, Status

from apps.accounts.http import SignedInRequest
from apps.common.api import PROBLEMS
from apps.projects.policies import project_for
from apps.styles import services
from apps.styles.models import StylePreset, StylePresetVersion

router = Router()


class VersionFields(Schema):
    instructions: str = ""
    temperature: float = 0.6
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.0
    repetition_penalty: float = 1.05
    max_tokens: int = 512
    note: str = ""


class PresetIn(VersionFields):
    name: str
    kind: str = "custom"


class PresetPatch(Schema):
    instructions: str | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    max_tokens: int | None = None
    note: str | None = None


class VersionOut(VersionFields):
    number: int
    created_at: datetime


class PresetOut(Schema):
    id: int
    project_id: int
    name: str
    kind: str
    current: VersionOut


@router.get("/projects/{int:project_id}/presets", response={200: list[PresetOut], **PROBLEMS})
def list_presets(request: SignedInRequest, project_id: int) -> QuerySet[StylePreset]:
    return project_for(request.user, project_id).presets.all()


@router.post("/projects/{int:project_id}/presets", response={201: PresetOut, **PROBLEMS})
def create_preset(request: SignedInRequest, project_id: int, body: PresetIn) -> Status[StylePreset]:
    fields = body.dict(exclude={"name", "kind"})
    preset = services.create_preset(
        user=request.user,
        project_id=project_id,
        name=body.name,
        kind=body.kind,
        preset=services.PresetInput(**fields),
    )
    return Status(201, preset)


@router.get("/presets/{int:preset_id}", response={200: PresetOut, **PROBLEMS})
def get_preset(request: SignedInRequest, preset_id: int) -> StylePreset:
    return services.preset_for(request.user, preset_id)


@router.patch("/presets/{int:preset_id}", response={200: PresetOut, **PROBLEMS})
def change_preset(request: SignedInRequest, preset_id: int, body: PresetPatch) -> StylePreset:
    preset = services.preset_for(request.user, preset_id)
    current = replace(services.input_of(preset.current), note="")
    changed = {name: value for name, value in body.dict().items() if value is not None}
    services.change_preset(user=request.user, preset_id=preset_id, preset=replace(current, **changed))
    return preset


@router.get("/presets/{int:preset_id}/versions", response={200: list[VersionOut], **PROBLEMS})
def list_preset_versions(request: SignedInRequest, preset_id: int) -> QuerySet[StylePresetVersion]:
    return services.preset_for(request.user, preset_id).versions.all()
