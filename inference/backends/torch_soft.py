"""Soft prompts: virtual tokens in front of every text of a lane, computed once and shared by all.

peft (0.21) saves every kind as one matrix, `prompt_embeddings`, with a row for each virtual token:
its embedding (prompt tuning, p-tuning), or its keys and values in every layer (prefix tuning).
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from inference import adapters
from inference.backends.torch_cache import TorchLane
from inference.errors import AdapterUnavailable

_MATRIX = "prompt_embeddings"


class SoftPrompt(NamedTuple):
    """`matrix` is [virtual tokens, width]; that of a prefix is layers * 2 * kv heads * head size."""

    folder: Path
    is_prefix: bool
    matrix: Tensor

    @property
    def num_tokens(self) -> int:
        return len(self.matrix)


def num_virtual_tokens(folder: Path) -> int:
    """0 for a LoRA. Raises AdapterUnavailable."""
    return adapters.num_virtual_tokens(adapters.read_config(folder))


def read_soft_prompt(folder: Path) -> SoftPrompt:
    """From a checked folder. Raises AdapterUnavailable."""
    path = folder / adapters.WEIGHTS_NAME
    config = adapters.read_config(folder)
    try:
        matrix = load_file(path)[_MATRIX]
    except (OSError, SafetensorError, KeyError) as error:
        raise AdapterUnavailable(f"{path} holds no soft prompt ({error}); save the adapter again") from error
    if matrix.ndim != 2 or len(matrix) != adapters.num_virtual_tokens(config):
        raise AdapterUnavailable(
            f"{path} is {tuple(matrix.shape)} numbers, no row for each virtual token; save the adapter again"
        )
    if not torch.isfinite(matrix).all():
        raise AdapterUnavailable(f"{path} holds values that are no numbers; train the adapter again")
    return SoftPrompt(folder, adapters.kind_of(config) == adapters.PREFIX_TUNING, matrix)


@torch.inference_mode()
def fill(lane: TorchLane, soft: SoftPrompt, model: PreTrainedModel) -> None:
    """Compute the cells of a new lane's virtual tokens. Raises AdapterUnavailable.

    Before a prefix is put in, a pass over zeros lays the cells out.
    """
    words: Any = model.get_input_embeddings()
    width = int(words.embedding_dim)
    embeddings = torch.zeros(soft.num_tokens, width) if soft.is_prefix else soft.matrix
    _check_width(soft, embeddings, width)
    layout = lane.lay_out_virtual(words.weight.device)
    model(
        inputs_embeds=embeddings[None].to(words.weight.device, model.dtype),
        position_ids=layout.positions,
        attention_mask=layout.mask,
        past_key_values=lane.cache,
        use_cache=True,
        logits_to_keep=1,
    )
    if soft.is_prefix:
        num_layers, pair, num_tokens, *heads = lane.virtual_shape
        _check_width(soft, soft.matrix, num_layers * pair * heads[0] * heads[1])
        lane.put_virtual(soft.matrix.view(num_tokens, num_layers, pair, *heads).permute(1, 2, 0, 3, 4))


def _check_width(soft: SoftPrompt, matrix: Tensor, wanted: int) -> None:
    if matrix.shape[1] != wanted:
        raise AdapterUnavailable(
            f"the soft prompt in {soft.folder} has {matrix.shape[1]} numbers for a token and this model "
            f"needs {wanted}; train it again on this model"
        )
