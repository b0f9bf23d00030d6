from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import Group

from apps.accounts.models import ApiToken, User
from apps.common.admin import ReadOnlyAdmin

admin.site.unregister(Group)
admin.site.register(User, UserAdmin)
admin.site.site_header = "Galley"


@admin.register(ApiToken)
class ApiTokenAdmin(ReadOnlyAdmin):
    list_display = ("name", "user", "created_at", "last_used_at", "revoked_at")
    exclude = ("sha256",)
