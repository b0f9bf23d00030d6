"""Who gets in, and how errors of services become pages."""

from collections.abc import Callable
from typing import Any

from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from apps.common.errors import GalleyError

API_PREFIX = "/api/"


class PageLoginMiddleware(LoginRequiredMiddleware):
    """Every page asks for a sign-in unless it says otherwise; the API answers 401 by itself."""

    def process_view(
        self, request: HttpRequest, view_func: Callable[..., Any], view_args: Any, view_kwargs: Any
    ) -> Any:
        if request.path.startswith(API_PREFIX):
            return None
        return super().process_view(request, view_func, view_args, view_kwargs)


class ErrorPageMiddleware:
    """A GalleyError that a view let through: its sentence on a page of its status."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if not isinstance(error, GalleyError):
            return None
        return render(request, "errors/error.html", {"error": error}, status=error.status)
