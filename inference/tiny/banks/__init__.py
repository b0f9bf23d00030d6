"""Hand-written forms. A form is a line of text with {slots} and (this|or that) choices."""

import random
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Literal

Fill = Callable[[str], str]
"""Slot name -> text, asked once for every occurrence of the slot."""

Form = tuple[str | tuple[str, ...], ...]
"""Parts of a form: text with slots, or a tuple of texts to choose from."""

Language = Literal["en", "zh"]

_HERE = Path(__file__).parent
_CHOICE = re.compile(r"\(([^()]*\|[^()]*)\)")
_SLOT = re.compile(r"\{(\w+)\}")
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiouAEIO])(?!uni|use|eu|one|Eu|One)")
_DOUBLE_STOP = re.compile(r"(?<!\.)\.\.(?!\.)")
_WORD = {"en": re.compile(r"[a-z]{2,}"), "zh": re.compile(r"[\u4e00-\u9fff]{1,4}")}
_SENTENCE_START = re.compile(r'(^"?|[.?!] "?|\n"?)([a-z])(?![\w-]*\.\w)')


@cache
def sections(name: str, language: Language) -> dict[str, tuple[str, ...]]:
    """The lines of a bank file by section; `#` lines are comments."""
    found: dict[str, list[str]] = {}
    for raw in (_HERE / language / f"{name}.txt").read_text("utf-8").splitlines():
        line = raw.strip()
        if line.startswith("[") and line.endswith("]"):
            current = found.setdefault(line[1:-1], [])
        elif line and not line.startswith("#"):
            current.append(line.replace("\\n", "\n"))
    return {section: tuple(lines) for section, lines in found.items()}


@cache
def words(section: str, language: Language) -> tuple[str, ...]:
    """A list of words.txt: separated by semicolons where entries have spaces, else by spaces."""
    text = " ".join(sections("words", language)[section])
    return tuple(text.split(";") if ";" in text else text.split())


@cache
def all_words(language: Language) -> tuple[str, ...]:
    """Every different run of letters of the banks in lower case, in order."""
    texts = (path.read_text("utf-8").lower() for path in sorted((_HERE / language).glob("*.txt")))
    found = {word for text in texts for word in _WORD[language].findall(text)}
    return tuple(sorted(found))


@cache
def topics(language: Language) -> dict[str, dict[str, tuple[str, ...]]]:
    """Topic name -> field (head, user, part, act, good, need) -> entries."""
    return {
        name: {
            field: tuple(entry.strip() for entry in entries.split(";"))
            for field, entries in (line.split(":", 1) for line in lines)
        }
        for name, lines in sections("topics", language).items()
    }


@cache
def _parse(form: str) -> Form:
    pieces = _CHOICE.split(form)
    return tuple(tuple(piece.split("|")) if i % 2 else piece for i, piece in enumerate(pieces))


def slots(form: str) -> list[str]:
    return _SLOT.findall(form)


def expand(form: str, fill: Fill, rng: random.Random) -> str:
    """The form with choices made and slots filled."""
    text = "".join(part if isinstance(part, str) else rng.choice(part) for part in _parse(form))
    return _SLOT.sub(lambda slot: fill(slot[1]), text)


def with_articles(text: str) -> str:
    return _ARTICLE.sub(r"\1n ", text)


def with_single_stops(text: str) -> str:
    """One full stop where an abbreviation or a date ends the sentence."""
    return _DOUBLE_STOP.sub(".", text)


def with_capitals(text: str) -> str:
    """First letters of sentences in upper case; web addresses stay as they are."""
    return _SENTENCE_START.sub(lambda found: found[1] + found[2].upper(), text)
