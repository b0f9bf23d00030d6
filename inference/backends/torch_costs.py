"""Blank passes of the torch backend, for the table of costs."""

import math
from collections.abc import Callable
from pathlib import Path

import torch

from inference.backends import costs
from inference.backends.torch_load import device_names
from inference.engine.costs import CostTable
from inference.engine.scheduler import Row
from inference.engine.sequence import Sequence
from inference.types import ModelInfo, Request

# A GPU may not notice 128 tokens, and a step reads up to 512.
_SIZES = (*costs.SIZES, 256, 512)
_TOKEN = 0  # which token it is makes no difference to the time


def measured_costs(
    seconds_of: Callable[[list[Row]], float], *, cache: Path | None, info: ModelInfo, max_sequences: int
) -> CostTable:
    """The table from the folder `cache`, or a new one; `seconds_of` computes rows and draws their tokens."""
    key = (
        info.sha256, info.backend, info.quantization, info.context_length, max_sequences,
        torch.get_num_threads(), torch.__version__, *device_names(),
    )  # fmt: skip
    return costs.measured_costs(
        lambda size: seconds_of(blank_rows(size, max_sequences)),
        key=key,
        cache=cache,
        sizes=[size for size in _SIZES if size <= info.context_length],
    )


def blank_rows(num_tokens: int, max_sequences: int) -> list[Row]:
    """One new token in so many texts; what is more than `max_sequences` begins a prompt in the next slot."""
    num_texts = min(num_tokens, max_sequences)
    rows = [_blank_row(slot, 1) for slot in range(num_texts)]
    if num_tokens > num_texts:
        rows.append(_blank_row(num_texts, num_tokens - num_texts, num_more=1))
    return rows


def _blank_row(slot: int, num_tokens: int, *, num_more: int = 0) -> Row:
    """Tokens of a new prompt, of which `num_more` are left for later, so that nothing is drawn."""
    num_prompt = num_tokens + num_more
    blank = Sequence(
        ticket=-1,
        request=Request(id="", messages=({"role": "user", "text": ""},)),
        ids=[_TOKEN] * num_prompt,
        num_prompt=num_prompt,
        num_shared=0,
        max_ids=num_prompt + 1,
        deadline=math.inf,
        slot=slot,
    )
    return Row(blank, num_tokens)
