"""Examines a model on held-out briefs, through the same engine that writes for people."""

import math
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from inference import Engine, Request, Sampling
from inference.tiny.ask import STYLES, Style
from inference.tiny.corpus import Pair, holds, make_pair, unkept

_AT_ONCE = 8
_TRAINING_TEXTS = 1500  # pairs of the training split that teach the style classifier
_TIME_LIMIT_S = 3600.0
_MAX_TOKENS = 700


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A held-out brief and what the model wrote for it."""

    pair: Pair
    text: str
    has_ended: bool


def write_samples(model: str, *, count: int, seed: int, temperature: float = 0.6) -> list[Sample]:
    """One text for each of the first `count` held-out briefs of a seed."""
    pairs = [make_pair(seed=seed, split="heldout", index=index) for index in range(count)]
    with (
        tempfile.TemporaryDirectory() as cache,
        Engine.open(model, home=Path(cache), max_sequences=_AT_ONCE) as engine,
        ThreadPoolExecutor(_AT_ONCE) as callers,
    ):

        def write(pair: Pair) -> Sample:
            sampling = Sampling(temperature=temperature, max_tokens=_MAX_TOKENS, seed=seed)
            request = Request(
                id=f"{id(pair)}",
                messages=tuple({"role": m["role"], "text": m["text"]} for m in pair.messages),
                sampling=sampling,
                request_class="batch",
                deadline_s=_TIME_LIMIT_S,
            )
            events = list(engine.submit(request))
            text = "".join(event.text for event in events)
            return Sample(pair=pair, text=text, has_ended=events[-1].finish_reason == "end")

        return list(callers.map(write, pairs))


def figures(samples: Sequence[Sample], *, seed: int) -> dict[str, float]:
    """Shares from 0 to 1 over all samples; facts also for every style."""
    classifier = StyleClassifier(_training_pairs(seed))
    forbidden = [holds(s.text, term) for s in samples for term in s.pair.brief.must_not_say]
    return {
        "facts_kept": _facts_kept(samples),
        **{
            f"facts_kept_{style}": _facts_kept([s for s in samples if s.pair.style == style])
            for style in STYLES
        },
        "forbidden_said": _share(forbidden),
        "style_recognised": _share([classifier.style_of(s.text) == s.pair.style for s in samples]),
        "length_within_25_percent": _share([_has_length(s) for s in samples]),
        "ended": _share([s.has_ended for s in samples]),
        "with_repeated_sentence": _share([_repeats(s.text) for s in samples]),
        "distinct_3": distinct([s.text for s in samples], 3),
        "distinct_3_of_corpus": distinct([s.pair.text for s in samples], 3),
    }


class StyleClassifier:
    """Naive Bayes over words, taught by texts of the corpus."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self._counts: dict[Style, Counter[str]] = {style: Counter() for style in STYLES}
        for pair in pairs:
            self._counts[pair.style].update(_words(pair.text))
        self._totals = {style: sum(counts.values()) for style, counts in self._counts.items()}
        self._vocabulary = len(set().union(*self._counts.values()))

    def style_of(self, text: str) -> Style:
        words = _words(text)
        return max(STYLES, key=lambda style: sum(self._log_share(style, word) for word in words))

    def _log_share(self, style: Style, word: str) -> float:
        return math.log((self._counts[style][word] + 1) / (self._totals[style] + self._vocabulary))


def distinct(texts: Sequence[str], size: int) -> float:
    """Share of different word n-grams among all of the texts' n-grams (Li et al. 2016)."""
    grams = [gram for text in texts for gram in zip(*(_words(text)[i:] for i in range(size)), strict=False)]
    return len(set(grams)) / max(1, len(grams))


def _training_pairs(seed: int) -> list[Pair]:
    return [make_pair(seed=seed, split="train", index=index) for index in range(_TRAINING_TEXTS)]


def _facts_kept(samples: Sequence[Sample]) -> float:
    asked = sum(len(sample.pair.brief.must_say) for sample in samples)
    lost = sum(len(unkept(sample.pair, sample.text)) for sample in samples)
    return 1 - lost / max(1, asked)


def _has_length(sample: Sample) -> bool:
    asked = sample.pair.brief.num_words
    return abs(len(sample.text.split()) - asked) <= asked / 4


def _repeats(text: str) -> bool:
    sentences = [s for s in re.split(r"(?<=[.?!])[\s\"]+", text) if len(s.split()) > 3]
    return len(set(sentences)) < len(sentences)


def _words(text: str) -> list[str]:
    return re.findall(r"[\w#'-]+|[\"?!]", text.casefold())


def _share(answers: Sequence[bool]) -> float:
    return sum(answers) / max(1, len(answers))
