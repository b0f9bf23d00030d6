"""What the routers of all apps share."""

from ninja import Schema


class Problem(Schema):
    """Every 4xx: a stable reason for programs, a sentence for people."""

    reason: str
    message: str


PROBLEMS = {400: Problem, 401: Problem, 403: Problem, 404: Problem, 409: Problem, 422: Problem, 429: Problem}
