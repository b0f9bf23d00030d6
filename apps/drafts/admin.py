from django.contrib import admin

from apps.common.admin import ReadOnlyAdmin
from apps.drafts.models import Draft, Job, Worker


@admin.register(Draft)
class DraftAdmin(ReadOnlyAdmin):
    list_display = ("id", "brief", "state", "author", "num_tokens", "release", "created_at")
    list_filter = ("state",)


@admin.register(Job)
class JobAdmin(ReadOnlyAdmin):
    list_display = ("id", "draft", "state", "reason", "worker", "attempt", "deaths", "lease_until")
    list_filter = ("state", "reason")


@admin.register(Worker)
class WorkerAdmin(ReadOnlyAdmin):
    list_display = ("name", "role", "seen_at")
