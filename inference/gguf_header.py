"""The header of a GGUF file, read from any stream and without the library: it may lie on a server."""

import math
import struct
from dataclasses import dataclass
from typing import Any, Protocol

from inference.errors import ModelUnavailable

# What a header may claim before we take it for damaged: it comes from outside.
_MAX_STRING = 1 << 24
_MAX_COUNT = 1 << 22
_KEPT_ITEMS = 4096  # of an array; the vocabulary and its merges are longer and are not kept

_NUMBERS = dict(enumerate(("<B", "<b", "<H", "<h", "<I", "<i", "<f", "<?"))) | {10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9

# `general.file_type` by its number, see llama.h; the gaps are types that are no longer written.
_FILE_TYPES = (
    *("F32", "F16", "Q4_0", "Q4_1", "", "", "", "Q8_0", "Q5_0", "Q5_1", "Q2_K", "Q3_K_S", "Q3_K_M"),
    *("Q3_K_L", "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K", "IQ2_XXS", "IQ2_XS", "Q2_K_S", "IQ3_XS"),
    *("IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ3_M", "IQ2_S", "IQ2_M", "IQ4_XS", "IQ1_M", "BF16"),
)


class Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, kw_only=True)
class Header:
    """Metadata without its long arrays; of the vocabulary its size and whether it has the ChatML tokens."""

    metadata: dict[str, Any]
    num_params: int
    vocab_size: int
    speaks_chatml: bool

    @property
    def quantization(self) -> str:
        number = self.metadata.get("general.file_type", -1)
        is_known = isinstance(number, int) and 0 <= number < len(_FILE_TYPES)
        return (_FILE_TYPES[number] if is_known else "") or "mixed"


def read_header(stream: Stream, *, name: str) -> Header:
    """Raises ModelUnavailable where the bytes are no GGUF header; `name` is for that sentence."""
    try:
        return _Reader(stream).header()
    except (struct.error, ValueError, OverflowError, TypeError) as error:
        raise ModelUnavailable(
            f"{name} is not a GGUF file, or it is damaged ({error}); fetch it again"
        ) from error


class _Reader:
    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._vocab_size = 0
        self._chatml: set[str] = set()

    def header(self) -> Header:
        if self._bytes(4) != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        if (version := self._number("<I")) not in (2, 3):
            raise ValueError(f"version {version}")
        num_tensors, num_values = self._count(), self._count()
        metadata = dict(self._pair() for _ in range(num_values))
        num_params = sum(self._tensor() for _ in range(num_tensors))
        return Header(
            metadata=metadata,
            num_params=num_params,
            vocab_size=self._vocab_size,
            speaks_chatml=len(self._chatml) == 2,
        )

    def _pair(self) -> tuple[str, Any]:
        key = self._string()
        return key, self._value(self._number("<I"), key)

    def _value(self, kind: int, key: str) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            return self._array(key)
        if kind not in _NUMBERS:
            raise ValueError(f"a value of the unknown kind {kind}")
        return self._number(_NUMBERS[kind])

    def _array(self, key: str) -> list[Any]:
        kind, count = self._number("<I"), self._count()
        if kind == _ARRAY:
            raise ValueError("an array of arrays")
        if kind != _STRING and count > _KEPT_ITEMS:
            self._bytes(count * struct.calcsize(_NUMBERS.get(kind, "<Q")))
            return []
        kept = []
        for number in range(count):
            item = self._value(kind, key)
            if number < _KEPT_ITEMS:
                kept.append(item)
            if key == "tokenizer.ggml.tokens":
                self._chatml |= {item} & {"<|im_start|>", "<|im_end|>"}
        if key == "tokenizer.ggml.tokens":
            self._vocab_size = count
        return kept if count <= _KEPT_ITEMS else []

    def _tensor(self) -> int:
        """The number of its values."""
        self._string()
        dimensions = [self._number("<Q") for _ in range(min(self._number("<I"), 8))]
        self._number("<I")  # its type
        self._number("<Q")  # where it begins
        return math.prod(dimensions)

    def _count(self) -> int:
        count: int = self._number("<Q")
        if count > _MAX_COUNT:
            raise ValueError(f"{count} items")
        return count

    def _string(self) -> str:
        size: int = self._number("<Q")
        if size > _MAX_STRING:
            raise ValueError(f"a string of {size} bytes")
        return self._bytes(size).decode("utf-8", errors="replace")

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._bytes(struct.calcsize(form)))[0]

    def _bytes(self, size: int) -> bytes:
        data = self._stream.read(size)
        if len(data) < size:
            raise ValueError("it ends too early")
        return data
