"""A random, very small model of every family that can become GGUF, with a tokenizer of its kind, and LoRAs.

Norms, biases and B are random too: what a fresh model leaves at 0 or 1 hides mistakes.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.support.tiny_hf import SAMPLE_TEXT

VOCAB = 512
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": True},
    "mistral": {"sliding_window": None},
    "qwen2": {},
    "qwen3": {},
    "gemma": {"head_dim": 64},
    "gemma2": {"sliding_window": 5, "query_pre_attn_scalar": 100, "attn_logit_softcapping": 4.0},
    "gemma3_text": {"sliding_window": 5, "query_pre_attn_scalar": 100, "sliding_window_pattern": 3},
}
LORAS: dict[str, dict[str, Any]] = {
    "plain": {"r": 4, "lora_alpha": 8},
    "rslora": {"r": 8, "lora_alpha": 16, "use_rslora": True},
    "patterns": {
        "r": 4,
        "lora_alpha": 8,
        "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.down_proj": 6},
        "alpha_pattern": {"k_proj": 32, r"layers\.\d\.mlp\.up_proj": 3},
    },
}
LORAS["rslora and patterns"] = LORAS["patterns"] | {"use_rslora": True}
_MORE_TEXT = (
    "The library opens on 4 May at 10:30; tickets cost 12.50 euros. don't  we'll\n\n\n",
    "Grüße aus Köln, 老电车站的重新开放，读者可以在这里借书。Привет, мир!",
)


def write_family(folder: Path, family: str, **changes: Any) -> Path:
    """Write config, weights (float32) and tokenizer.json of 512 tokens; `changes` go into the config."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    shape: dict[str, Any] = {
        "vocab_size": VOCAB, "hidden_size": 128, "intermediate_size": 160, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
        "head_dim": 32, "tie_word_embeddings": family.startswith("gemma"), "bos_token_id": None,
        "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.08,
    }  # fmt: skip
    torch.manual_seed(7)
    config = AutoConfig.for_model(family, **(shape | FAMILIES[family] | changes))
    model = AutoModelForCausalLM.from_config(config).float()  # type: ignore[no-untyped-call]
    for name, weights in model.named_parameters():
        if "norm" in name or name.endswith("bias"):
            torch.nn.init.normal_(weights, mean=weights.detach().mean().item(), std=0.2)
    model.save_pretrained(folder)
    save_tokenizer = write_sentencepiece if family.startswith("gemma") else write_byte_level
    save_tokenizer(folder)
    return folder


def save_lora(base: Path, folder: Path, **options: Any) -> Any:
    """Save a LoRA on all linear layers whose B is not zero; return the adapted model."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    config = LoraConfig(task_type="CAUSAL_LM", **({"target_modules": LINEAR} | options))
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).eval()
    for name, weights in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.05)
    adapted.save_pretrained(str(folder))
    return adapted


def save_soft_prompt(base: Path, folder: Path, kind: str, *, num_tokens: int = 6, **options: Any) -> Any:
    """Save random virtual tokens, of a `kind` by its name in peft; return the adapted model."""
    import torch
    from peft import PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    kinds = {
        "PREFIX_TUNING": PrefixTuningConfig,
        "PROMPT_TUNING": PromptTuningConfig,
        "P_TUNING": PromptEncoderConfig,
    }
    config = kinds[kind](task_type="CAUSAL_LM", num_virtual_tokens=num_tokens, **options)
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).eval()
    adapted.save_pretrained(str(folder))
    return adapted


def write_byte_level(folder: Path, *, composes: bool = False) -> None:
    """Byte-level BPE that splits words as Qwen2 does, with Qwen's normalizer on request."""
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        trainers,
    )

    split = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    tokenizer = Tokenizer(models.BPE())
    if composes:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    specials = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in specials],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((*SAMPLE_TEXT, *_MORE_TEXT), trainer)
    tokenizer.save(str(folder / "tokenizer.json"))


def write_sentencepiece(folder: Path, *, prefix: bool = False) -> None:
    """BPE with bytes to fall back to, as transformers makes it of a SentencePiece model: every way to
    split a token is a merge. Gemma's form; with `prefix` that of Llama 2, which puts a space first.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

    vocabulary = _pieces()
    merges = [
        (token[:cut], token[cut:])
        for token in vocabulary
        if not token.startswith("<")
        for cut in range(1, len(token))
        if token[:cut] in vocabulary and token[cut:] in vocabulary
    ]
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    spaces = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if prefix else spaces
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    specials = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>")
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    if not prefix:
        runs = ("\n\n", "▁▁", "▁▁▁")
        tokenizer.add_tokens([AddedToken(run, special=False, normalized=False) for run in runs])
    tokenizer.save(str(folder / "tokenizer.json"))


def _pieces() -> dict[str, int]:
    """Specials, bytes, runs, then what byte-pair counting finds in the sample text, with characters last."""
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", *(f"<0x{n:02X}>" for n in range(256))]
    pieces += ["\n", "\n\n", "▁", "▁▁", "▁▁▁"]
    text = " ".join((*SAMPLE_TEXT, *_MORE_TEXT)).replace(" ", "▁")
    symbols = list(text)
    characters = [character for character in dict.fromkeys(symbols) if character not in pieces]
    while len(pieces) + len(characters) < VOCAB:
        pairs = list(pairwise(symbols))
        best = max(dict.fromkeys(pairs), key=pairs.count)
        pieces.append("".join(best))
        symbols = _join(symbols, best)
    return {piece: number for number, piece in enumerate(dict.fromkeys(pieces + characters))}


def _join(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    joined: list[str] = []
    for symbol in symbols:
        if joined and (joined[-1], symbol) == pair:
            joined[-1] += symbol
        else:
            joined.append(symbol)
    return joined
