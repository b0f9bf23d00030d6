"""From a brief and a style to the messages that a model reads, for writing and for training alike.

Pure Python on purpose: the corpus of the model that ships is built with the same function,
so what the model saw in training is, to the letter, what it is asked in production.
"""

from dataclasses import dataclass, field
from typing import Literal, TypedDict

Role = Literal["system", "user", "assistant"]
Task = Literal["continue", "rewrite", "shorten", "expand", "headline"]


class Message(TypedDict):
    role: Role
    text: str


@dataclass(frozen=True, kw_only=True)
class BriefFields:
    """What an editor asks for; the fields that every brief form has."""

    subject: str
    audience: str = ""
    angle: str = ""
    must_say: tuple[str, ...] = field(default=())
    must_not_say: tuple[str, ...] = field(default=())
    tone: str = ""
    num_words: int = 120


def build_messages(*, style: str, instructions: str, brief: BriefFields) -> list[Message]:
    """The two messages that ask for a draft: the style as system, the brief as user.

    `style` is the name of the preset's kind (news, fiction, marketing or a custom name).
    Empty fields leave no line behind.
    """
    return [
        {"role": "system", "text": _style_lines(style, instructions)},
        {"role": "user", "text": _brief_lines(brief)},
    ]


def build_task_messages(
    *, style: str, instructions: str, task: Task, text: str, num_words: int | None = None, wish: str = ""
) -> list[Message]:
    """The two messages that ask for work on a given text: rewrite it in the style, shorten it and so on.

    The text comes last and is repeated as it is, with its lines.
    """
    lines = [f"Task: {task}"]
    lines += [f"Wish: {_one_line(wish)}"] if wish.strip() else []
    lines += [f"Length: {num_words} words"] if num_words else []
    return [
        {"role": "system", "text": _style_lines(style, instructions)},
        {"role": "user", "text": "\n".join([*lines, "Text:", text.strip()])},
    ]


def _style_lines(style: str, instructions: str) -> str:
    return "\n".join([f"Style: {style}", *([instructions.strip()] if instructions.strip() else [])])


def _brief_lines(brief: BriefFields) -> str:
    lines = [f"Subject: {_one_line(brief.subject)}"]
    lines += [
        f"{label}: {_one_line(value)}"
        for label, value in (("Audience", brief.audience), ("Angle", brief.angle), ("Tone", brief.tone))
        if value.strip()
    ]
    for label, items in (("Must say", brief.must_say), ("Must not say", brief.must_not_say)):
        if items:
            lines += [f"{label}:", *(f"- {_one_line(item)}" for item in items)]
    lines.append(f"Length: {brief.num_words} words")
    return "\n".join(lines)


def _one_line(text: str) -> str:
    return " ".join(text.split())
