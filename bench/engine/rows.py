"""Rows with a bar, and rows for what could not be compared."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from bench.bursts import Side
from bench.form import Row
from bench.peers import PeerError


def at_least(claim: str, figure: float, bar: float, *, unit: str = "x", peer: str = "") -> Row:
    return Row(claim=claim, figure=figure, unit=unit, peer=peer, bar=f">= {bar:.4g}", holds=figure >= bar)


def at_most(claim: str, figure: float, bar: float, *, unit: str = "x", peer: str = "") -> Row:
    return Row(claim=claim, figure=figure, unit=unit, peer=peer, bar=f"<= {bar:.4g}", holds=figure <= bar)


def not_compared(claim: str, bar: str, reason: object) -> Row:
    """A bar that nothing was held against does not hold."""
    return Row(claim=claim, figure=0.0, unit="not measured", peer=str(reason), bar=bar, holds=False)


class Peers:
    """Those that could be opened, by name, and why the others could not."""

    def __init__(self, stack: ExitStack, *openers: Callable[[], Side]) -> None:
        self.open: dict[str, Side] = {}
        self.missing: dict[str, PeerError] = {}
        for opener in openers:
            peer = opener()
            try:
                self.open[peer.name] = stack.enter_context(peer)
            except PeerError as error:
                self.missing[peer.name] = error

    def absent(self, claim: str) -> list[Row]:
        """A row for each missing peer, where it would only have stood beside the engine."""
        return [
            not_compared(f"{name}, {claim}", "to be compared", error) for name, error in self.missing.items()
        ]

    def rows(self, claims: Sequence[tuple[str, str]], name: str) -> list[Row]:
        """One row for each (claim, bar) that the missing peer `name` leaves open."""
        return [not_compared(claim, bar, self.missing[name]) for claim, bar in claims]
