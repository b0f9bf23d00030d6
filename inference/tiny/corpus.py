"""Pairs of brief and approved text, without end and the same for the same seed.

Pair number i of a seed and split depends on nothing else, so that any process may make any
part of the corpus.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from apps.styles.prompts import BriefFields, build_messages
from inference.chat import Message
from inference.tiny import banks
from inference.tiny.ask import STYLES, Editor, Style
from inference.tiny.compose import Order, Writer
from inference.tiny.values import Inventor, Split

_TONES = ("warm", "formal", "playful", "urgent", "quiet", "proud")
_FACT_COUNTS = (6, 14, 22, 24, 17, 9, 5, 3, 1, 1, 1)
_WORDS_PER_FACT = 13
_ATTEMPTS = 4


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A brief, the text that an editor would approve for it, and the facts in the words of the text."""

    style: Style
    style_name: str
    instructions: str
    brief: BriefFields
    text: str
    topic: str

    @property
    def messages(self) -> list[Message]:
        built = build_messages(style=self.style_name, instructions=self.instructions, brief=self.brief)
        return [{"role": message["role"], "text": message["text"]} for message in built]


def normalised(text: str) -> str:
    """Lower case, words and numbers only: the form in which a fact is looked for in a text."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def holds(text: str, phrase: str) -> bool:
    """Whether the text says the phrase in the same words; case and punctuation do not matter."""
    return f" {normalised(phrase)} " in f" {normalised(text)} "


def default_instructions(style: Style) -> str:
    return banks.sections("briefs")[f"{style}.default"][0]


def pairs(*, seed: int, split: Split, start: int = 0, tame: bool = False) -> Iterator[Pair]:
    """Pairs start, start + 1, ... without end."""
    while True:
        yield make_pair(seed=seed, split=split, index=start, tame=tame)
        start += 1


def briefs(seed: int, count: int, split: Split = "heldout") -> list[tuple[Style, BriefFields, str]]:
    """Believable briefs with an approved text each, as a demonstration needs them."""
    made = (make_pair(seed=seed, split=split, index=index, tame=True) for index in range(count))
    return [(pair.style, pair.brief, pair.text) for pair in made]


def make_pair(*, seed: int, split: Split, index: int, tame: bool = False) -> Pair:
    """One pair. A tame one has a believable brief: no made-up words, no facts about odd things."""
    rng = random.Random(f"{split}/{seed}/{index}")
    inventor = Inventor(rng, split, tame=tame)
    style = rng.choice(STYLES)
    instructions, wants_headline, wants_list = _instructions(style, rng)
    num_words = _length(rng)
    editor = Editor(inventor)
    subject = editor.subject(style)
    most = min(len(_FACT_COUNTS) - 1, max(1, num_words // _WORDS_PER_FACT))
    count = min(most, rng.choices(range(len(_FACT_COUNTS)), _FACT_COUNTS)[0])
    facts = editor.facts(subject, count)
    tone_family = rng.choice(_TONES) if rng.random() < 0.5 else ""
    brief = BriefFields(
        subject=subject.text,
        audience=_field("audience", 0.45, inventor),
        angle=_field("angle", 0.4, inventor),
        tone=_field(f"tone.{tone_family}", 1.0, inventor) if tone_family else "",
        must_say=tuple(fact.asked for fact in facts),
        num_words=num_words,
    )
    order = Order(
        style=style,
        subject=subject,
        brief=brief,
        facts=facts,
        tone_family=tone_family,
        wants_headline=wants_headline,
        wants_list=wants_list,
    )
    brief, text = _write(order, inventor)
    name = rng.choice(banks.sections("briefs")["custom"]) if instructions and rng.random() < 0.05 else style
    return Pair(
        style=style, style_name=name, instructions=instructions, brief=brief, text=text, topic=inventor.topic
    )


def _instructions(style: Style, rng: random.Random) -> tuple[str, bool, bool]:
    """Instructions of the preset, and whether they ask for a headline and for a list."""
    bank = banks.sections("briefs")
    kinds = {"news": ("plain", "headline"), "fiction": ("plain",), "marketing": ("plain", "list")}[style]
    kind = rng.choice(("default", "default", "empty", *kinds))
    text = rng.choice(bank[f"{style}.{kind}"]) if kind != "empty" else ""
    if rng.random() < 0.2:
        text = f"{text} {rng.choice(bank['extra'])}".strip()
    open_choice = style == "marketing" and kind in ("default", "empty")
    wants_list = kind == "list" or (open_choice and rng.random() < 0.5)
    return text, kind in ("headline", "list"), wants_list


def _length(rng: random.Random) -> int:
    if rng.random() < 0.8:
        return rng.choice(
            (40, 50, 60, 60, 70, 80, 80, 90, 100, 100, 110, 120, 120, 120, 130, 140, 150, 160, 180, 200)
        )
    return rng.randint(40, 200)


def _field(section: str, share: float, inventor: Inventor) -> str:
    if inventor.rng.random() >= share:
        return ""
    return banks.with_articles(_phrase(section, inventor))


def _phrase(section: str, inventor: Inventor) -> str:
    forms = inventor.believable(banks.sections("briefs")[section])
    return banks.expand(inventor.rng.choice(forms), inventor, inventor.rng)


def _write(order: Order, inventor: Inventor) -> tuple[BriefFields, str]:
    """The text, and the brief with forbidden words that the text avoids and a length that it has."""
    text = Writer(order, inventor).write()
    forbidden = _forbidden(order, text, inventor) if inventor.rng.random() < 0.4 else ()
    for _ in range(_ATTEMPTS):
        if not any(holds(text, term) for term in forbidden):
            break
        text = Writer(order, inventor).write()
    kept = tuple(term for term in forbidden if not holds(text, term))
    asked, has = order.brief.num_words, len(text.split())
    num_words = asked if abs(has - asked) <= 0.1 * asked else 10 * max(1, round(has / 10))
    return replace(order.brief, must_not_say=kept, num_words=num_words), text


def _forbidden(order: Order, text: str, inventor: Inventor) -> tuple[str, ...]:
    """One to three terms: some from the bank, some that the first attempt has used."""
    rng = inventor.rng
    bound = " ".join(
        (
            order.subject.text,
            order.subject.noun_phrase,
            order.subject.hero,
            order.brief.audience,
            order.brief.angle,
            *order.brief.must_say,
        )
    )
    used = [word for word in set(re.findall(r"[a-z]{5,}", text)) if not holds(bound, word)]
    terms = []
    for _ in range(rng.randint(1, 3)):
        if used and rng.random() < 0.4:
            terms.append(rng.choice(sorted(used)))
        else:
            terms.append(_phrase("forbidden", inventor))
    return tuple(dict.fromkeys(term for term in terms if not holds(bound, term)))


def unkept(pair: Pair, text: str) -> list[str]:
    """Must-say facts of the pair's brief that the text does not hold."""
    return [fact for fact in pair.brief.must_say if not holds(text, fact)]
