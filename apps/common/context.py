"""What every page shows around its own content."""

from typing import Any

from django.http import HttpRequest


def navigation(request: HttpRequest) -> dict[str, Any]:
    """`section` names the part of the product that the address belongs to, for the marked menu entry."""
    match = request.resolver_match
    return {"section": match.app_name if match else ""}
