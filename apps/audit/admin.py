from django.contrib import admin

from apps.audit.models import AuditEvent
from apps.common.admin import ReadOnlyAdmin


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyAdmin):
    list_display = ("id", "at", "actor", "action", "object_type", "object_id", "project_id")
    list_filter = ("action",)
    search_fields = ("object_id", "actor__username")
    ordering = ("-id",)
