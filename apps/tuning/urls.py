"""Addresses of the pages."""

from django.urls import path

from apps.tuning import views

app_name = "tuning"
urlpatterns = [
    path("projects/<int:project_id>/training/", views.school, name="school"),
    path("projects/<int:project_id>/training/start/", views.start, name="start"),
    path("projects/<int:project_id>/training/rollback/", views.roll_back, name="roll_back"),
    path("runs/<int:run_id>/", views.run_page, name="run"),
    path("runs/<int:run_id>/stop/", views.stop, name="stop"),
    path("runs/<int:run_id>/resume/", views.resume, name="resume"),
    path("adapters/<int:adapter_id>/promote/", views.promote, name="promote"),
]
