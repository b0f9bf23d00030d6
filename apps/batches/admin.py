from django.contrib import admin

from apps.batches.models import Batch, BatchRow
from apps.common.admin import ReadOnlyAdmin


@admin.register(Batch)
class BatchAdmin(ReadOnlyAdmin):
    list_display = ("id", "name", "project", "owner", "state", "created_at")
    list_filter = ("state",)


@admin.register(BatchRow)
class BatchRowAdmin(ReadOnlyAdmin):
    list_display = ("id", "batch", "number", "state", "tries", "error")
    list_filter = ("state",)
