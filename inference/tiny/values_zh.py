"""Names, numbers, dates and rare words for Chinese briefs, composed character by character."""

from functools import cache
from typing import ClassVar

from inference.tiny import banks
from inference.tiny.banks import Language
from inference.tiny.values import Inventor

_DIGITS = "零一二三四五六七八九"
_NUMERALS = ("两", "三", "四", "五", "六", "七", "八", "九", "十", "十二")
_HONOURS = ("先生", "女士", "老师", "师傅", "医生")
_ROUTES = (
    *("{digit}路公交车", "{digit}路公交车", "{digit}路电车", "地铁{digit}号线"),
    *("{town}开来的班车", "渡船"),
)
_COMPOUND_SURNAMES = ("欧阳", "司马", "上官", "诸葛", "慕容", "司徒", "皇甫", "令狐", "端木", "公孙")
_PLACES = (
    *("馆", "楼", "厅", "园", "广场", "中心", "剧场", "书院", "车站", "礼堂", "茶馆", "会所", "酒店"),
    *("工坊", "码头", "客栈"),
)
_STREETS = ("路", "路", "街", "街", "巷", "弄", "里", "大道", "胡同", "东路", "南街")
_COMPANIES = (
    *("基金会", "协会", "银行", "集团", "研究所", "俱乐部", "出版社", "合作社", "商会", "公司", "学会"),
    *("工作室", "食品厂", "剧团", "学院"),
)
_MEASURES = ("个", "个", "个", "只", "张", "件", "把", "条", "种", "份", "台", "位", "间", "块")
_DISCOUNTS = ("九", "八", "七五", "八五", "六", "五", "8", "9.5", "8.8")
_HOSTS = ("example", "org", "net", "com", "cn")
_FOREIGN_SHARE = 0.06
_ANY_CHARACTER_SHARE = 0.1
# The 3,755 characters of GB 2312 level 1 lie in these rows of its code table.
_FIRST_ROW, _LAST_FULL_ROW = 0xB0, 0xD6
_CELLS = (0xA1, 0xFE)


@cache
def known_characters() -> tuple[str, ...]:
    """Every Chinese character of the banks, in order."""
    return tuple(sorted({character for word in banks.all_words("zh") for character in word}))


def numeral(value: int) -> str:
    """A number below a hundred as it is spoken: 7 七, 12 十二, 30 三十."""
    tens, ones = divmod(value, 10)
    if not tens:
        return _DIGITS[ones]
    return ("" if tens == 1 else _DIGITS[tens]) + "十" + (_DIGITS[ones] if ones else "")


class ChineseInventor(Inventor):
    """Fills the slots of Chinese briefs."""

    language: ClassVar[Language] = "zh"

    def any_character(self) -> str:
        if self.rng.random() >= _ANY_CHARACTER_SHARE:
            return self.rng.choice(known_characters())
        code = (self.rng.randint(_FIRST_ROW, _LAST_FULL_ROW), self.rng.randint(*_CELLS))
        return bytes(code).decode("gb2312")

    def latin(self) -> str:
        """A made-up word in Latin letters, as web addresses and products have them."""
        if not self.tame:
            return super().odd()
        return "".join(self.rng.choice("bdfghklmnprstw") + self.rng.choice("aeiou") for _ in range(3))

    def odd(self) -> str:
        """A word that nobody has seen: one to four characters, or Latin letters, or both."""
        if self.tame:
            return self.word("placechar") + self.word("given")
        count = self.rng.choice((1, 2, 2, 2, 2, 3, 3, 4))
        word = "".join(self.any_character() for _ in range(count))
        chance = self.rng.random()
        if chance < 0.1:
            return self.rng.choice((self.latin(), self.latin().capitalize()))
        if chance < 0.16:
            return self.rng.choice((word + self.latin().upper()[:3], self._letters() + word))
        return word + str(self.rng.randint(1, 99)) if chance < 0.2 else word

    def wild(self) -> str:
        """Any word at all: common, cut from a text of the banks, spliced from two, or odd."""
        chance = self.rng.random()
        if chance < 0.4:
            return self.word(self.rng.choice(("common", "common", "noun", "rare")))
        if chance < 0.5:
            return self.rng.choice(banks.all_words(self.language))
        if chance < 0.65:
            return self.word("common")[0] + self.word("common")[-1]
        return self.odd()

    def name(self, section: str, odd_share: float = 0.4) -> str:
        return self.word(section) if self.tame or self.rng.random() >= odd_share else self.odd()

    # -- people --------------------------------------------------------------------------------

    def _given(self) -> str:
        count = 1 if self.rng.random() < 0.25 else 2
        return "".join(self.word("given") for _ in range(count))

    def _slot_first(self) -> str:
        if self.rng.random() < 0.4:
            return self.word("first")
        return self.word("given") + self.word("given")

    def _slot_last(self) -> str:
        return self.rng.choice(_COMPOUND_SURNAMES) if self.rng.random() < 0.06 else self.word("last")

    def _slot_person(self) -> str:
        chance = self.rng.random()
        if chance < _FOREIGN_SHARE:
            return f"{self._transcribed()}·{self._transcribed()}"
        if chance < 0.1 and not self.tame:
            return f"{self.latin().capitalize()} {self.latin().capitalize()}"
        if chance < 0.18:
            return self._slot_last() + self.rng.choice(_HONOURS)
        name = self._slot_last() + self._given()
        return name + self.rng.choice(_HONOURS[:3]) if chance < 0.28 else name

    def _transcribed(self) -> str:
        return "".join(self.word("given") for _ in range(self.rng.randint(2, 4)))

    # -- places --------------------------------------------------------------------------------

    def _place_name(self) -> str:
        if not self.tame and self.rng.random() < 0.25:
            return self.any_character() + self.any_character()
        return self.word("placechar") + self.word("placechar")

    def _slot_town(self) -> str:
        return self._place_name() + self.word("placekind")

    def _slot_place(self) -> str:
        if self.rng.random() < 0.4:
            return self.word("venue")
        kind = self.rng.choice(_PLACES)
        return (self.word("adjective") if self.rng.random() < 0.2 else self._place_name()) + kind

    def _slot_street(self) -> str:
        if self.rng.random() < 0.4:
            return self.word("street")
        return self._place_name() + self.rng.choice(_STREETS)

    def _slot_number(self) -> str:
        number = f"{self.rng.randint(1, 320)}号"
        more = (f"{self.rng.randint(1, 9)}楼", f"{self.rng.randint(101, 1909)}室", "院")
        return number + self.rng.choice(more) if self.rng.random() < 0.2 else number

    def _slot_org(self) -> str:
        kind, shape = self.rng.choice(_COMPANIES), self.rng.random()
        if shape < 0.4:
            return self._slot_town() + kind
        return (self._place_name() if shape < 0.75 else self.word("rare")) + kind

    def _slot_route(self) -> str:
        return banks.expand(self.rng.choice(_ROUTES), self, self.rng)

    # -- numbers -------------------------------------------------------------------------------

    def _slot_num(self) -> str:
        size = self.rng.choice((10, 100, 100, 1000, 1000, 10_000, 1_000_000))
        value, chance = self.rng.randint(size // 10 + 1, size), self.rng.random()
        if value >= 10_000 and chance < 0.6:
            return f"{value // 10_000}{self.rng.choice(('', f'.{self.rng.randint(1, 9)}'))}万"
        if chance < 0.08:
            return _DIGITS[self.rng.randint(3, 9)] + self.rng.choice(("十", "百", "千", "万"))
        return f"{value:,}" if value >= 10_000 or chance > 0.75 else str(value)

    def _slot_small(self) -> str:
        return self.rng.choice(_NUMERALS) if self.rng.random() < 0.45 else str(self.rng.randint(2, 29))

    def _slot_digit(self) -> str:
        return str(self.rng.choice((self.rng.randint(1, 9), self.rng.randint(1, 60))))

    def _slot_discount(self) -> str:
        return self.rng.choice(_DISCOUNTS)

    def _slot_percent(self) -> str:
        value = self.rng.randint(2, 99)
        exact = f"{self.rng.randint(1, 40)}.{self.rng.randint(1, 9)}%"
        return self.rng.choice((f"{value}%", f"{value}%", exact, f"百分之{numeral(value)}", f"{value}％"))

    def _slot_price(self) -> str:
        amount = self.rng.choice(
            (self.rng.randint(2, 60), self.rng.randint(20, 900), self.rng.randint(10, 900) * 100)
        )
        chance, currency = self.rng.random(), self.word_of("currency")
        if chance < 0.15:
            return self.rng.choice("￥¥€$") + f"{amount:,}{self.rng.choice(('', '.50', '.80'))}"
        if chance < 0.3:
            half = self.rng.choice(("", ".5"))
            return f"{self.rng.randint(1, 90)}{half}{self.rng.choice('万万亿')}{currency}"
        return f"{numeral(amount)}{currency}" if amount < 100 and chance < 0.4 else f"{amount:,}{currency}"

    def _slot_unit(self) -> str:
        if not self.tame and self.rng.random() < 0.25:
            return self.rng.choice(_MEASURES) + self.wild()
        return self.word("unit")

    # -- time ----------------------------------------------------------------------------------

    def _slot_time(self) -> str:
        hour = self.rng.randint(6, 22)
        minute = self.rng.choice((0, 0, 0, 15, 30, 45, self.rng.randint(1, 59)))
        part = "上午" if hour < 12 else "中午" if hour == 12 else "下午" if hour < 18 else "晚上"
        clock = hour if hour < 13 else hour - 12
        minutes = f"{minute}分" if minute else ""
        spoken = ("两" if clock == 2 else numeral(clock)) + "点" + self.rng.choice(("", "半", "一刻"))
        digital = f"{hour}:{minute:02}"
        return self.rng.choice(
            (digital, digital, f"{part}{clock}点{minutes}", f"{part}{spoken}", f"{hour}点{minutes}")
        )

    def _slot_date(self) -> str:
        month, day, year = self.rng.randint(1, 12), self.rng.randint(1, 31), self.rng.randint(2024, 2032)
        short, weekday = f"{month}月{day}日", self.word_of("weekday")
        return self.rng.choice(
            (
                *(short, short, short, f"{year}年{short}", f"{year}年{short}", f"{month}月{day}号"),
                *(weekday, f"{short}（{weekday}）", f"{short}{weekday}", f"本{weekday}"),
                *(
                    f"{numeral(month)}月{numeral(day)}日",
                    f"{year}-{month:02}-{day:02}",
                    f"{year}.{month}.{day}",
                ),
            )
        )

    def _slot_month(self) -> str:
        return self.rng.choice((f"{self.rng.randint(1, 12)}月", self.word_of("month")))

    # -- codes ---------------------------------------------------------------------------------

    def _letters(self) -> str:
        return "".join(self.rng.choices("ABCDEFGHJKLMNPQRSTUVWXYZ", k=self.rng.randint(1, 4)))

    def _slot_code(self) -> str:
        letters, digits = self._letters(), str(self.rng.randint(1, 9999))
        mixed = self.odd() + digits
        return self.rng.choice((letters + digits, f"{letters}-{digits}", mixed, self.latin().upper()))

    def _slot_url(self) -> str:
        host = f"{self.latin()}.{self.rng.choice(_HOSTS)}"
        return self.rng.choice((host, f"www.{host}", f"{host}/{self.latin()}"))
