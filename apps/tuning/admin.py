from django.contrib import admin

from apps.common.admin import ReadOnlyAdmin
from apps.tuning.models import Adapter, Dataset, NightlyRun, Release, Run, Sample


@admin.register(Run)
class RunAdmin(ReadOnlyAdmin):
    list_display = (
        "id",
        "project",
        "state",
        "phase",
        "reason",
        "step",
        "num_steps",
        "created_by",
        "created_at",
    )
    list_filter = ("state",)


@admin.register(Adapter)
class AdapterAdmin(ReadOnlyAdmin):
    list_display = ("name", "project", "gate_passed", "sha256", "created_at")


@admin.register(Release)
class ReleaseAdmin(ReadOnlyAdmin):
    list_display = ("number", "project", "kind", "adapter", "created_by", "created_at")


@admin.register(Dataset)
class DatasetAdmin(ReadOnlyAdmin):
    list_display = ("sha256", "project", "num_train", "num_heldout", "created_at")


@admin.register(Sample)
class SampleAdmin(ReadOnlyAdmin):
    list_display = ("id", "project", "decision", "split", "created_at")


@admin.register(NightlyRun)
class NightlyRunAdmin(ReadOnlyAdmin):
    list_display = ("project", "local_date", "run", "skip_reason")
