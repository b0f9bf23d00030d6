"""From the logits of one position to one token, by the rule of llama.cpp's sampler chain.

Order and formulas are those of `inference.backends.llamacpp`, so that the settings of a request mean
the same on both backends: top-k, penalties, then (unless greedy) top-p, min-p, temperature, draw.
"""

import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Seq
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from inference.engine.wanted import TERM_PULL, Pull
from inference.types import Sampling

Floats = npt.NDArray[np.floating]
Ids = npt.NDArray[np.integer]

_MAX_TOP_K = 1000
_MIN_START_BYTES = 3
_PENALTY_WINDOW = 64  # tokens of the answer that the penalties look back on


def num_candidates(sampling: Sampling) -> int:
    """How many of the likeliest tokens `choose` wants to see; top-k sampling (Fan et al. 2018)."""
    return sampling.top_k or _MAX_TOP_K


def choose(ids: Ids, logits: Floats, *, sampling: Sampling, answer_ids: Seq[int]) -> int:
    """The next token of an answer that stands at `answer_ids`.

    `ids` and `logits` are [candidates], likeliest first, at least `num_candidates` of them where the
    vocabulary has so many. A token with a logit of -inf is never chosen while there is another.
    """
    ids, logits = ids[: num_candidates(sampling)], logits[: num_candidates(sampling)].astype(np.float64)
    logits = penalize(ids, logits, sampling=sampling, recent_ids=answer_ids[-_PENALTY_WINDOW:])
    if sampling.temperature == 0:
        return int(ids[np.argmax(logits)])
    ids, shares = narrow(ids, logits, sampling=sampling)
    return int(ids[pick(shares, uniform(sampling.seed, len(answer_ids)))])


def penalize(ids: Ids, logits: Floats, *, sampling: Sampling, recent_ids: Seq[int]) -> Floats:
    """Lower the logits [candidates] of tokens that the answer has said of late.

    The repetition penalty divides a positive logit and multiplies any other (CTRL, Keskar et al.
    2019, with the sign taken care of); those for frequency and presence subtract, the first once
    for each time that the token stands there (OpenAI's API reference).
    """
    counted = Counter(recent_ids)
    counts = np.array([counted[int(token_id)] for token_id in ids])
    penalty = sampling.repetition_penalty
    repeated = np.where(logits > 0, logits / penalty, logits * penalty)
    lowered = repeated - counts * sampling.frequency_penalty - sampling.presence_penalty
    return np.where(counts > 0, lowered, logits)


def narrow(ids: Ids, logits: Floats, *, sampling: Sampling) -> tuple[Ids, Floats]:
    """The tokens that may come next and their probabilities, both [candidates left], likeliest first."""
    order = np.argsort(-logits, kind="stable")
    ids, logits = ids[order], logits[order]
    num_left = min(num_in_nucleus(logits, sampling.top_p), num_above(logits, sampling.min_p))
    return ids[:num_left], softmax(logits[:num_left] / sampling.temperature)


def num_in_nucleus(logits: Floats, top_p: float) -> int:
    """How many of the likeliest tokens together have a probability of `top_p` (Holtzman et al. 2020).

    `logits` are [candidates], highest first; at least 1 comes back, and all for a `top_p` of 1.
    """
    if top_p >= 1:
        return len(logits)
    reached = np.cumsum(softmax(logits)) >= top_p
    return int(np.argmax(reached)) + 1 if reached.any() else len(logits)


def num_above(logits: Floats, min_p: float) -> int:
    """How many tokens are at least `min_p` times as likely as the likeliest (Nguyen et al. 2024).

    `logits` are [candidates], highest first; at least 1 comes back.
    """
    floor = logits[0] + np.log(min_p) if min_p > 0 else -np.inf
    return max(1, int(np.sum((logits >= floor) & np.isfinite(logits))))


def softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max())
    shares: Floats = powers / powers.sum()
    return shares


def pick(shares: Floats, number: float) -> int:
    """The index whose share of the interval [0, 1) the number falls into."""
    index = int(np.searchsorted(np.cumsum(shares), number, side="right"))
    return min(index, len(shares) - 1)  # rounding may leave the sum of the shares below the number


def uniform(seed: int, n: int) -> float:
    """A number in [0, 1) for draw `n`.

    It depends on (seed, n) and on nothing else, so a draft that another engine process resumes goes
    on with the very tokens that the first would have drawn.
    """
    digest = blake2b(struct.pack("<II", seed, n), digest_size=8).digest()
    return float((int.from_bytes(digest, "little") >> 11) / 2**53)  # a float has 53 bits


def pulled(pulls: Iterable[Pull], ids_of_pieces: Mapping[bytes, int], longest_piece: int) -> dict[int, float]:
    """What is added to the logits of the tokens with which terms of `must_say` go on, or begin.

    For each term it is the longest token: a shorter one leads to a division of words that the
    model has never seen, and there it loses its way. For the same reason no term is begun with
    less than three bytes.
    """
    found: dict[int, float] = {}
    for pull in pulls:
        least = _MIN_START_BYTES + pull.rest.startswith(b" ") if pull.is_start else 1
        sizes = range(min(len(pull.rest), longest_piece), least - 1, -1)
        size = next((size for size in sizes if pull.rest[:size] in ids_of_pieces), 0)
        if size:
            token_id = ids_of_pieces[pull.rest[:size]]
            found[token_id] = max(found.get(token_id, 0.0), pull.strength * TERM_PULL)
    return found
