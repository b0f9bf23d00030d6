"""Messages to token ids: the scaffold may use control tokens, what people typed never can.

One scaffold serves writing and training. It is ChatML, which the model that ships and the
Qwen families speak; the template inside a model file is ignored (it is data from outside).
"""

from collections.abc import Callable, Sequence
from typing import TypedDict

Tokenize = Callable[[str, bool], list[int]]
"""(text, special) -> ids. With special=False the text `<|im_end|>` is nine ordinary characters."""

END_OF_TURN = "<|im_end|>"


class Message(TypedDict):
    role: str
    text: str


def prompt_ids(messages: Sequence[Message], tokenize: Tokenize) -> list[int]:
    """Token ids of a conversation that ends where the assistant's answer begins.

    Scaffold pieces are tokenised with control tokens on, every message text with them off,
    and the ids are joined: no text that a user types becomes a control token.
    """
    ids: list[int] = []
    for message in messages:
        ids += tokenize(f"<|im_start|>{message['role']}\n", True)
        ids += tokenize(message["text"], False)
        ids += tokenize(f"{END_OF_TURN}\n", True)
    return ids + tokenize("<|im_start|>assistant\n", True)


def completion_ids(text: str, tokenize: Tokenize) -> list[int]:
    """Token ids of an approved answer with its end-of-turn token, as training wants it."""
    return tokenize(text, False) + tokenize(END_OF_TURN, True)
