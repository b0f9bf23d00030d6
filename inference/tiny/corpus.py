"""Pairs of request and approved text, without end and the same for the same seed.

Most requests are briefs; some ask for work on a given text (continue, shorten, ...), some for
other genres than the three styles. Pair number i of a seed and split depends on nothing else,
so that any process may make any part of the corpus.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from apps.common.words import count_words, says
from apps.styles.prompts import BriefFields, Task, build_messages, build_task_messages
from inference.chat import Message
from inference.tiny import banks
from inference.tiny.ask import STYLES, Editor, EnglishEditor, Style
from inference.tiny.ask_zh import ChineseEditor
from inference.tiny.banks import Language
from inference.tiny.compose import Order, Part, Writer, finished, layout
from inference.tiny.values import Inventor, Split
from inference.tiny.values_zh import ChineseInventor

LANGUAGES: tuple[Language, ...] = ("en", "zh")
_LANGUAGE_SHARES = (2, 3)  # a Chinese text has more tokens that are seldom seen

_KINDS: dict[Literal["draft", "task", "genre", "list"], int] = {
    "draft": 66,
    "task": 12,
    "genre": 8,
    "list": 14,
}
_TASKS: tuple[Task, ...] = ("continue", "rewrite", "shorten", "expand", "headline")
_TONES = ("warm", "formal", "playful", "urgent", "quiet", "proud")
_FACT_COUNTS = (6, 14, 22, 24, 17, 9, 5, 3, 1, 1, 1)
_WORDS_PER_FACT = {"en": 13, "zh": 24}
_LENGTHS = {
    "en": (40, 50, 60, 60, 70, 80, 80, 90, 100, 100, 110, 120, 120, 120, 130, 140, 150, 160, 180, 200),
    "zh": (60, 80, 80, 100, 100, 120, 120, 120, 140, 150, 150, 160, 180, 200, 200, 220, 250, 300),
}
_TASK_LENGTHS = (60, 80, 100, 120, 140)  # of the longer text; both have to fit into one prompt
_SHORTENED = 0.65  # of the words that a text may keep when it is shortened
_ATTEMPTS = 4
_CURLY = (('(^|[\\s(—–])"', r"\1“"), ('"', "”"), ("'", "’"), (" - ", " – "))
_CORNERED = str.maketrans("“”‘’", "「」『』")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A request and the text that an editor would approve for it.

    `style` is what the text is (one of STYLES or a genre), `style_name` what the preset calls it.
    `task`, `source` and `wish` are set where a given text is worked on; `brief` then holds the
    facts that the text tells and the length asked.
    """

    language: Language
    style: str
    style_name: str
    instructions: str
    brief: BriefFields
    text: str
    topic: str
    task: Task | None = None
    source: str = ""
    wish: str = ""

    @property
    def messages(self) -> list[Message]:
        if self.task is None:
            built = build_messages(style=self.style_name, instructions=self.instructions, brief=self.brief)
        else:
            built = build_task_messages(
                style=self.style_name,
                instructions=self.instructions,
                task=self.task,
                text=self.source,
                num_words=None if self.task == "headline" else self.brief.num_words,
                wish=self.wish,
            )
        return [{"role": message["role"], "text": message["text"]} for message in built]


def default_instructions(style: Style, language: Language = "en") -> str:
    return banks.sections("briefs", language)[f"{style}.default"][0]


def pairs(*, seed: int, split: Split, start: int = 0) -> Iterator[Pair]:
    """Pairs start, start + 1, ... of every kind, without end."""
    while True:
        yield make_pair(seed=seed, split=split, index=start)
        start += 1


def briefs(seed: int, count: int, split: Split = "heldout") -> list[tuple[Style, BriefFields, str]]:
    """Believable English briefs with an approved text each, as a demonstration needs them."""
    made = (
        make_draft(seed=seed, split=split, index=index, language="en", tame=True) for index in range(count)
    )
    return [(_style_of(pair), pair.brief, pair.text) for pair in made]


def _style_of(pair: Pair) -> Style:
    return next(style for style in STYLES if style == pair.style)


def make_pair(*, seed: int, split: Split, index: int) -> Pair:
    """One pair of any kind and language."""
    rng = random.Random(f"{split}/{seed}/{index}")
    kind = rng.choices(tuple(_KINDS), tuple(_KINDS.values()))[0]
    language = rng.choices(LANGUAGES, _LANGUAGE_SHARES)[0]
    desk = _Desk(rng, split, language, tame=False)
    match kind:
        case "draft":
            return desk.draft()
        case "task":
            return desk.task()
        case "genre":
            return desk.genre()
        case "list":
            return desk.fact_list()


def make_draft(
    *, seed: int, split: Split, index: int, language: Language, style: Style | None = None, tame: bool = False
) -> Pair:
    """A brief of one of the three styles and its draft.

    A tame one has a believable brief: no made-up words, no facts about odd things.
    """
    rng = random.Random(f"{split}/{seed}/{index}/{language}")
    return _Desk(rng, split, language, tame=tame).draft(style)


def make_task(*, seed: int, split: Split, index: int, language: Language, task: Task | None = None) -> Pair:
    """Work on a given text, of one of the three styles."""
    rng = random.Random(f"{split}/{seed}/{index}/{language}/task")
    return _Desk(rng, split, language, tame=False).task(task)


class _Desk:
    """Makes one pair from one random stream."""

    def __init__(self, rng: random.Random, split: Split, language: Language, *, tame: bool) -> None:
        self.rng, self.language = rng, language
        self.bank = banks.sections("briefs", language)
        if language == "zh":
            self.inventor: Inventor = ChineseInventor(rng, split, tame=tame)
            self.editor: Editor = ChineseEditor(self.inventor)
        else:
            self.inventor = Inventor(rng, split, tame=tame)
            self.editor = EnglishEditor(self.inventor)

    # -- briefs --------------------------------------------------------------------------------

    def draft(self, asked: Style | None = None) -> Pair:
        style = self.rng.choice(STYLES) if asked is None else asked
        instructions, wants_headline, wants_list = self._instructions(style)
        order = self._order(style, self._length(), wants_headline, wants_list)
        order, text = self._write(order)
        instructions, text = self._typeset(instructions, text)
        named = bool(instructions) and self.rng.random() < 0.05
        name = self.rng.choice(self.bank["custom"]) if named else style
        return self._pair(order, text, style_name=name, instructions=instructions)

    def genre(self) -> Pair:
        bank = banks.sections("general", self.language)
        genres = [section.removesuffix(".body") for section in bank if section.endswith(".body")]
        genre = self.rng.choice(genres)
        order, text = self._write(self._order(genre, self._length(), False, False))
        return self._pair(
            order, text, style_name=genre, instructions=self.rng.choice(bank[f"{genre}.instructions"])
        )

    def fact_list(self) -> Pair:
        """The facts and nothing else, half of them words in no order: they can only be copied."""
        style = self.rng.choice(STYLES)
        subject = self.editor.subject(style)
        facts = [fact.asked for fact in self.editor.facts(subject, self.rng.randint(2, 5))]
        facts += [self._word_salad() for _ in range(self.rng.randint(2, 5))]
        self.rng.shuffle(facts)
        bullet = self.rng.choice(("", "- "))
        text = "\n".join(bullet + fact for fact in facts)
        instructions = self.rng.choice(self.bank["list.instructions"])
        if bullet:
            instructions = self._joined(instructions, self.rng.choice(self.bank["list.bullets"]))
        brief = BriefFields(
            subject=subject.text, must_say=tuple(facts), num_words=10 * max(1, round(count_words(text) / 10))
        )
        return Pair(
            language=self.language,
            style="list",
            style_name="list",
            instructions=instructions,
            brief=brief,
            text=text,
            topic=self.inventor.topic,
        )

    def _word_salad(self) -> str:
        words = self.rng.sample(banks.all_words(self.language), self.rng.randint(2, 6))
        return ("" if self.language == "zh" else " ").join(words)

    def _order(self, style: str, num_words: int, wants_headline: bool, wants_list: bool) -> Order:
        subject = self.editor.subject(style)
        facts = self.editor.facts(subject, self._fact_count(num_words))
        has_tone = style in STYLES and self.rng.random() < 0.5
        tone_family = self.rng.choice(_TONES) if has_tone else ""
        brief = BriefFields(
            subject=subject.text,
            audience=self._field("audience", 0.45),
            angle=self._field("angle", 0.4),
            tone=self._field(f"tone.{tone_family}", 1.0) if tone_family else "",
            must_say=tuple(fact.asked for fact in facts),
            num_words=num_words,
        )
        return Order(
            language=self.language,
            style=style,
            subject=subject,
            brief=brief,
            facts=facts,
            tone_family=tone_family,
            wants_headline=wants_headline,
            wants_list=wants_list,
        )

    def _pair(self, order: Order, text: str, *, style_name: str, instructions: str) -> Pair:
        return Pair(
            language=self.language,
            style=order.style,
            style_name=style_name,
            instructions=instructions,
            brief=order.brief,
            text=text,
            topic=self.inventor.topic,
        )

    def _fact_count(self, num_words: int) -> int:
        most = min(len(_FACT_COUNTS) - 1, max(1, num_words // _WORDS_PER_FACT[self.language]))
        return min(most, self.rng.choices(range(len(_FACT_COUNTS)), _FACT_COUNTS)[0])

    def _instructions(self, style: Style) -> tuple[str, bool, bool]:
        """Instructions of the preset, and whether they ask for a headline and for a list."""
        kinds = {"news": ("plain", "headline"), "fiction": ("plain",), "marketing": ("plain", "list")}[style]
        kind = self.rng.choice(("default", "default", "empty", *kinds))
        text = self.rng.choice(self.bank[f"{style}.{kind}"]) if kind != "empty" else ""
        if self.rng.random() < 0.2:
            text = self._joined(text, self.rng.choice(self.bank["extra"]))
        open_choice = style == "marketing" and kind in ("default", "empty")
        wants_list = kind == "list" or (open_choice and self.rng.random() < 0.5)
        return text, kind in ("headline", "list"), wants_list

    def _joined(self, text: str, more: str) -> str:
        return (text + (" " if self.language == "en" else "") + more).strip()

    def _length(self) -> int:
        lengths = _LENGTHS[self.language]
        return (
            self.rng.choice(lengths) if self.rng.random() < 0.8 else self.rng.randint(lengths[0], lengths[-1])
        )

    def _field(self, section: str, share: float) -> str:
        if self.rng.random() >= share:
            return ""
        text = self._phrase(section)
        return banks.with_articles(text) if self.language == "en" else text

    def _phrase(self, section: str) -> str:
        forms = self.inventor.believable(self.bank[section])
        return banks.expand(self.rng.choice(forms), self.inventor, self.rng)

    def _write(self, order: Order) -> tuple[Order, str]:
        """The text, and the order with forbidden words that it avoids and a length that it has."""
        writer = Writer(order, self.inventor)
        text = writer.write()
        forbidden = self._forbidden(order, text) if self.rng.random() < 0.4 else ()
        for _ in range(_ATTEMPTS):
            if not any(says(text, term) for term in forbidden):
                break
            text = Writer(order, self.inventor).write()
        kept = tuple(term for term in forbidden if not says(text, term))
        brief = replace(order.brief, must_not_say=kept, num_words=_as_asked(order.brief.num_words, text))
        return replace(order, brief=brief), text

    def _forbidden(self, order: Order, text: str) -> tuple[str, ...]:
        """One to three terms: some from the bank, some that the first attempt has used."""
        brief, subject = order.brief, order.subject
        bound = " ".join(
            (subject.text, subject.noun_phrase, subject.hero, brief.audience, brief.angle, *brief.must_say)
        )
        used = [word for word in self._words_of(text) if not says(bound, word)]
        terms = []
        for _ in range(self.rng.randint(1, 3)):
            picked = used and self.rng.random() < 0.4
            terms.append(self.rng.choice(used) if picked else self._phrase("forbidden"))
        return tuple(dict.fromkeys(term for term in terms if not says(bound, term)))

    def _words_of(self, text: str) -> list[str]:
        if self.language == "en":
            return sorted(set(re.findall(r"\b[a-z]{5,}\b", text)))
        entries = (entry for entries in self.inventor.fields.values() for entry in entries)
        return sorted({entry for entry in entries if len(entry) <= 6 and entry in text})

    def _typeset(self, instructions: str, text: str) -> tuple[str, str]:
        """Some presets ask for typographic quotes and dashes, and get them."""
        if self.rng.random() >= 0.06:
            return instructions, text
        return self._joined(instructions, self.rng.choice(self.bank["typographic"])), typeset(
            text, self.language
        )

    # -- work on a given text ------------------------------------------------------------------

    def task(self, asked: Task | None = None) -> Pair:
        task = self.rng.choice(_TASKS) if asked is None else asked
        style = self.rng.choice(STYLES)
        order = self._order(style, self.rng.choice(_TASK_LENGTHS), False, False)
        writer = Writer(order, self.inventor)
        parts = writer.parts(facts_first=task == "continue")
        whole = layout(parts, order, self.rng)
        source, text = {
            "continue": self._continued,
            "rewrite": self._rewritten,
            "shorten": self._shortened,
            "expand": self._expanded,
            "headline": self._headlined,
        }[task](writer, parts, whole)
        brief = replace(order.brief, num_words=_as_asked(order.brief.num_words, text))
        pair = self._pair(replace(order, brief=brief), text, style_name=style, instructions="")
        return replace(pair, task=task, source=source, wish=self._wish(task))

    def _wish(self, task: Task) -> str:
        wishes = banks.sections("tools", self.language)[f"{task}.instructions"]
        return self.rng.choice(wishes) if self.rng.random() < 0.3 else ""

    def _continued(self, writer: Writer, parts: list[Part], whole: str) -> tuple[str, str]:
        """The text is cut after its last fact; what the source has not said cannot be asked for."""
        last = max((i for i, part in enumerate(parts) if part.kind == "fact"), default=0)
        cut = self.rng.randint(last + 1, max(last + 1, len(parts) - 2))
        cut = min(cut, len(parts) - 1)
        order = writer.order
        return layout(parts[:cut], order, self.rng), layout(parts[cut:], order, self.rng)

    def _rewritten(self, writer: Writer, parts: list[Part], whole: str) -> tuple[str, str]:
        """The same facts and the same things said of the topic, from a text of another style."""
        other = self.rng.choice([style for style in STYLES if style != writer.order.style])
        order = replace(writer.order, style=other, tone_family="")
        source = Writer(order, self.inventor, fields=writer.used_fields()).write()
        return source, whole

    def _shortened(self, writer: Writer, parts: list[Part], whole: str) -> tuple[str, str]:
        return whole, layout(self._core(parts), writer.order, self.rng)

    def _expanded(self, writer: Writer, parts: list[Part], whole: str) -> tuple[str, str]:
        return layout(self._core(parts), writer.order, self.rng), whole

    def _core(self, parts: list[Part]) -> list[Part]:
        """Opening, facts and close, and as many other parts as a short text may keep."""
        total = sum(count_words(part.text) for part in parts)
        kept = {i for i, part in enumerate(parts) if part.kind in ("open", "fact", "close", "list")}
        spent = sum(count_words(parts[i].text) for i in kept)
        for i in self.rng.sample(range(len(parts)), len(parts)):
            size = count_words(parts[i].text)
            if i not in kept and spent + size <= total * _SHORTENED:
                kept.add(i)
                spent += size
        return [parts[i] for i in sorted(kept)]

    def _headlined(self, writer: Writer, parts: list[Part], whole: str) -> tuple[str, str]:
        forms = banks.sections("tools", self.language)[f"headline.{writer.order.style}"]
        about = Writer(writer.order, self.inventor, fields=writer.used_fields())
        headline = banks.expand(self.rng.choice(forms), about.fill, self.rng)
        return whole, finished(headline, self.language)


def _as_asked(asked: int, text: str) -> int:
    """The length asked, or if the text has another one, that in tens."""
    has = count_words(text)
    return asked if abs(has - asked) <= 0.1 * asked else 10 * max(1, round(has / 10))


def typeset(text: str, language: Language) -> str:
    """Typographic quotes and dashes for English, corner brackets for Chinese."""
    if language == "zh":
        return text.translate(_CORNERED)
    for pattern, replacement in _CURLY:
        text = re.sub(pattern, replacement, text)
    return text


def unkept(pair: Pair, text: str) -> list[str]:
    """Must-say facts of the pair's brief that the text does not hold."""
    return [fact for fact in pair.brief.must_say if not says(text, fact)]
