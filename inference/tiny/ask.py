"""What editors ask for: subjects, and facts in the many shapes in which people type them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from inference.tiny import banks
from inference.tiny.values import Inventor

Style = Literal["news", "fiction", "marketing"]

STYLES: tuple[Style, ...] = ("news", "fiction", "marketing")

_EVENTS = (
    *("opening", "reopening", "launch", "renovation", "extension", "closure", "relocation", "rescue"),
    *("sale", "presentation", "return", "anniversary", "planning", "start", "revival", "future"),
    *("story", "unveiling", "founding", "restoration"),
)
_MODIFIERS: tuple[tuple[str, ...], ...] = (
    *((), ("adjective",), ("adjective",), ("adjective", "adjective"), ("rare",), ("adjective", "rare")),
    *(("town",), ("odd",), ("noun",), ("wild",), ("wild", "wild")),
)
_TAILS = (
    *("in {town}", "on {street}", "at {place}", "for {user}"),
    *("by the river", "near {town}", "with {rare}"),
)
_DEEDS = ("finds", "loses", "steals", "repairs", "inherits", "sells", "hides", "remembers")
_FATES = ("forgotten", "closed", "sold", "rebuilt", "found again", "given away", "promised")
SHAPES: dict[str, int] = {
    "sentence": 34, "clause": 12, "verb": 10, "person": 9, "thing": 11, "date": 5,
    "when": 4, "place": 4, "at": 3, "label": 5, "odd": 7,
}  # fmt: skip
# Facts that begin with one of these keep their capital inside a sentence.
_OWN_CAPITAL = ("{person", "{title", "{org", "{town", "{Odd", "{first")
_TAME_MODIFIERS: tuple[tuple[str, ...], ...] = ((), ("adjective",), ("adjective",), ("town",))
_JOINTS = (" and ", ", and ", ", so ", " because ")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a text is about: as the editor typed it, and as a sentence needs it."""

    text: str
    noun_phrase: str
    short: str
    plural: bool
    hero: str = ""


@dataclass(frozen=True, kw_only=True)
class Fact:
    """`asked` stands in the brief; `told` is what the text says, `told_inside` within a sentence."""

    shape: str
    asked: str
    told: str
    told_inside: str


class Editor(ABC):
    """Thinks up subjects and facts, with the words of an inventor; believable ones if that is tame."""

    def __init__(self, invent: Inventor) -> None:
        self.invent = invent
        self.rng = invent.rng

    @abstractmethod
    def subject(self, style: str) -> Subject: ...

    def facts(self, subject: Subject, count: int) -> list[Fact]:
        """Up to `count` facts of those that come to mind, none of which is part of another."""
        found: list[Fact] = []
        for _ in range(count * 3):
            if len(found) == count:
                break
            fact = self._fact(subject)
            if not any(fact.told in other.told or other.told in fact.told for other in found):
                found.append(fact)
        return found

    @abstractmethod
    def _fact(self, subject: Subject) -> Fact: ...


class EnglishEditor(Editor):
    def subject(self, style: str) -> Subject:
        if style == "fiction" and not self.invent.tame and self.rng.random() < 0.6:
            return self._story_subject()
        head, plural = self._head()
        core = " ".join([*self._modifiers(), head])
        if not plural and self.rng.random() < 0.14:
            return self._clause_subject(core, head)
        if not plural and self.rng.random() < 0.3:
            return self._event_subject(core, head)
        return self._thing_subject(core, head, plural)

    def _head(self) -> tuple[str, bool]:
        odd_share = 0.6 if self.invent.topic == "generic" else 0.12
        if not self.invent.tame and self.rng.random() < odd_share:
            return self.invent(self.rng.choice(("noun", "rare", "wild"))), False
        head = self.rng.choice(self.invent.fields["head"])
        return head.rstrip("*"), head.endswith("*")

    def _modifiers(self) -> list[str]:
        chosen = self.rng.choice(_TAME_MODIFIERS if self.invent.tame else _MODIFIERS)
        words = [self.invent("Odd" if slot == "odd" else slot) for slot in chosen]
        return list(dict.fromkeys(words))

    def _event_subject(self, core: str, head: str) -> Subject:
        event = self.rng.choice(_EVENTS)
        if self.rng.random() < 0.25:
            plain = f"{core} {event}"
        else:
            plain = f"{event} of {self.rng.choice(('the', 'the', 'a'))} {core}"
        plain = banks.with_articles(plain + self._tail(0.2))
        return Subject(
            text=self._as_typed(plain), noun_phrase=f"the {plain}", short=f"the {head}", plural=False
        )

    def _clause_subject(self, core: str, head: str) -> Subject:
        """Subjects with a comma, a relative clause, a colon or an abbreviation, as people type them."""
        shape, article = self.rng.randrange(4), self.rng.choice(("the", "a"))
        if shape == 0:
            name = f"{self.invent('Odd')} {self.rng.choice(('Pro ', 'Mini ', ''))}{self.rng.randint(1, 9)}"
            text = f"{name}, the {core} that lets {self.invent('user')} {self.invent('act')}"
        elif shape == 1:
            text = f"{article} {core} where {self.invent('user')} can {self.invent('act')}"
        elif shape == 2:
            saint = f"{self.rng.choice(('St.', 'Dr.', 'Mt.', 'No.'))} {self.invent('first')}"
            where = self.rng.choice(("near", "north of", "close to"))
            text = f"the {saint} {head}, {where} {self.invent('town')}"
        else:
            text = f"{article} {core} that was {self.rng.choice(_FATES)} in {self.invent('year')}"
        text = banks.with_articles(text)
        return Subject(text=self._as_typed(text), noun_phrase=text, short=f"the {head}", plural=False)

    def _thing_subject(self, core: str, head: str, plural: bool) -> Subject:
        core += self._tail(0.3)
        article = self.rng.choice(("", "", "the", "the") if plural else ("", "", "the", "a"))
        noun_phrase = banks.with_articles(f"{article or 'the'} {core}")
        typed = noun_phrase if article else core
        if self.rng.random() < 0.08:
            core = core.title()
            typed, noun_phrase = core, f"the {core}"
        return Subject(
            text=self._as_typed(typed), noun_phrase=noun_phrase, short=f"the {head}", plural=plural
        )

    def _tail(self, share: float) -> str:
        if self.rng.random() >= share:
            return ""
        return " " + banks.expand(self.rng.choice(self.invent.believable(_TAILS)), self.invent, self.rng)

    def _story_subject(self) -> Subject:
        first = self.invent("first")
        noun = self.invent(self.rng.choice(("noun", "rare", "thing", "wild")))
        described = " ".join([*self._modifiers(), noun])
        role = self.rng.choice(banks.sections("fiction", "en")["role"])
        shape, hero = self.rng.randrange(6), ""
        if shape == 0:
            text, noun_phrase, hero = f"{first} and the {described}", f"the {described}", first
        elif shape == 1:
            text, noun_phrase, hero = f"{first}'s {described}", f"{first}'s {described}", first
        elif shape == 2:
            deed = f"{role.removeprefix('the ')} {self.rng.choice(_DEEDS)} a {described}"
            text, noun_phrase, hero = self._as_typed(banks.with_articles(deed)), f"the {described}", role
        else:
            noun_phrase = self._story_phrase(shape, described)
            text = self._as_typed(noun_phrase)
        return Subject(text=text, noun_phrase=noun_phrase, short=f"the {noun}", plural=False, hero=hero)

    def _story_phrase(self, shape: int, described: str) -> str:
        if shape == 3:
            return f"the last {described} in {self.invent('town')}"
        if shape == 4:
            return banks.with_articles(f"a {described} in {self.invent('town')}")
        return f"the {described}{self._tail(0.4)}"

    def _as_typed(self, text: str) -> str:
        return text if self.rng.random() < 0.15 else text[0].upper() + text[1:]

    def _fact(self, subject: Subject) -> Fact:
        shape = self.rng.choices(tuple(SHAPES), tuple(SHAPES.values()))[0]
        if self.invent.tame and shape == "odd":
            shape = "sentence"
        form = self.rng.choice(self.invent.believable(banks.sections("facts", "en")[shape]))
        agreement = agreeing(subject)
        told = self._expand(form, lambda slot: agreement[slot] if slot in agreement else self.invent(slot))
        inside = told
        if shape == "sentence" and not form.startswith(_OWN_CAPITAL):
            inside = told[0].lower() + told[1:]
        if shape == "sentence" and not self.invent.tame and self.rng.random() < 0.12:
            joint = self.rng.choice(_JOINTS)
            clause = self._expand(self.rng.choice(banks.sections("facts", "en")["clause"]), self.invent)
            told, inside = told + joint + clause, inside + joint + clause
        return Fact(shape=shape, asked=self._as_asked(shape, told, inside), told=told, told_inside=inside)

    def _expand(self, form: str, fill: banks.Fill) -> str:
        return banks.with_articles(banks.expand(form, fill, self.rng))

    def _as_asked(self, shape: str, told: str, inside: str) -> str:
        chance = self.rng.random()
        if shape == "sentence":
            return inside if chance < 0.1 else told + "." if chance < 0.3 else told
        if shape in ("clause", "verb", "thing") and chance < 0.3:
            return told[0].upper() + told[1:]
        return told


def agreeing(subject: Subject) -> dict[str, str]:
    """Slots that follow the number of the subject."""
    singular = {"is": "is", "was": "was", "has": "has", "s": "s", "it": "it", "its": "its"}
    plural = {"is": "are", "was": "were", "has": "have", "s": "", "it": "they", "its": "their"}
    return {
        **(plural if subject.plural else singular),
        "Short": subject.short[0].upper() + subject.short[1:],
        "short": subject.short,
    }
