"""Addresses of the pages."""

from django.contrib.auth.views import LogoutView
from django.urls import path

from apps.accounts import views

app_name = "accounts"
urlpatterns = [
    path("signin/", views.SignIn.as_view(), name="signin"),
    path("signout/", LogoutView.as_view(), name="signout"),
]
