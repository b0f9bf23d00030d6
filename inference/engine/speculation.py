"""Guesses at the next tokens, so that one forward pass can check several of them."""

from collections.abc import Sequence as Seq

from inference.engine.costs import CostTable

_GRAM = 3  # tokens that have to be the same before what followed them is tried again
_PRIOR_HITS, _PRIOR_MISSES = 2.0, 1.0
_DECAY = 0.9  # of what was learned, with every step that guesses
_RECOVERY = 0.02  # towards the prior, with every step that does not
_MIN_GAIN = 1.1


class PromptLookup:
    """Prompt lookup decoding (Saxena 2023): what followed the same tokens before follows again.

    It pays where a given text is worked on: shortened, continued, put into another style. What is
    checked is drawn as it would be without guesses, so they change how fast a text comes and not
    what it says. `share` is how many of the guesses came true lately.
    """

    def __init__(self) -> None:
        self._followed: dict[tuple[int, ...], int] = {}  # where the last of the same tokens ended
        self._num_seen = _GRAM
        self._hits, self._misses = _PRIOR_HITS, _PRIOR_MISSES

    @property
    def share(self) -> float:
        return self._hits / (self._hits + self._misses)

    def guess(self, ids: Seq[int], most: int) -> tuple[int, ...]:
        """Up to `most` tokens that may follow `ids`; none when the last ones are new."""
        self._num_seen = min(self._num_seen, len(ids))  # some may have been taken back
        for end in range(self._num_seen, len(ids)):
            self._followed[tuple(ids[end - _GRAM : end])] = end
        self._num_seen = max(_GRAM, len(ids))
        last = tuple(ids[-_GRAM:])
        end = self._followed.get(last, len(ids))
        is_same = tuple(ids[end - _GRAM : end]) == last
        return tuple(ids[end : end + most]) if is_same else ()

    def learn(self, *, num_guessed: int, num_true: int) -> None:
        """A guess behind a wrong one was never tried and tells nothing."""
        num_wrong = 1 if num_true < num_guessed else 0
        self._hits = _DECAY * self._hits + num_true
        self._misses = _DECAY * self._misses + num_wrong

    def rest(self) -> None:
        """Called for a step without guesses: another part of the text may follow the given one again."""
        self._hits += _RECOVERY * (_PRIOR_HITS - self._hits)
        self._misses += _RECOVERY * (_PRIOR_MISSES - self._misses)


def worthwhile(share: float, costs: CostTable, *, num_rows: int, most: int) -> int:
    """How many guesses of one text bring the most tokens per millisecond beside `num_rows` rows.

    With a share p of true guesses, k of them bring 1 + p + p^2 + ... + p^k tokens (Leviathan, Kalman
    and Matias 2023, section 3.1). 0 when even the best number gains less than a tenth.
    """
    best, best_rate = 0, _MIN_GAIN
    tokens, alone = 1.0, costs.of(num_rows)
    for number in range(1, most + 1):
        tokens += share**number
        rate = tokens * alone / costs.of(num_rows + number)
        if rate > best_rate:
            best, best_rate = number, rate
    return best
