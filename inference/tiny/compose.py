"""From a brief to an approved text: forms chosen from the banks, joined in the order of the style."""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal, NamedTuple

from apps.common.words import count_words
from apps.styles.prompts import BriefFields
from inference.tiny import banks
from inference.tiny.ask import Fact, Subject, agreeing
from inference.tiny.banks import Language
from inference.tiny.values import Inventor

# What a text goes through between its opening and its close. A text need not have every stage,
# but what it has stands in this order: that is its thread.
STAGES: Mapping[str, tuple[str, ...]] = {
    "news": ("background", "detail", "reaction", "outlook"),
    "fiction": ("scene", "want", "trouble", "turn", "after"),
    "marketing": ("problem", "offer", "proof", "ease"),
}
_OPENINGS = {"news": "lead", "fiction": "open", "marketing": "hook"}
_TOLERANCE = 1.06
_FRUGAL = 70  # words; below that, a text has no room for extras
_CLOSED_FROM = 50  # words; shorter texts end with their last fact
_WOMEN = ("daughter", "girl", "widow", "nurse", "woman", "sister", "mother", "女", "姑娘", "奶奶", "母")
_PRONOUNS = {"en": (("she", "her"), ("he", "his")), "zh": (("她", "她的"), ("他", "他的"))}
_LATIN = re.compile(r"[0-9A-Za-z]")
_SPOKEN = ('"', "“", "「")

Kind = Literal["head", "open", "fact", "stage", "extra", "quote", "list", "close"]


class Part(NamedTuple):
    """A piece of a text and what it is there for."""

    kind: Kind
    text: str


@dataclass(frozen=True, kw_only=True)
class Order:
    """Everything that a text depends on. `style` is one of STAGES or a genre of the general bank."""

    language: Language
    style: str
    subject: Subject
    brief: BriefFields
    facts: list[Fact]
    tone_family: str
    wants_headline: bool
    wants_list: bool


@dataclass
class Writer:
    """Writes one text. Forms and slot values are used once, so that nothing repeats."""

    order: Order
    inventor: Inventor
    fields: Mapping[str, Sequence[str]] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.rng = self.inventor.rng
        self.fields = self.fields or self.inventor.fields
        self.is_genre = self.order.style not in STAGES
        self.forms = self._bank("general" if self.is_genre else self.order.style)
        self.people = self._people()
        self.agreement = agreeing(self.order.subject)

    def _bank(self, name: str) -> Mapping[str, tuple[str, ...]]:
        return banks.sections(name, self.order.language)

    def _people(self) -> dict[str, str]:
        """Hero, second person and thing of a scene: fixed for the whole text."""
        fiction = self._bank("fiction")
        hero = self.order.subject.hero or self._new_hero(fiction["role"])
        is_woman = any(word in hero for word in _WOMEN)
        is_man = (not is_woman and self.rng.random() < 0.4) or "son" in hero.split()
        she, her = _PRONOUNS[self.order.language][is_man]
        other = self.rng.choice(fiction["other"])
        return {"hero": hero, "she": she, "her": her, "other": other, "thing": self.inventor.word("thing")}

    def _new_hero(self, roles: tuple[str, ...]) -> str:
        return self.inventor.word("first") if self.rng.random() < 0.5 else self.rng.choice(roles)

    # -- single sentences ----------------------------------------------------------------------

    def sentence(self, section: str, **given: str) -> str:
        """A finished form of the section; it is not used again in this text."""
        form = self._fresh(self._forms(section))
        text = banks.expand(form, lambda slot: given[slot] if slot in given else self.fill(slot), self.rng)
        return finished(text, self.order.language)

    def _forms(self, section: str) -> tuple[str, ...]:
        name, _, family = section.partition(":")
        if name == "tone":
            return self._bank("tone")[f"{self.order.style}.{family}"]
        return self.forms[section]

    def _fresh(self, choices: Sequence[str]) -> str:
        fresh = [choice for choice in choices if choice not in self.used]
        chosen = self.rng.choice(fresh or choices)
        self.used.add(chosen)
        return chosen

    def fill(self, slot: str) -> str:
        subject, brief = self.order.subject, self.order.brief
        fixed = {"np": subject.noun_phrase, "subject": subject.text}
        fixed |= {"audience": brief.audience, "angle": brief.angle}
        for known in (self.agreement, self.people, fixed):
            if slot in known:
                return known[slot]
        if slot in self.fields:
            return self._fresh(self.fields[slot])
        if slot in self.forms:
            return banks.expand(self._fresh(self.forms[slot]), self.fill, self.rng)
        return self.inventor(slot)

    def fact(self, fact: Fact) -> str:
        """A form around the fact; a number never runs into a name that ends like a number."""
        short = self.order.subject.short
        gap = (
            " "
            if _LATIN.match(short[-1:]) and _LATIN.match(fact.told) and self.order.language == "zh"
            else ""
        )
        return self.sentence(f"fact.{fact.shape}", fact=gap + fact.told, fact_lc=gap + fact.told_inside)

    def used_fields(self) -> dict[str, Sequence[str]]:
        """What the text has said of its topic: another text about the same says nothing else."""
        told = {
            slot: [entry for entry in entries if entry in self.used] for slot, entries in self.fields.items()
        }
        return {slot: entries or self.fields[slot] for slot, entries in told.items()}

    # -- whole texts ---------------------------------------------------------------------------

    def write(self) -> str:
        return layout(self.parts(), self.order, self.rng)

    def parts(self, *, facts_first: bool = False) -> list[Part]:
        """All pieces in order; with `facts_first` the first half of the text tells every fact."""
        order, style = self.order, self.order.style
        head = [Part("head", f"# {self.sentence('headline')}")] if order.wants_headline else []
        opening = [Part("open", self.sentence(f"{style}.open" if self.is_genre else _OPENINGS[style]))]
        facts = list(order.facts)
        listed = self._list(facts) if order.wants_list else []
        told = [Part("fact", self.fact(fact)) for fact in facts]
        extras = self._extras() + self._quote()
        close = self._close()
        fixed = [*head, *opening, *told, *listed, *extras, *close]
        filler = self._padding(sum(count_words(part.text) for part in fixed))
        for extra in extras:
            filler.insert(self.rng.randint((len(filler) + 1) // 2, len(filler)), extra)
        return [*head, *opening, *self._merge(told, filler, facts_first), *listed, *close]

    def _close(self) -> list[Part]:
        if self.order.brief.num_words < _CLOSED_FROM and self.order.style != "marketing":
            return []
        return [Part("close", self.sentence(f"{self.order.style}.close" if self.is_genre else "close"))]

    def _extras(self) -> list[Part]:
        """Sentences for audience, angle and tone, as far as the length allows."""
        brief = self.order.brief
        if brief.num_words < _FRUGAL or self.is_genre:
            return []
        wanted = [name for name in ("audience", "angle") if getattr(brief, name)]
        wanted += [f"tone:{self.order.tone_family}"] if self.order.tone_family else []
        return [Part("extra", self.sentence(section)) for section in wanted]

    def _quote(self) -> list[Part]:
        has_voice = any(fact.shape == "person" for fact in self.order.facts)
        if self.order.style != "news" or has_voice or self.order.brief.num_words < _FRUGAL:
            return []
        return [Part("quote", self.sentence("quote"))]

    def _list(self, facts: list[Fact]) -> list[Part]:
        """A Markdown list that takes the last of the facts away from the running text."""
        taken = facts[len(facts) // 2 :] if self.rng.random() < 0.7 else []
        del facts[len(facts) - len(taken) :]
        wanted = max(0, self.rng.randint(2, 4) - len(taken))
        if self.order.brief.num_words < _FRUGAL:
            wanted = min(wanted, 1)
        items = [self._as_item(fact.told) for fact in taken]
        items += [self.sentence("list.item") for _ in range(wanted)]
        lines = [self.sentence("list.intro"), "", *(f"- {item}" for item in items)]
        return [Part("list", "\n".join(lines))] if items else []

    def _as_item(self, told: str) -> str:
        return told if "." in told.split()[0] else told[0].upper() + told[1:]

    def _padding(self, spent: int) -> list[Part]:
        """Forms of the stages that fill the text up to the length asked, stage by stage."""
        stages = STAGES.get(self.order.style, (f"{self.order.style}.body",))
        limit, misses = self.order.brief.num_words, 0
        found: list[tuple[int, str]] = []
        while spent < limit * 0.96 and misses < 12:
            stage = self.rng.randrange(len(stages))
            before = set(self.used)
            text = self.sentence(stages[stage])
            if spent + count_words(text) > limit * _TOLERANCE or any(text == other for _, other in found):
                self.used, misses = before, misses + 1
                continue
            found.append((stage, text))
            spent += count_words(text)
        return [Part("stage", text) for _, text in sorted(found, key=lambda pair: pair[0])]

    def _merge(self, told: list[Part], others: list[Part], facts_first: bool) -> list[Part]:
        """Facts in the order of the brief, other sentences in theirs, mixed at random."""
        room = len(told) + (len(others) // 2 if facts_first else len(others))
        slots = sorted(self.rng.sample(range(room), len(told)))
        merged = list(others)
        for position, part in zip(slots, told, strict=True):
            merged.insert(position, part)
        return merged


def finished(text: str, language: Language) -> str:
    """Articles, capitals and full stops mended, where the language has them."""
    if language != "en":
        return text
    return banks.with_capitals(banks.with_articles(banks.with_single_stops(text)))


def layout(parts: Sequence[Part], order: Order, rng: random.Random) -> str:
    """The parts as one text: a headline and a list stand apart, and so does what follows a list."""
    apart = {"head", "list", "close"} if any(part.kind == "list" for part in parts) else {"head"}
    blocks: list[str] = []
    for stands_apart, group in groupby(parts, key=lambda part: part.kind in apart):
        run = list(group)
        blocks += [part.text for part in run] if stands_apart else _paragraphs(run, order, rng)
    return "\n\n".join(blocks)


def _paragraphs(parts: Sequence[Part], order: Order, rng: random.Random) -> list[str]:
    """Two to four sentences in a paragraph; spoken lines and lists stand alone."""
    paragraphs: list[list[str]] = [[]]
    room = rng.randint(1, 3)
    for part in parts:
        apart = part.text.startswith(_SPOKEN) or "\n" in part.text
        if paragraphs[-1] and (room <= 0 or apart):
            paragraphs.append([])
            room = rng.randint(2, 4)
        paragraphs[-1].append(part.text)
        stands_alone = "\n" in part.text or (apart and order.style == "fiction")
        room = 0 if stands_alone else room - 1
    space = " " if order.language == "en" else ""
    return [space.join(paragraph) for paragraph in paragraphs if paragraph]
