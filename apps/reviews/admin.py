from django.contrib import admin

from apps.common.admin import ReadOnlyAdmin
from apps.reviews.models import Decision, Review


@admin.register(Review)
class ReviewAdmin(ReadOnlyAdmin):
    list_display = ("id", "draft", "round", "submitted_by", "submitted_at", "claimed_by")


@admin.register(Decision)
class DecisionAdmin(ReadOnlyAdmin):
    list_display = ("review", "decision", "decided_by", "decided_at")
    list_filter = ("decision",)
