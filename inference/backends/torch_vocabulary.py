"""tokenizer.json as the engine needs it: ids of texts, and the exact bytes of ids."""

import re
from pathlib import Path

from tokenizers import Tokenizer

from inference.chat import END_OF_TURN
from inference.errors import ModelUnavailable


class Vocabulary:
    def __init__(self, folder: Path, *, size: int) -> None:
        """`size` is the number of tokens that the model has. Raises ModelUnavailable."""
        self._scaffold, self._typed = _read_tokenizer(folder), _read_tokenizer(folder)
        self._typed.encode_special_tokens = True
        added = self._typed.get_added_tokens_decoder()
        self.special_ids = frozenset(number for number, token in added.items() if token.special)
        self.num_tokens = max(self._typed.get_vocab().values()) + 1
        self._added_ids = frozenset(added)
        self._is_byte_level = _decodes_bytes(folder, self._typed)
        if self.num_tokens > size:
            raise ModelUnavailable(
                f"the tokenizer of {folder} has {self.num_tokens} tokens and the model {size}: fetch it again"
            )
        self._check_scaffold(folder)

    def tokenize(self, text: str, special: bool) -> list[int]:
        tokenizer = self._scaffold if special else self._typed
        whole = text.encode("utf-8", errors="replace").decode()  # half a surrogate pair has no UTF-8
        ids: list[int] = tokenizer.encode(whole, add_special_tokens=False).ids
        return ids

    def piece(self, token_id: int) -> bytes:
        """The bytes that a token stands for; none for control tokens and for numbers without a token."""
        token = self._typed.id_to_token(token_id)
        if token is None or token_id in self.special_ids:
            return b""
        if self._is_byte_level:
            return token.encode() if token_id in self._added_ids else bytes(_BYTES[sign] for sign in token)
        if re.fullmatch("<0x[0-9A-F]{2}>", token):
            return bytes.fromhex(token[3:5])
        return token.replace("▁", " ").encode()

    def _check_scaffold(self, folder: Path) -> None:
        for token in ("<|im_start|>", END_OF_TURN):
            ids = self.tokenize(token, True)
            if len(ids) != 1 or ids == self.tokenize(token, False):
                raise ModelUnavailable(
                    f"{folder} has no {token} token; use a model that speaks ChatML (the one that ships, "
                    "or one of the Qwen families) or put another one behind an OpenAI-compatible address"
                )


def _read_tokenizer(folder: Path) -> Tokenizer:
    path = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_str(path.read_text("utf-8"))
    except Exception as error:  # tokenizers raises nothing more precise
        raise ModelUnavailable(f"{path} cannot be read ({error}); fetch the model again") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _decodes_bytes(folder: Path, tokenizer: Tokenizer) -> bool:
    """Whether tokens are byte-level (GPT-2, Qwen), not SentencePiece's with ▁ for a space."""
    decoder = repr(tokenizer.decoder)
    if "ByteLevel" in decoder:
        return True
    if "ByteFallback" in decoder or "Metaspace" in decoder:
        return False
    raise ModelUnavailable(
        f"the tokens of {folder} are neither byte-level nor SentencePiece's, so their bytes are unknown; "
        "use a GGUF file of the model, or put it behind an OpenAI-compatible address"
    )


def _signs_of_bytes() -> dict[str, int]:
    """The visible sign that stands for each byte in a byte-level vocabulary (GPT-2, Radford et al. 2019)."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


_BYTES = _signs_of_bytes()
