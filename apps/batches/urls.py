"""Addresses of the pages."""

from django.urls import path

from apps.batches import views

app_name = "batches"
urlpatterns = [
    path("projects/<int:project_id>/batches/", views.batch_list, name="list"),
    path("projects/<int:project_id>/batches/new/", views.upload, name="new"),
    path("projects/<int:project_id>/batches/sample.csv", views.sample, name="sample"),
    path("batches/<int:batch_id>/", views.detail, name="detail"),
    path("batches/<int:batch_id>/columns/", views.columns, name="columns"),
    path("batches/<int:batch_id>/discard/", views.discard, name="discard"),
    path("batches/<int:batch_id>/pause/", views.pause, name="pause"),
    path("batches/<int:batch_id>/resume/", views.resume, name="resume"),
    path("batches/<int:batch_id>/cancel/", views.cancel, name="cancel"),
    path("batches/<int:batch_id>/retry/", views.retry, name="retry"),
    path("batches/<int:batch_id>/results.csv", views.results_csv, name="results_csv"),
    path("batches/<int:batch_id>/results.jsonl", views.results_jsonl, name="results_jsonl"),
]
