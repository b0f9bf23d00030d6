"""Names, numbers, dates and rare words composed at random.

A model that wants to repeat them has to copy them from the brief.
"""

import random
from typing import ClassVar, Literal

from inference.tiny import banks
from inference.tiny.banks import Language

Split = Literal["train", "heldout"]

HELDOUT_TOPICS = frozenset({"lighthouse", "radio", "course", "toys"})

_ONSETS = (
    *"bdfghjklmnprstvwz",
    *("br", "dr", "fl", "gr", "kl", "kr", "pl", "pr", "sk", "sl", "st", "tr", "th", "sh", "ch", "qu"),
)
_VOWELS = (*"aeiou", *"aeio", "ai", "ea", "ou", "ie", "ae", "y")
_CODAS = ("", "", "", "", *"nrlstkmx", "nd", "rn", "lt", "st", "ck", "ng", "sh")
_ACCENTS = tuple(
    str.maketrans(plain, accented)
    for plain, accented in (
        ("aou", "äöü"),
        ("ae", "áé"),
        ("nc", "ñç"),
        ("lz", "łż"),
        ("aeo", "àèô"),
        ("ao", "åø"),
        ("sc", "šč"),
    )
)
# Lists in which a quarter of the picks is any word at all.
_OPEN_LISTS = frozenset({"noun", "adjective", "rare", "unit", "colour", "title"})
_PLACES = (
    *("Hall", "House", "Park", "Square", "Mill", "Gate"),
    *("Centre", "Tower", "Cafe", "Inn", "Library", "Station"),
)
_STREETS = ("Street", "Road", "Lane", "Avenue", "Way", "Quay", "Square", "Alley")
_COMPANIES = (
    *("Foundation", "Trust", "Bank", "Society", "Group", "Institute"),
    *("Union", "Club", "Press", "Works", "Energy", "Foods"),
)
_NUMERALS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
# Slots that no reader would believe; a tame inventor leaves forms with them out.
_WILD = ("{wild}", "{Wild}", "{odd}", "{Odd}", "{rare}", "{noun}", "{adjective}", "{verb}", "{colour}")
_ROUTES = ("bus {number}", "tram {number}", "bus from {town}", "boat", "bicycle", "train from {town}")


class Inventor:
    """Fills the slots of briefs from one random stream, in English.

    A tame inventor makes no words up and fills no slot with any word at all.
    """

    language: ClassVar[Language] = "en"

    def __init__(self, rng: random.Random, split: Split, *, tame: bool = False) -> None:
        self.rng = rng
        self.split = split
        self.tame = tame
        self.topic = self._pick_topic()
        self.fields = banks.topics(self.language)[self.topic]

    def _pick_topic(self) -> str:
        is_heldout = self.split == "heldout"
        names = [name for name in banks.topics(self.language) if (name in HELDOUT_TOPICS) == is_heldout]
        generic_share = 0 if self.tame else 0.2
        return "generic" if self.rng.random() < generic_share else self.rng.choice(names)

    def believable(self, forms: tuple[str, ...]) -> tuple[str, ...]:
        if not self.tame:
            return forms
        return tuple(form for form in forms if not any(slot in form for slot in _WILD))

    def word(self, section: str) -> str:
        """A word of a list; the last seventh of every list is kept for held-out briefs."""
        entries = banks.words(section, self.language)
        border = len(entries) - len(entries) // 7
        if self.split == "heldout" and border < len(entries):
            return self.rng.choice(entries[border:])
        return self.rng.choice(entries[:border])

    def odd(self) -> str:
        """A word that nobody has seen: one to four random syllables, some with foreign letters."""
        if self.tame:
            return self.word("last").lower()
        count = self.rng.choice((1, 2, 2, 2, 3, 3, 4))
        syllables = (
            self.rng.choice(_ONSETS) + self.rng.choice(_VOWELS) + self.rng.choice(_CODAS)
            for _ in range(count)
        )
        word = "".join(syllables)
        return word.translate(self.rng.choice(_ACCENTS)) if self.rng.random() < 0.12 else word

    def wild(self) -> str:
        """Any word at all: common, from a text of the banks, spliced from two, or odd."""
        chance = self.rng.random()
        if chance < 0.4:
            return self.word(self.rng.choice(("common", "common", "inflected")))
        if chance < 0.55:
            return self.rng.choice(banks.all_words(self.language))
        if chance < 0.85:
            words = banks.all_words(self.language)
            start, end = self.rng.choice(words), self.rng.choice(words)
            return start[: self.rng.randint(1, len(start))] + end[self.rng.randrange(len(end)) :]
        return self.odd()

    def name(self, section: str, odd_share: float = 0.4) -> str:
        if self.tame:
            return self.word(section)
        return self.odd().capitalize() if self.rng.random() < odd_share else self.word(section)

    def __call__(self, slot: str) -> str:
        special = getattr(self, f"_slot_{slot}", None)
        if special is not None:
            return str(special())
        if slot in self.fields:
            return self.rng.choice(self.fields[slot])
        if slot in _OPEN_LISTS and not self.tame and self.rng.random() < 0.25:
            return self.wild()
        return self.word(slot)

    def _slot_first(self) -> str:
        return self.name("first")

    def _slot_last(self) -> str:
        return self.name("last")

    def _slot_town(self) -> str:
        return self.name("town")

    def _slot_person(self) -> str:
        middle = f" {self.rng.choice('ABCDEFGHJKLMNPRSTVW')}." if self.rng.random() < 0.06 else ""
        last = self.name("last")
        if self.rng.random() < 0.05:
            last += f"-{self.name('last')}"
        return f"{self.name('first')}{middle} {last}"

    def _slot_wild(self) -> str:
        return self.wild()

    def _slot_Wild(self) -> str:
        return self.wild().capitalize()

    def _slot_odd(self) -> str:
        return self.odd()

    def _slot_Odd(self) -> str:
        return self.odd().capitalize()

    def _slot_place(self) -> str:
        if self.rng.random() < 0.5:
            return self.word("venue")
        kind = self.rng.choice(_PLACES)
        if self.rng.random() < 0.5:
            return f"the {self.word(self._describing()).capitalize()} {kind}"
        return f"{self.name('last')} {kind}"

    def _describing(self) -> str:
        return "adjective" if self.tame else self.rng.choice(("adjective", "rare"))

    def _slot_street(self) -> str:
        if self.rng.random() < 0.5:
            return self.word("street")
        return f"{self.name('last')} {self.rng.choice(_STREETS)}"

    def _slot_org(self) -> str:
        shape = self.rng.random()
        if shape < 0.5:
            return f"{self.name('town')} {self.rng.choice(_COMPANIES)}"
        if shape < 0.8:
            return f"{self.word('rare').capitalize()} {self.rng.choice(_COMPANIES)}"
        return f"{self.name('last')} & {self.rng.choice(('Sons', 'Partners', self.name('last')))}"

    def _slot_num(self) -> str:
        size = self.rng.choice((10, 100, 100, 1000, 1000, 10_000, 1_000_000))
        value = self.rng.randint(size // 10 + 1, size)
        if value < 10_000 and self.rng.random() < 0.7:
            return str(value)
        return f"{value:,}"

    def _slot_small(self) -> str:
        if self.rng.random() < 0.3:
            return self.rng.choice(_NUMERALS)
        return str(self.rng.randint(2, 29))

    def _slot_number(self) -> str:
        return f"{self.rng.randint(1, 320)}{self.rng.choice(('', '', '', '', 'a', 'b'))}"

    def _slot_percent(self) -> str:
        value = self.rng.choice(
            (str(self.rng.randint(2, 99)), f"{self.rng.randint(1, 40)}.{self.rng.randint(1, 9)}")
        )
        return value + self.rng.choice((" percent", " percent", " per cent", "%", " %"))

    def _slot_price(self) -> str:
        amount = self.rng.choice(
            (self.rng.randint(2, 60), self.rng.randint(20, 900), self.rng.randint(10, 900) * 100)
        )
        if self.rng.random() < 0.3:
            cents = self.rng.choice(("", ".50", f".{self.rng.randint(10, 99)}"))
            return self.rng.choice("€$£") + f"{amount:,}{cents}"
        if self.rng.random() < 0.12:
            return f"{self.rng.randint(1, 90)}{self.rng.choice(('', '.5'))} million {self.word('currency')}"
        return f"{amount:,} {self.word('currency')}"

    def _slot_time(self) -> str:
        hour = self.rng.randint(6, 23)
        minute = self.rng.choice((0, 0, 0, 15, 30, 45, self.rng.randint(1, 59)))
        clock, half = hour % 12 or 12, "pm" if hour > 11 else "am"
        spoken = self.rng.choice(("noon", "midnight", "half past six", "dawn"))
        return self.rng.choice(
            (
                *(f"{hour}:{minute:02}", f"{hour}:{minute:02}", f"{hour}.{minute:02}"),
                *(f"{clock} {half}", f"{clock}:{minute:02} {half}", spoken),
            )
        )

    def _slot_date(self) -> str:
        day, month, year = self.rng.randint(1, 31), self.word_of("month"), self.rng.randint(2024, 2032)
        number = self.rng.randint(1, 12)
        weekday, other_weekday = self.word_of("weekday"), self.word_of("weekday")
        return self.rng.choice(
            (
                *(f"{day} {month}", f"{day} {month}", f"{day} {month}", f"{day} {month} {year}"),
                *(f"{month} {day}", f"{month} {day}, {year}", f"{weekday} {day} {month}"),
                *(f"{year}-{number:02}-{day:02}", f"{day}.{number}.", f"{day}/{number}/{year}"),
                *(f"{other_weekday}, {day} {month}", f"the {day}{_ordinal(day)} of {month}"),
            )
        )

    def word_of(self, section: str) -> str:
        """A word of a list that has no held-out part, such as the months."""
        return self.rng.choice(banks.words(section, self.language))

    def _slot_month(self) -> str:
        return self.word_of("month")

    def _slot_weekday(self) -> str:
        return self.word_of("weekday")

    def _slot_currency(self) -> str:
        return self.word_of("currency")

    def _slot_year(self) -> str:
        return str(self.rng.choice((self.rng.randint(1400, 1999), self.rng.randint(1950, 2035))))

    def _slot_code(self) -> str:
        letters = "".join(self.rng.choices("ABCDEFGHJKLMNPQRSTUVWXYZ", k=self.rng.randint(1, 4)))
        digits = str(self.rng.randint(1, 9999))
        return self.rng.choice(
            (letters + digits, f"{letters}-{digits}", self.odd().upper() + digits, self.odd().upper())
        )

    def _slot_phone(self) -> str:
        groups = [
            str(self.rng.randint(0, 9999)).zfill(self.rng.randint(3, 4))
            for _ in range(self.rng.choice((2, 2, 3)))
        ]
        return self.rng.choice((" ", " ", "-")).join(groups)

    def _slot_url(self) -> str:
        host = f"{self.odd()}.{self.rng.choice(('example', 'org', 'net', 'com'))}"
        return self.rng.choice((host, f"www.{host}", f"{host}/{self.word('noun')}"))

    def _slot_route(self) -> str:
        return banks.expand(self.rng.choice(_ROUTES), self, self.rng)


def _ordinal(day: int) -> str:
    return "th" if 10 < day < 14 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
