"""What the person at the terminal sees: a line for each step with its seconds, and notices."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

SIGN_OF_LIFE_EVERY_S = 10.0


class Report:
    """Prints `  title ... 10 s ... 20 s ... 23.4 s`, and keeps notices on lines of their own."""

    def __init__(self) -> None:
        self._line_is_open = False
        self._started_at = 0.0
        self._next_sign_at = 0.0

    def say(self, line: str) -> None:
        self._close_line()
        _write(f"{line}\n")

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        self._close_line()
        self._started_at = time.monotonic()
        self._next_sign_at = self._started_at + SIGN_OF_LIFE_EVERY_S
        _write(f"  {title} ...")
        self._line_is_open = True
        try:
            yield
            prefix = "" if self._line_is_open else f"  {title} ..."
            _write(f"{prefix} {self._seconds():.1f} s\n")
            self._line_is_open = False
        finally:
            self._close_line()

    def tick(self) -> None:
        """Called while a step waits: a sign of life every few seconds."""
        if self._line_is_open and time.monotonic() >= self._next_sign_at:
            self._next_sign_at += SIGN_OF_LIFE_EVERY_S
            _write(f" {self._seconds():.0f} s ...")

    def _seconds(self) -> float:
        return time.monotonic() - self._started_at

    def _close_line(self) -> None:
        if self._line_is_open:
            _write("\n")
            self._line_is_open = False


def _write(text: str) -> None:
    with suppress(OSError):  # the terminal is gone; that is no reason to leave parts behind
        sys.stdout.write(text)
        sys.stdout.flush()
