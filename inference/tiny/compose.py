"""From a brief to an approved text: sentences chosen from the banks, joined in the style's order."""

from dataclasses import dataclass, field

from apps.styles.prompts import BriefFields
from inference.tiny import banks
from inference.tiny.ask import Fact, Style, Subject, agreeing
from inference.tiny.values import Inventor

_TOLERANCE = 1.06
_WOMEN = ("daughter", "girl", "widow", "nurse")
_FRUGAL = 70  # words; below that, a text has no room for extras


@dataclass(frozen=True, kw_only=True)
class Order:
    """Everything that a text depends on."""

    style: Style
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
    used: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.rng = self.inventor.rng
        self.forms = banks.sections(self.order.style)
        self.people = self._people()
        self.agreement = agreeing(self.order.subject)

    def _people(self) -> dict[str, str]:
        """Hero, second person and thing of a scene: fixed for the whole text."""
        fiction = banks.sections("fiction")
        hero = self.order.subject.hero or self._new_hero(fiction["role"])
        is_woman = any(word in hero for word in _WOMEN)
        is_man = (not is_woman and self.rng.random() < 0.4) or "son" in hero.split()
        she, her = ("he", "his") if is_man else ("she", "her")
        other = self.rng.choice(fiction["other"])
        return {"hero": hero, "she": she, "her": her, "other": other, "thing": self.inventor.word("thing")}

    def _new_hero(self, roles: tuple[str, ...]) -> str:
        return self.inventor.word("first") if self.rng.random() < 0.5 else self.rng.choice(roles)

    # -- single sentences ----------------------------------------------------------------------

    def sentence(self, section: str, **given: str) -> str:
        """A finished sentence of the section; its form is not used again in this text."""
        form = self._fresh(self._forms(section))
        text = banks.expand(form, lambda slot: given[slot] if slot in given else self._fill(slot), self.rng)
        return banks.with_capitals(banks.with_articles(text))

    def _forms(self, section: str) -> tuple[str, ...]:
        name, _, family = section.partition(":")
        if name == "tone":
            return banks.sections("tone")[f"{self.order.style}.{family}"]
        return self.forms[section]

    def _fresh(self, choices: tuple[str, ...]) -> str:
        fresh = [choice for choice in choices if choice not in self.used]
        chosen = self.rng.choice(fresh or choices)
        self.used.add(chosen)
        return chosen

    def _fill(self, slot: str) -> str:
        if slot in self.agreement:
            return self.agreement[slot]
        if slot in self.people:
            return self.people[slot]
        if slot == "np":
            return self.order.subject.noun_phrase
        if slot == "subject":
            return self.order.subject.text
        if slot == "audience":
            return self.order.brief.audience
        if slot == "angle":
            return self.order.brief.angle
        if slot == "good1":
            return self.rng.choice(("calm", "joy", "time", "care", "comfort"))
        if slot in self.inventor.fields:
            return self._fresh(self.inventor.fields[slot])
        form = self._fresh(self.forms[slot])
        return banks.expand(form, self._fill, self.rng)

    def fact(self, fact: Fact) -> str:
        return self.sentence(f"fact.{fact.shape}", fact=fact.told, fact_lc=fact.told_inside)

    # -- whole texts ---------------------------------------------------------------------------

    def write(self) -> str:
        by_style = {"news": self._news, "fiction": self._fiction, "marketing": self._marketing}
        return by_style[self.order.style]()

    def _extras(self) -> list[str]:
        """Sentences for audience, angle and tone, as far as the length allows."""
        brief = self.order.brief
        found: list[str] = []
        if brief.num_words < _FRUGAL:
            return found
        if brief.audience:
            found.append(self.sentence("audience"))
        if brief.angle:
            found.append(self.sentence("angle"))
        if self.order.tone_family:
            found.append(self.sentence(f"tone:{self.order.tone_family}"))
        return found

    def _news(self) -> str:
        head = [f"# {self.sentence('headline')}"] if self.order.wants_headline else []
        lead = self.sentence("lead")
        told = [self.fact(fact) for fact in self.order.facts]
        extras = self._extras()
        has_voice = any(fact.shape == "person" for fact in self.order.facts)
        wants_quote = not has_voice and self.order.brief.num_words >= _FRUGAL
        quote = [self.sentence("quote")] if wants_quote else []
        close = [self.sentence("close")] if self.order.brief.num_words >= 50 else []
        spent = _count(*head, lead, *told, *extras, *quote, *close)
        body = self._merge(told, extras + self._padding("body", spent))
        cut = self.rng.randint((len(body) + 1) // 2, len(body))
        body[cut:cut] = quote
        return "\n\n".join(head + self._paragraphs([lead, *body, *close]))

    def _fiction(self) -> str:
        opening = self.sentence("open")
        told = [self.fact(fact) for fact in self.order.facts]
        extras = self._extras()
        close = [self.sentence("close")] if self.order.brief.num_words >= 50 else []
        spent = _count(opening, *told, *extras, *close)
        filler = self._padding(("sense", "action", "dialoguepair", "sense", "action"), spent)
        return "\n\n".join(self._paragraphs([opening, *self._merge(told, extras + filler), *close]))

    def _marketing(self) -> str:
        head = [f"# {self.sentence('headline')}"] if self.order.wants_headline else []
        hook, close = self.sentence("hook"), self.sentence("close")
        facts = list(self.order.facts)
        listed = self._list(facts) if self.order.wants_list else []
        told = [self.fact(fact) for fact in facts]
        extras = self._extras()
        spent = _count(*head, hook, *told, *listed, *extras, close)
        body = self._merge(told, extras + self._padding("body", spent))
        return "\n\n".join(
            head + self._paragraphs([hook, *body]) + ["\n".join(listed)] * bool(listed) + [close]
        )

    def _list(self, facts: list[Fact]) -> list[str]:
        """A Markdown list that takes the last of the facts away from the running text."""
        taken = facts[len(facts) // 2 :] if self.rng.random() < 0.7 else []
        del facts[len(facts) - len(taken) :]
        wanted = max(0, self.rng.randint(2, 4) - len(taken))
        if self.order.brief.num_words < _FRUGAL:
            wanted = min(wanted, 1)
        benefits = [self._item() for _ in range(wanted)]
        items = [
            fact.told[0].upper() + fact.told[1:] if "." not in fact.told.split()[0] else fact.told
            for fact in taken
        ]
        return [self.sentence("list.intro"), "", *(f"- {item}" for item in items + benefits)]

    def _item(self) -> str:
        return self.sentence("list.item")

    def _padding(self, section: str | tuple[str, ...], spent: int) -> list[str]:
        """Sentences that fill the text up to the length asked."""
        limit, found = self.order.brief.num_words, []
        misses = 0
        while spent < limit * 0.96 and misses < 12:
            chosen = section if isinstance(section, str) else self.rng.choice(section)
            before = set(self.used)
            sentence = self.sentence(chosen)
            if spent + _count(sentence) > limit * _TOLERANCE or sentence in found:
                self.used, misses = before, misses + 1
                continue
            found.append(sentence)
            spent += _count(sentence)
        return found

    def _merge(self, told: list[str], others: list[str]) -> list[str]:
        """Facts in the order of the brief, other sentences anywhere between them."""
        self.rng.shuffle(others)
        slots = sorted(self.rng.sample(range(len(told) + len(others)), len(told)))
        merged = list(others)
        for position, sentence in zip(slots, told, strict=True):
            merged.insert(position, sentence)
        return merged

    def _paragraphs(self, sentences: list[str]) -> list[str]:
        """Sentences in paragraphs of one to four; spoken lines stand alone."""
        paragraphs: list[list[str]] = [[]]
        room = self.rng.randint(1, 3)
        for sentence in sentences:
            spoken = sentence.startswith('"') or "\n" in sentence
            if paragraphs[-1] and (room <= 0 or spoken):
                paragraphs.append([])
                room = self.rng.randint(2, 4)
            paragraphs[-1].append(sentence)
            room = 0 if spoken and self.order.style == "fiction" else room - 1
        return [" ".join(paragraph) for paragraph in paragraphs]


def _count(*texts: str) -> int:
    return sum(len(text.split()) for text in texts)
