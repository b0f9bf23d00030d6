"""Models with random weights in real sizes: their speed is real, their text is not.

They are made once and kept, in GALLEY_BENCH_CACHE or ~/.cache/galley-bench. A folder's name ends in
a digest of all that it was made from, so a new tokenizer or another shape makes a new folder.
"""

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from inference import AdapterRef, adapters
from inference.errors import AdapterUnavailable
from inference.gguf import export_lora, export_model
from inference.models import resolve
from inference.tiny import MODEL_DIR

_TOKENIZER = "tokenizer.json"
_TOKENIZER_FILES = (_TOKENIZER, "tokenizer_config.json", "chat_template.jinja")
_GGUF_NAME = "model-q4_0.gguf"
_FORMAT = 1  # of the folders in the cache; add one when a new exporter has to write them again


@dataclass(frozen=True, kw_only=True)
class Shape:
    """`config` are the arguments of transformers' AutoConfig; `num_vocab` None is that of the tokenizer."""

    name: str
    config: dict[str, Any]
    num_vocab: int | None = None


LLAMA_93M = Shape(
    name="93M",
    config={
        "model_type": "llama",
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "num_key_value_heads": 12,
        "max_position_embeddings": 2048,
    },
)
QWEN_05B = Shape(
    name="0.5B",
    config={
        "model_type": "qwen2",
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
    },
    num_vocab=151_936,
)


def cached_model(shape: Shape) -> Path:
    """The Q4_0 GGUF of a shape, with the weights that it was made from in `hf` beside it."""
    folder = _cache() / f"{shape.name}-{_digest(shape)}"
    if not (folder / _GGUF_NAME).exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            _make(shape, Path(scratch) / "model")
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(Path(scratch) / "model", folder)
    return folder / _GGUF_NAME


def cached_adapter(model: Path, *, seed: int) -> AdapterRef:
    """A sealed LoRA of rank 16 on all linear layers of what `cached_model` made."""
    folder = model.parent / f"adapter-{seed}"
    try:
        return AdapterRef(sha256=adapters.check(folder).sha256, path=str(folder))
    except AdapterUnavailable:
        shutil.rmtree(folder, ignore_errors=True)
        return random_adapter(model.parent, model, seed=seed)


def random_adapter(folder: Path, model: Path, *, seed: int) -> AdapterRef:
    """Make `folder`/adapter-SEED for the weights in `folder`/hf, whose GGUF is `model`."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    config = LoraConfig(task_type="CAUSAL_LM", r=16, target_modules="all-linear", init_lora_weights=False)
    target = folder / f"adapter-{seed}"
    get_peft_model(AutoModelForCausalLM.from_pretrained(folder / "hf"), config).save_pretrained(str(target))
    export_lora(target, folder / "hf", target / adapters.GGUF_NAME)
    manifest = adapters.seal(target, base_sha256=resolve(str(model), folder).sha256)
    return AdapterRef(sha256=manifest.sha256, path=str(target))


def hf_folder(model: Path) -> Path:
    """The weights that a model of `cached_model` was made from."""
    return model.parent / "hf"


def _make(shape: Shape, folder: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    hf = folder / "hf"
    hf.mkdir(parents=True)
    for name in _TOKENIZER_FILES:
        shutil.copyfile(MODEL_DIR / name, hf / name)
    if shape.num_vocab:
        _pad_vocabulary(hf / _TOKENIZER, shape.num_vocab)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(hf)  # type: ignore[no-untyped-call]
    config = AutoConfig.for_model(
        **shape.config,
        vocab_size=len(tokenizer),
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        # Their logits are 0, never among the 40 highest of thousands: no text ends before its time.
        model.get_input_embeddings().weight[list(tokenizer.added_tokens_decoder)] = 0.0
    model.to(torch.bfloat16).save_pretrained(hf)
    export_model(hf, folder / _GGUF_NAME, quantization="Q4_0")


def _pad_vocabulary(path: Path, size: int) -> None:
    """Fill up with made-up words that no merge leads to: prompts stay as they are, answers use them."""
    content = json.loads(path.read_text())
    vocab = content["model"]["vocab"]
    start = max(*vocab.values(), *(token["id"] for token in content["added_tokens"])) + 1
    vocab |= {f"Ġzq{number}": number for number in range(start, size)}
    path.write_text(json.dumps(content, ensure_ascii=False))


def _cache() -> Path:
    return Path(os.environ.get("GALLEY_BENCH_CACHE") or Path.home() / ".cache" / "galley-bench")


def _digest(shape: Shape) -> str:
    digest = sha256(repr((_FORMAT, shape)).encode())
    for name in _TOKENIZER_FILES:
        digest.update((MODEL_DIR / name).read_bytes())
    return digest.hexdigest()[:12]
