"""What a forward pass costs by the number of its tokens, as measured on this machine."""

from bisect import bisect_right
from collections.abc import Mapping


class CostTable:
    """Milliseconds by number of tokens; between measured sizes it is a straight line.

    The cost of a batch is a staircase on a CPU (kernels take rows by fours or sixteens), so the
    sizes just below a step are the good ones, and only measuring finds them.
    """

    def __init__(self, milliseconds: Mapping[int, float]) -> None:
        """`milliseconds` needs two sizes at least. Raises ValueError."""
        if len(milliseconds) < 2:
            raise ValueError("a cost table needs two measured sizes")
        self._sizes = sorted(milliseconds)
        # A larger batch that was measured as cheaper makes every smaller one as cheap as itself.
        costs = [milliseconds[size] for size in self._sizes]
        for i in reversed(range(len(costs) - 1)):
            costs[i] = min(costs[i], costs[i + 1])
        self._costs = costs

    def of(self, num_tokens: int) -> float:
        """Milliseconds of a pass over so many tokens."""
        i = min(max(bisect_right(self._sizes, num_tokens), 1), len(self._sizes) - 1)
        low, high = self._sizes[i - 1], self._sizes[i]
        slope = (self._costs[i] - self._costs[i - 1]) / (high - low)
        return max(self._costs[0], self._costs[i - 1] + slope * (num_tokens - low))

    def most_within(self, milliseconds: float, *, least: int, most: int) -> int:
        """The largest number of tokens from `least` to `most` that does not cost more."""
        low, high = least, most
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.of(middle) <= milliseconds else (low, middle - 1)
        return low


UNMEASURED = CostTable({1: 1.0, 33: 2.0})
"""For a backend that measures nothing: 32 tokens cost as much again as one alone."""
