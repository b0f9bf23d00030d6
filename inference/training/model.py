"""The only room of the school that touches tensors: load a base model, put a LoRA on it, take losses."""

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from inference import adapters
from inference.chat import END_OF_TURN, Tokenize
from inference.errors import AdapterUnavailable, ModelUnavailable
from inference.training.config import SftConfig
from inference.training.data import Example
from inference.training.state import to_bytes

LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def choose_device(wish: str) -> torch.device:
    if wish == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wish)


def load_tokenize(model_dir: str) -> Tokenize:
    """The folder's tokenizer as a function (text, special) -> ids."""
    tokenizer = _load(AutoTokenizer, model_dir)

    def tokenize(text: str, special: bool) -> list[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=not special)
        return ids

    end_of_turn = tokenize(END_OF_TURN, True)
    if len(end_of_turn) != 1 or set(end_of_turn) & set(tokenize(END_OF_TURN, False)):
        raise ModelUnavailable(
            f"The tokenizer of {model_dir} has no control token {END_OF_TURN}: choose a ChatML model."
        )
    return tokenize


def load_base(model_dir: str, device: torch.device) -> PreTrainedModel:
    """Weights in float32: a LoRA learns in small steps that bfloat16 would round away."""
    model: Any = _load(AutoModelForCausalLM, model_dir, dtype=torch.float32, use_safetensors=True)
    base: PreTrainedModel = model.to(device)
    return base


def _load(loader: Any, model_dir: str, **options: Any) -> Any:
    if not (Path(model_dir) / "config.json").is_file():
        raise ModelUnavailable(f"{model_dir} is not a Hugging Face model folder: it has no config.json.")
    try:
        return loader.from_pretrained(model_dir, local_files_only=True, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelUnavailable(f"The model in {model_dir} cannot be loaded: {error}") from error


def add_lora(base: PreTrainedModel, config: SftConfig) -> PeftModel:
    """A fresh LoRA on every linear layer; it changes nothing yet, because lora_b starts at zero."""
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]
        lora_dropout=config.dropout,
        target_modules=list(LINEAR_LAYERS),
        task_type="CAUSAL_LM",
    )
    try:
        with _old_name_allowed():
            model = get_peft_model(base, lora)
    except ValueError as error:
        raise ModelUnavailable(f"{config.model_dir} is of a kind that cannot be trained: {error}") from error
    # peft notes the folder's path; the hash is the same on every machine.
    lora.base_model_name_or_path = config.base_sha256
    return model  # type: ignore[return-value]


def load_lora(base: PreTrainedModel, folder: Path) -> PeftModel:
    """The base with a sealed adapter on it."""
    adapters.check(folder)
    try:
        with _old_name_allowed():
            return PeftModel.from_pretrained(base, str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise AdapterUnavailable(f"The adapter in {folder} does not fit this model: {error}") from error


def adapter_files(model: PeftModel) -> dict[str, bytes]:
    """The two files that peft reads. Equal weights give equal bytes: its own writer orders sets by chance."""
    config = model.peft_config["default"].to_dict() | {"inference_mode": True}
    text = json.dumps(config, indent=2, sort_keys=True, default=sorted)
    # peft would otherwise ask a hub whether the vocabulary has grown.
    weights = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {
        "adapter_config.json": text.encode(),
        "adapter_model.safetensors": to_bytes(weights, metadata={"format": "pt"}),
    }


@contextmanager
def _old_name_allowed() -> Iterator[None]:
    """peft 0.21 reads an attribute that transformers 5 has renamed, and is warned of it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        yield


@dataclass(frozen=True)
class Batch:
    """Examples side by side, padded on the right: under causal attention no real token sees padding.

    `ids` is [examples, width]. Only predictions from position `first` on are wanted;
    `mask` is [examples, width - 1 - first], 1 where the predicted token belongs to a completion.
    """

    ids: Tensor
    mask: Tensor
    first: int


def collate(examples: Sequence[Example], device: torch.device) -> Batch:
    width = max(example.num_tokens for example in examples)
    first = min(len(example.prompt) for example in examples) - 1
    ids = torch.zeros(len(examples), width, dtype=torch.long)
    mask = torch.zeros(len(examples), width)
    for row, example in enumerate(examples):
        ids[row, : example.num_tokens] = torch.tensor(example.prompt + example.completion)
        mask[row, len(example.prompt) : example.num_tokens] = 1.0
    return Batch(ids.to(device), mask[:, first + 1 :].to(device), first)


def completion_losses(model: torch.nn.Module, batch: Batch) -> Tensor:
    """Sum over its completion of each example's negative log likelihood in nats: [examples]."""
    width = batch.ids.shape[1]
    wanted = torch.arange(batch.first, width - 1, device=batch.ids.device)
    is_cuda = batch.ids.device.type == "cuda"
    with torch.autocast(batch.ids.device.type, dtype=torch.bfloat16, enabled=is_cuda):
        logits = model(input_ids=batch.ids, logits_to_keep=wanted, use_cache=False).logits
    targets = batch.ids[:, batch.first + 1 :]
    # One row per token: only this form of the loss has a deterministic CUDA kernel.
    losses = functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
    return (losses.view_as(targets) * batch.mask).sum(dim=1)
