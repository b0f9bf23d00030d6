"""Addresses of the pages."""

from django.urls import path

from apps.reviews import views

app_name = "reviews"
urlpatterns = [
    path("reviews/", views.queue, name="queue"),
    path("reviews/next/", views.take_next, name="next"),
    path("reviews/<int:review_id>/", views.review_page, name="detail"),
    path("reviews/<int:review_id>/take/", views.take, name="take"),
    path("reviews/<int:review_id>/release/", views.release, name="release"),
    path("reviews/<int:review_id>/comment/", views.comment, name="comment"),
    path("drafts/<int:draft_id>/submit/", views.submit, name="submit"),
]
