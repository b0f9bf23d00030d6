from django.contrib import admin

from apps.common.admin import ReadOnlyAdmin
from apps.styles.models import StylePreset, StylePresetVersion


@admin.register(StylePreset)
class StylePresetAdmin(ReadOnlyAdmin):
    list_display = ("name", "kind", "project")
    list_filter = ("kind",)


@admin.register(StylePresetVersion)
class StylePresetVersionAdmin(ReadOnlyAdmin):
    list_display = ("preset", "number", "temperature", "note", "created_by", "created_at")
