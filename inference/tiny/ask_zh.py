"""What Chinese editors ask for: subjects, and facts in the many shapes in which people type them."""

from inference.tiny import banks
from inference.tiny.ask import SHAPES, Editor, Fact, Subject

_EVENTS = (
    *("重新开放", "启用", "搬迁", "改造", "扩建", "关闭", "修缮", "竣工", "揭幕", "开工", "十周年"),
    *("拍卖", "首次亮相", "回归", "筹建", "诞生", "保护", "重建", "开幕", "停用", "更名", "未来"),
)
_MODIFIERS: tuple[tuple[str, ...], ...] = (
    *((), ("adjective",), ("adjective",), ("adjective", "adjective"), ("rare",), ("adjective", "rare")),
    *(("town",), ("town", "adjective"), ("odd",), ("noun",), ("wild",), ("wild", "wild")),
)
_TAME_MODIFIERS: tuple[tuple[str, ...], ...] = ((), ("adjective",), ("adjective",), ("town",))
# Said of the subject before it, where English says it after.
_SETTINGS = (
    *("{street}上的", "{place}旁边的", "{town}的", "给{user}的", "{user}的"),
    *("河边的", "{town}附近的", "带{rare}的", "{year}年的", "{user}喜欢的"),
)
_DEEDS = ("找到了", "弄丢了", "偷走了", "修好了", "继承了", "卖掉了", "藏起了", "想起了", "等来了")
_FATES = ("被遗忘", "关闭", "卖掉", "重建", "找回", "落成", "许诺给孩子们")
_HEROES = ("会飞的", "迷路的", "怕黑的", "不说话的", "数星星的", "从不睡觉的", "忘了名字的")
_JOINTS = ("，", "，而且", "，因为", "，所以", "，不过")
_SIGHTS = "馆院园塔桥楼庙站"
_WOMEN = "女娘奶母姐妹妈婆"


class ChineseEditor(Editor):
    # -- subjects ------------------------------------------------------------------------------

    def subject(self, style: str) -> Subject:
        if style == "fiction" and not self.invent.tame and self.rng.random() < 0.6:
            return self._story_subject()
        head = self._head()
        core = self._described(head)
        chance = self.rng.random()
        if chance < 0.14:
            return self._clause_subject(core, head)
        if chance < 0.42:
            return self._event_subject(core, head)
        if chance < 0.45 and style != "fiction":
            return _subject(f"《{core}》新书发布", f"新书《{core}》", "这本书")
        core = self._setting(0.3) + core
        return _subject(core, core, self._short(head))

    def _head(self) -> str:
        odd_share = 0.6 if self.invent.topic == "generic" else 0.12
        if not self.invent.tame and self.rng.random() < odd_share:
            return self.invent(self.rng.choice(("noun", "rare", "wild")))
        return self.rng.choice(self.invent.fields["head"])

    def _short(self, head: str) -> str:
        if self.rng.random() >= 0.12:
            return head
        return ("这座" if head[-1] in _SIGHTS else "这个") + head

    def _described(self, head: str) -> str:
        """The head with its modifiers; those that end with 的 come first, and only the last keeps it."""
        slots = self.rng.choice(_TAME_MODIFIERS if self.invent.tame else _MODIFIERS)
        words = [self._modifier(slot) for slot in slots]
        words = [word for word in dict.fromkeys(words) if word.removesuffix("的") not in head]
        marked = [word for word in words if word.endswith("的")]
        marked = [word.removesuffix("的") if len(word) < 5 else word for word in marked[:-1]] + marked[-1:]
        return "".join([*marked, *(word for word in words if not word.endswith("的")), head])

    def _modifier(self, slot: str) -> str:
        word = self.invent(slot)
        return word + "的" if slot != "adjective" and self.rng.random() < 0.4 else word

    def _setting(self, share: float) -> str:
        return self._phrase(_SETTINGS) if self.rng.random() < share else ""

    def _phrase(self, forms: tuple[str, ...]) -> str:
        return banks.expand(self.rng.choice(self.invent.believable(forms)), self.invent, self.rng)

    def _event_subject(self, core: str, head: str) -> Subject:
        event = self.rng.choice(_EVENTS)
        core = self._setting(0.2) + core
        noun_phrase = f"{core}的{event}"
        text = noun_phrase if self.rng.random() < 0.35 else core + event
        if self.rng.random() < 0.12:
            text = f"{self.invent('small')}年之后，{text}"
        return _subject(text, noun_phrase, self._short(head))

    def _clause_subject(self, core: str, head: str) -> Subject:
        """Subjects with a comma, a clause or a colon, as people type them."""
        doing = f"{self.invent('user')}可以{self.invent('act')}的{core}"
        town, short = self.invent("town"), self._short(head)
        shape = self.rng.randrange(5)
        if shape == 0:
            name = f"{self.invent('odd')}{self.rng.choice((' Pro ', '', '', '二代'))}{self.invent('digit')}号"
            return _subject(f"{name}：{doing}", name, short)
        if shape == 1:
            return _subject(doing, doing, short)
        if shape == 2:
            name = f"第{self.invent('digit')}{head}"
            side = self.rng.choice(("附近", "旁边", "以北", "西边"))
            return _subject(f"{name}，{town}{side}", f"{town}{side}的{name}", short)
        if shape == 3:
            return _subject(f"{core}，还有{self.invent('part')}", core, short)
        told = f"{self.invent('year')}年{self.rng.choice(_FATES)}的{core}"
        return _subject(told, told, short)

    def _story_subject(self) -> Subject:
        noun = self.invent(self.rng.choice(("noun", "rare", "thing", "wild")))
        described = self._described(noun)
        if self.rng.random() < 0.6:
            return self._hero_subject(described, noun)
        place = self.invent("town")
        text = self.rng.choice(
            (
                *(f"{place}最后一个{described}", f"{place}的{described}", self._setting(0.5) + described),
                *(
                    f"没有人{self.invent('verb')}的{described}",
                    f"{described}不见了的那一天",
                    f"《{described}》",
                ),
            )
        )
        return _subject(text, text, noun)

    def _hero_subject(self, described: str, noun: str) -> Subject:
        role = self.rng.choice(banks.sections("fiction", "zh")["role"])
        hero = self.rng.choice((self.invent("first"), role))
        whose = "她的" if any(mark in hero for mark in _WOMEN) else self.rng.choice(("", "那个"))
        owned = f"{hero}的{described}"
        text, noun_phrase = self.rng.choice(
            (
                *((f"{hero}和{whose}{described}", described), (f"{hero}与{described}", described)),
                *((owned, owned), (hero + self.rng.choice(_DEEDS) + described, described)),
                (f"{self.rng.choice(_HEROES)}{hero}：一个关于{described}的故事", described),
            )
        )
        return _subject(text, noun_phrase, noun, hero)

    # -- facts ---------------------------------------------------------------------------------

    def _fact(self, subject: Subject) -> Fact:
        shape = self.rng.choices(tuple(SHAPES), tuple(SHAPES.values()))[0]
        if self.invent.tame and shape == "odd":
            shape = "sentence"
        told = self._told(shape, subject)
        if shape == "sentence" and not self.invent.tame and self.rng.random() < 0.12:
            told += self.rng.choice(_JOINTS) + self._told("clause", subject)
        asked = told + "。" if shape == "sentence" and self.rng.random() < 0.2 else told
        return Fact(shape=shape, asked=asked, told=told, told_inside=told)

    def _told(self, shape: str, subject: Subject) -> str:
        form = self.rng.choice(self.invent.believable(banks.sections("facts", "zh")[shape]))
        return banks.expand(
            form, lambda slot: subject.short if slot == "short" else self.invent(slot), self.rng
        )


def _subject(text: str, noun_phrase: str, short: str, hero: str = "") -> Subject:
    return Subject(text=text, noun_phrase=noun_phrase, short=short, plural=False, hero=hero)
