"""Addresses of the pages."""

from django.urls import path

from apps.styles import views

app_name = "styles"
urlpatterns = [
    path("projects/<int:project_id>/presets/", views.preset_list, name="list"),
    path("projects/<int:project_id>/presets/new/", views.preset_new, name="new"),
    path("presets/<int:preset_id>/", views.preset_detail, name="detail"),
]
