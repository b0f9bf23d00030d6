"""The pages for what went wrong outside a view."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _

from apps.common.errors import Broken, Forbidden, NotFound


def forbidden(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    message = _("Your role here does not allow this. Ask an admin of the project.")
    return render(request, "errors/error.html", {"error": Forbidden("forbidden", message)}, status=403)


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    message = _("There is nothing at this address, or it belongs to a project that you are not in.")
    return render(request, "errors/error.html", {"error": NotFound("not_found", message)}, status=404)


def server_error(request: HttpRequest) -> HttpResponse:
    message = _("Something broke on our side. Nothing that was saved is lost; try again in a moment.")
    error = Broken("server_error", message)
    return render(request, "errors/error.html", {"error": error}, status=500)
