"""What the routers of all apps share."""

from ninja import Schema


class Problem(Schema):
    """Every 4xx and the 503: a stable reason for programs, a sentence for people."""

    reason: str
    message: str


PROBLEMS = dict.fromkeys((400, 401, 403, 404, 409, 422, 429, 503), Problem)
