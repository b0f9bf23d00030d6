"""What can go wrong in what people do. The API and the pages turn each into its status.

GalleyError
├── Invalid       400  the input cannot be taken; nothing was stored
├── Forbidden     403  a member without the role that the act needs
├── NotFound      404  absent, or another project's: the two are not told apart
├── Conflict      409  the row changed since it was read; `reason` says how
├── Busy          429  a limit is reached; come back after `retry_after_s`
├── Unavailable   503  the database is away or a row is held by somebody; the same
└── Broken        500  our fault

`reason` is a stable code for programs, the message a sentence for people.
"""


class GalleyError(Exception):
    status = 400

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = str(message)


class Invalid(GalleyError):
    """`field` names the form field at fault, where there is one."""

    def __init__(self, reason: str, message: str, *, field: str = "") -> None:
        super().__init__(reason, message)
        self.field = field


class Forbidden(GalleyError):
    status = 403


class NotFound(GalleyError):
    status = 404


class Conflict(GalleyError):
    status = 409


class Busy(GalleyError):
    status = 429

    def __init__(self, reason: str, message: str, *, retry_after_s: int) -> None:
        super().__init__(reason, message)
        self.retry_after_s = retry_after_s


class Unavailable(Busy):
    status = 503


class Broken(GalleyError):
    status = 500
