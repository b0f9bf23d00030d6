"""Addresses of the pages."""

from django.urls import path

from apps.projects import views

app_name = "projects"
urlpatterns = [
    path("", views.project_list, name="list"),
    path("projects/new/", views.project_new, name="new"),
    path("projects/<int:project_id>/", views.project_detail, name="detail"),
    path("projects/<int:project_id>/members/", views.member_list, name="members"),
    path("projects/<int:project_id>/members/change/", views.member_change, name="member_change"),
    path(
        "projects/<int:project_id>/members/<int:member_id>/remove/", views.member_remove, name="member_remove"
    ),
    path("projects/<int:project_id>/briefs/new/", views.brief_new, name="brief_new"),
    path("briefs/<int:brief_id>/edit/", views.brief_edit, name="brief_edit"),
]
