"""Signing in and out."""

from django.contrib.auth import views


class SignIn(views.LoginView):
    template_name = "accounts/signin.html"
    redirect_authenticated_user = True
