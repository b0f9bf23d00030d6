"""Addresses of the pages."""

from django.urls import path

from apps.drafts import views

app_name = "drafts"
urlpatterns = [
    path("briefs/<int:brief_id>/", views.desk, name="desk"),
    path("briefs/<int:brief_id>/write/", views.write, name="write"),
    path("drafts/<int:draft_id>/", views.draft, name="draft"),
    path("drafts/<int:draft_id>/stop/", views.stop, name="stop"),
]
