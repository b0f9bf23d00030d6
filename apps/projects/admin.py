from django.contrib import admin

from apps.common.admin import ReadOnlyAdmin
from apps.projects.models import Brief, Membership, Project


@admin.register(Project)
class ProjectAdmin(ReadOnlyAdmin):
    list_display = ("name", "created_by", "created_at")
    search_fields = ("name",)


@admin.register(Membership)
class MembershipAdmin(ReadOnlyAdmin):
    list_display = ("project", "user", "role")
    list_filter = ("role",)


@admin.register(Brief)
class BriefAdmin(ReadOnlyAdmin):
    list_display = ("subject", "project", "preset", "num_words", "created_by", "created_at")
    search_fields = ("subject",)
