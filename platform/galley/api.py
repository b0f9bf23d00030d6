"""The JSON API under /api/v1/: every act that the pages offer, for programs."""

from typing import Any

from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI, Router
from ninja.errors import AuthenticationError, HttpError, ValidationError
from ninja.security import HttpBearer, SessionAuth

from apps.accounts.models import ApiToken, User
from apps.batches.api import router as batches
from apps.common.errors import Busy, GalleyError, Invalid
from apps.drafts.api import router as drafts
from apps.projects.api import router as projects
from apps.projects.policies import not_found
from apps.reviews.api import router as reviews
from apps.styles.api import router as styles
from apps.tuning.api import router as tuning


class BearerAuth(HttpBearer):
    """`Authorization: Bearer TOKEN`; a token comes from `manage.py create_token USERNAME`."""

    def authenticate(self, request: HttpRequest, token: str) -> User | None:
        user = ApiToken.objects.user_for(token)
        if user is not None:
            request.user = user
        return user


class GalleyAPI(NinjaAPI):
    def get_openapi_operation_id(self, operation: Any) -> str:
        return str(operation.view_func.__name__)


api = GalleyAPI(
    title="Galley",
    version="1",
    description="Briefs, drafts, reviews, training and releases. Errors carry a stable `reason`.",
    auth=[BearerAuth(), SessionAuth()],
    docs_url="/docs",
    urls_namespace="api",
)
for router, tag in [
    (projects, "projects"),
    (styles, "styles"),
    (drafts, "drafts"),
    (batches, "batches"),
    (reviews, "reviews"),
    (tuning, "training"),
]:
    api.add_router("", router, tags=[tag])


elsewhere = Router()


@elsewhere.api_operation(
    ["GET", "POST", "PUT", "PATCH", "DELETE"], "/{path:address}", include_in_schema=False
)
def no_such_address(request: HttpRequest, address: str) -> None:
    """After all routers: programs get their 404 as JSON too, not as a page."""
    raise not_found()


api.add_router("", elsewhere)


@api.exception_handler(GalleyError)
def on_galley_error(request: HttpRequest, error: GalleyError) -> HttpResponse:
    body = {"reason": error.reason, "message": error.message}
    if isinstance(error, Invalid) and error.field:
        body["field"] = error.field
    response = api.create_response(request, body, status=error.status)
    if isinstance(error, Busy):
        response["Retry-After"] = str(error.retry_after_s)
    return response


@api.exception_handler(ValidationError)
def on_validation_error(request: HttpRequest, error: ValidationError) -> HttpResponse:
    problems = [
        {"field": ".".join(map(str, item["loc"][1:])), "message": item["msg"]} for item in error.errors
    ]
    message = "; ".join(f"{problem['field']}: {problem['message']}" for problem in problems)
    body = {"reason": "invalid_input", "message": message, "problems": problems}
    return api.create_response(request, body, status=422)


@api.exception_handler(AuthenticationError)
def on_authentication_error(request: HttpRequest, error: AuthenticationError) -> HttpResponse:
    message = "Sign in, or send a token: Authorization: Bearer TOKEN."
    return api.create_response(request, {"reason": "unauthenticated", "message": message}, status=401)


@api.exception_handler(HttpError)
def on_http_error(request: HttpRequest, error: HttpError) -> HttpResponse:
    """The framework's own: a body that is no JSON."""
    message = "The body cannot be read as JSON in UTF-8."
    return api.create_response(
        request, {"reason": "invalid_json", "message": message}, status=error.status_code
    )


@api.exception_handler(RequestDataTooBig)
def on_too_big(request: HttpRequest, error: RequestDataTooBig) -> HttpResponse:
    message = "The body is too large; send the text in smaller parts."
    return api.create_response(request, {"reason": "body_too_large", "message": message}, status=413)
