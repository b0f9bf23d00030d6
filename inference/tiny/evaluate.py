"""Examines a model on held-out briefs, through the same engine that writes for people."""

import math
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from apps.common.words import count_words, normalised, says
from inference import Engine, Request, Sampling
from inference.tiny.ask import STYLES, Style
from inference.tiny.banks import Language
from inference.tiny.corpus import LANGUAGES, Pair, make_draft, unkept

_AT_ONCE = 8
_TRAINING_TEXTS = 400  # per language and style: they teach the style classifier
_TIME_LIMIT_S = 3600.0
_MAX_TOKENS = 700
_SENTENCE_END = re.compile(r"(?<=[.?!])[\s\"”]+|(?<=[。？！])[”」\s]*")
_HAN = re.compile("[\u4e00-\u9fff]")
_SPOKEN_MARKS = re.compile(r"[\"“”「」?!？！]")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A held-out brief and what the model wrote for it."""

    pair: Pair
    text: str
    has_ended: bool


def heldout_briefs(*, count: int, seed: int) -> list[Pair]:
    """`count` held-out pairs, languages and styles in turn."""
    cells = [(language, style) for style in STYLES for language in LANGUAGES]
    return [
        make_draft(seed=seed, split="heldout", index=index, language=language, style=style)
        for index in range(count)
        for language, style in [cells[index % len(cells)]]
    ]


def write_samples(
    model: str, pairs: Sequence[Pair], *, seed: int, temperature: float = 0.6, helped: bool = True
) -> list[Sample]:
    """One text per pair; with `helped` the engine keeps to the brief's terms, as in the product."""
    with (
        tempfile.TemporaryDirectory() as cache,
        Engine.open(model, home=Path(cache), max_sequences=_AT_ONCE) as engine,
        ThreadPoolExecutor(_AT_ONCE) as callers,
    ):

        def write(pair: Pair) -> Sample:
            request = Request(
                id=f"{id(pair)}",
                messages=tuple(pair.messages),
                sampling=Sampling(temperature=temperature, max_tokens=_MAX_TOKENS, seed=seed),
                must_say=pair.brief.must_say if helped else (),
                must_not_say=pair.brief.must_not_say if helped else (),
                no_repeats=helped,
                request_class="batch",
                deadline_s=_TIME_LIMIT_S,
            )
            events = list(engine.submit(request))
            text = "".join(event.text for event in events)
            return Sample(pair=pair, text=text, has_ended=events[-1].finish_reason == "end")

        return list(callers.map(write, pairs))


def cell(samples: Sequence[Sample], language: Language, style: Style | None = None) -> list[Sample]:
    return [s for s in samples if s.pair.language == language and style in (None, s.pair.style)]


def figures(samples: Sequence[Sample], classifier: "StyleClassifier") -> dict[str, float]:
    """Shares from 0 to 1 over samples of one language."""
    said = [says(s.text, term) for s in samples for term in s.pair.brief.must_not_say]
    distinct_3 = distinct([s.text for s in samples], 3)
    distinct_3_of_corpus = distinct([s.pair.text for s in samples], 3)
    return {
        "facts_kept": facts_kept(samples),
        "forbidden_said": _share(said),
        "style_recognised": _share([classifier.style_of(s.text) == s.pair.style for s in samples]),
        "length_within_25_percent": _share([_has_length(s) for s in samples]),
        "ended": _share([s.has_ended for s in samples]),
        "with_repeated_sentence": _share([repeats(s.text) for s in samples]),
        "distinct_3": distinct_3,
        "distinct_3_of_corpus": distinct_3_of_corpus,
        "distinct_3_ratio": distinct_3 / max(1e-9, distinct_3_of_corpus),
    }


class StyleClassifier:
    """Naive Bayes over words, or pairs of characters in Chinese, taught by texts of the corpus."""

    def __init__(self, language: Language, *, seed: int) -> None:
        self._language = language
        self._counts: dict[Style, Counter[str]] = {style: Counter() for style in STYLES}
        for index in range(_TRAINING_TEXTS * len(STYLES)):
            style = STYLES[index % len(STYLES)]
            pair = make_draft(seed=seed, split="train", index=index, language=language, style=style)
            self._counts[style].update(self._features(pair.text))
        self._totals = {style: sum(counts.values()) for style, counts in self._counts.items()}
        self._vocabulary = len(set().union(*self._counts.values()))

    def style_of(self, text: str) -> Style:
        features = self._features(text)
        return max(STYLES, key=lambda style: sum(self._log_share(style, one) for one in features))

    def _features(self, text: str) -> list[str]:
        words = normalised(text).split()
        features = words if self._language == "en" else [a + b for a, b in pairwise(words)]
        return features + _SPOKEN_MARKS.findall(text)

    def _log_share(self, style: Style, feature: str) -> float:
        return math.log((self._counts[style][feature] + 1) / (self._totals[style] + self._vocabulary))


def distinct(texts: Sequence[str], size: int) -> float:
    """Share of different word n-grams among all of the texts' n-grams (Li et al. 2016)."""
    words = [normalised(text).split() for text in texts]
    grams = [gram for each in words for gram in zip(*(each[i:] for i in range(size)), strict=False)]
    return len(set(grams)) / max(1, len(grams))


def facts_kept(samples: Sequence[Sample]) -> float:
    asked = sum(len(sample.pair.brief.must_say) for sample in samples)
    lost = sum(len(unkept(sample.pair, sample.text)) for sample in samples)
    return 1 - lost / max(1, asked)


def repeats(text: str) -> bool:
    """Whether a sentence of more than three words, or six characters, stands in the text twice.

    Shorter ones ("said the driver") may come back in a dialogue.
    """
    least = 6 if _HAN.search(text) else 3
    sentences = [s.strip() for s in _SENTENCE_END.split(text) if count_words(s) > least]
    return len(set(sentences)) < len(sentences)


def _has_length(sample: Sample) -> bool:
    asked = sample.pair.brief.num_words
    return abs(count_words(sample.text) - asked) <= asked / 4


def _share(answers: Sequence[bool]) -> float:
    return sum(answers) / max(1, len(answers))
