"""A tokenizer.json in the terms of GGUF, compared with the original before it is used.

Two kinds of text are left out of the comparison. llama.cpp has no normalizers: for a tokenizer that
composes characters first (NFC, as Qwen's does) decomposed text gets other ids. And ▁ itself, which
SentencePiece tokenizers write for a space, may join the spaces around it.
"""

import json
import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gguf
from llama_cpp import llama_cpp as llama
from tokenizers import Tokenizer

from inference.errors import ModelUnavailable
from inference.gguf.base import Base
from inference.gguf.files import finish, read_json

# llama.cpp knows pre-tokenizers by name only. The right name is the one that passes the probes.
_PRE_TOKENIZERS = ("qwen2", "llama-bpe", "gpt-2", "smollm", "tekken", "gpt-4o", "deepseek-llm", "default")
_WITHOUT_PREFIX, _WITH_PREFIX = "no space first", "a space first"  # what SentencePiece may add to a text
_PROBES = (
    "The library opens on 4 May at 10:30; tickets cost 1,250.50 euros (+3%).",
    "don't, WE'LL, it's  two  spaces\n\n\nand\ttabs \r\n   end   ",
    " ".join("." + " " * count for count in range(1, 20)) + "aaaaaaa!!!!!!======-----\n\n\n\n\n\t\t\t",
    "Grüße aus Köln: naïve café, Œuvre, Łódź, İstanbul, ﬁn",
    "漢字とかな交じり文。你好，世界！2024年5月4日 한국어 문장",
    "老电车站的重新开放——“读者”可以在这里借书……《安静的阅览室》；（周六 9:00—17:30）",
    "Привет, мир! Γειά σου שלום مرحبا नमस्ते ไทย",
    "👩‍🚀🎉 — “quotes” … ½ ² № ℡ e\u0301 \u00a0\u200b\u2028",
    "def f(x):\n    return x**2  # comment\n<|im_start|><|im_end|><s></s><0x0A>",
)
_MAX_ADDED_PROBES = 100


@dataclass(frozen=True)
class Vocabulary:
    """`merges` are for byte-level BPE, `scores` for the SentencePiece kind; probes decide the `variant`."""

    original: Tokenizer
    tokens: list[str]
    types: list[int]
    special_ids: dict[str, int]
    adds_bos: bool
    merges: list[str]
    scores: list[float]
    variant: str = ""

    @property
    def variants(self) -> tuple[str, ...]:
        return (_WITHOUT_PREFIX, _WITH_PREFIX) if self.scores else _PRE_TOKENIZERS

    def write(self, writer: gguf.GGUFWriter) -> None:
        writer.add_tokenizer_model("llama" if self.scores else "gpt2")
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        if self.scores:
            writer.add_tokenizer_pre("default")
            writer.add_token_scores(self.scores)
            writer.add_add_space_prefix(self.variant == _WITH_PREFIX)
        else:
            writer.add_tokenizer_pre(self.variant)
            writer.add_token_merges(self.merges)
        writer.add_add_bos_token(self.adds_bos)
        writer.add_add_eos_token(False)
        for name, number in self.special_ids.items():
            writer.add_uint32(f"tokenizer.ggml.{name}_token_id", number)


def read_vocabulary(folder: Path, base: Base, scratch: Path) -> Vocabulary:
    """Read tokenizer.json; raises ModelUnavailable if llama.cpp splits any probe in another way."""
    content = read_json(folder / "tokenizer.json", ModelUnavailable)
    if content["model"].get("type") != "BPE":
        raise ModelUnavailable(f"{folder} has no BPE tokenizer; give a ready-made GGUF file")
    vocabulary = _convert(content, base)
    probes = tuple(_probes(content))
    for variant in vocabulary.variants:
        candidate = replace(vocabulary, variant=variant)
        path = scratch / "vocabulary.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        candidate.write(writer)
        finish(writer)
        if _agrees(candidate.original, path, probes):
            return candidate
    raise ModelUnavailable(
        f"llama.cpp has no tokenizer that splits like this one of {folder}; give a ready-made GGUF file"
    )


def _convert(content: dict[str, Any], base: Base) -> Vocabulary:
    model = content["model"]
    size = int(base.config["vocab_size"])
    tokens = [f"[PAD{number}]" for number in range(size)]
    types = [int(gguf.TokenType.UNUSED)] * size
    is_sentencepiece = bool(model.get("byte_fallback"))
    for token, number in model["vocab"].items():
        tokens[number], types[number] = token, gguf.TokenType.NORMAL
        if is_sentencepiece and len(token) == 6 and token.startswith("<0x"):
            types[number] = gguf.TokenType.BYTE
    for added in content["added_tokens"]:
        tokens[added["id"]] = added["content"]
        types[added["id"]] = _type_of_added(added, model)
    merges = [
        tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]
    ]
    original = Tokenizer.from_str(json.dumps(content))
    special_ids = _special_ids(base.config, model if is_sentencepiece else {})
    return Vocabulary(
        original=original,
        tokens=tokens,
        types=types,
        special_ids=special_ids,
        adds_bos=original.encode("a").ids[:1] == [special_ids.get("bos")],
        merges=[" ".join(merge) for merge in merges],
        scores=_scores(tokens, merges) if is_sentencepiece else [],
    )


def _type_of_added(added: dict[str, Any], model: dict[str, Any]) -> int:
    if model.get("byte_fallback") and added["content"] == model.get("unk_token"):
        return gguf.TokenType.UNKNOWN
    if added["special"]:
        return gguf.TokenType.CONTROL
    # Gemma adds runs of ▁. As user-defined tokens llama.cpp would print them as they are; ordinary
    # ones come out as spaces, and the scores merge the same runs.
    if model.get("byte_fallback") and "▁" in added["content"] and added["content"] in model["vocab"]:
        return gguf.TokenType.NORMAL
    return gguf.TokenType.USER_DEFINED


def _scores(tokens: list[str], merges: list[tuple[str, ...]]) -> list[float]:
    """SentencePiece joins the pair whose token has the highest score: the earliest merge, the highest."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        ranks.setdefault("".join(merge), rank)
    return [-float(ranks.get(token, len(merges))) for token in tokens]


def _special_ids(config: dict[str, Any], model: dict[str, Any]) -> dict[str, int]:
    """Names of GGUF -> ids; of several end tokens the first."""
    names = {"bos": "bos_token_id", "eos": "eos_token_id", "padding": "pad_token_id"}
    found = {name: config.get(key) for name, key in names.items()}
    firsts = {name: ids[0] if isinstance(ids, list) else ids for name, ids in found.items()}
    firsts["unknown"] = model.get("vocab", {}).get(model.get("unk_token"))
    return {name: number for name, number in firsts.items() if number is not None}


def _probes(content: dict[str, Any]) -> Iterator[str]:
    """Texts of many scripts, and every added token between words."""
    contents = [token["content"] for token in content["added_tokens"]]
    added = [token for token in contents if "▁" not in token][:_MAX_ADDED_PROBES]
    composes = (content.get("normalizer") or {}).get("type") == "NFC"
    for probe in (*_PROBES, *(f"one{token}two {token} three\n{token}" for token in added)):
        yield unicodedata.normalize("NFC", probe) if composes else probe


def _agrees(original: Tokenizer, path: Path, probes: tuple[str, ...]) -> bool:
    params = llama.llama_model_default_params()
    params.vocab_only = True
    model = llama.llama_model_load_from_file(os.fsencode(path), params)
    if not model:
        return False
    try:
        vocab = llama.llama_model_get_vocab(model)
        return all(
            _original_ids(original, probe, special) == _llama_ids(vocab, probe, special)
            for probe in probes
            for special in (True, False)
        )
    finally:
        llama.llama_model_free(model)


def _original_ids(tokenizer: Tokenizer, text: str, special: bool) -> list[int]:
    tokenizer.encode_special_tokens = not special
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def _llama_ids(vocab: Any, text: str, special: bool) -> list[int]:
    raw = text.encode()
    ids = (llama.llama_token * (len(raw) + 8))()
    count = llama.llama_tokenize(vocab, raw, len(raw), ids, len(ids), False, special)
    return list(ids[:count])
