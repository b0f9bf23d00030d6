"""The pages for what went wrong outside a view."""

import sys

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils.translation import gettext as _

from apps.common.errors import Broken, Forbidden, GalleyError, NotFound, Unavailable
from apps.common.middleware import API_PREFIX

RETRY_AFTER_S = 2


def forbidden(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    message = _("Your role here does not allow this. Ask an admin of the project.")
    return render(request, "errors/error.html", {"error": Forbidden("forbidden", message)}, status=403)


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    message = _("There is nothing at this address, or it belongs to a project that you are not in.")
    return render(request, "errors/error.html", {"error": NotFound("not_found", message)}, status=404)


def server_error(request: HttpRequest) -> HttpResponse:
    """Called by Django while it handles what nobody caught, from a view or from a middleware."""
    if isinstance(sys.exception(), OperationalError | InterfaceError):
        return _unavailable(request)
    message = _("Something broke on our side. Nothing that was saved is lost; try again in a moment.")
    return _answer(request, Broken("server_error", message))


def _unavailable(request: HttpRequest) -> HttpResponse:
    """The database is away, gave up on a lock, or has no connection left: all of it passes."""
    message = _("The database does not answer right now. Nothing that was saved is lost; try again shortly.")
    response = _answer(request, Unavailable("database_away", message, retry_after_s=RETRY_AFTER_S))
    response["Retry-After"] = str(RETRY_AFTER_S)
    return response


def _answer(request: HttpRequest, error: GalleyError) -> HttpResponse:
    if request.path.startswith(API_PREFIX):
        return JsonResponse({"reason": error.reason, "message": error.message}, status=error.status)
    return render(request, "errors/error.html", {"error": error}, status=error.status)
