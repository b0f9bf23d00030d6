"""transformers on the weights that the GGUF was made from, in f32, without quantization."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from bench.bursts import NUM_THREADS, REPEAT_PENALTY, TEMPERATURE, TOP_K, TOP_P, Brief, Stream
from bench.peers.errors import PeerFailed

_NUM_BLOCKS = 16  # of 256 tokens; without a number it takes more than half of the memory
_SAMPLING = {"do_sample": True, "temperature": TEMPERATURE, "top_k": TOP_K, "top_p": TOP_P}


class _TorchPeer:
    def __init__(self, hf: Path) -> None:
        self._hf = hf

    def __enter__(self) -> Self:
        import torch
        from transformers import AutoModelForCausalLM

        logging.getLogger("transformers").setLevel(logging.ERROR)
        torch.set_num_threads(NUM_THREADS)
        torch.manual_seed(1)
        self._model: Any = AutoModelForCausalLM.from_pretrained(self._hf, dtype=torch.float32)
        return self

    def __exit__(self, *_: object) -> None:
        del self._model


class TorchGenerate(_TorchPeer):
    """`generate` with one batch; nothing can be read before all texts are written."""

    name = "transformers generate"

    def write(self, briefs: Sequence[Brief], num_tokens: int) -> list[Stream]:
        import torch

        began = time.perf_counter()
        longest = max(len(brief.ids) for brief in briefs)
        ids = torch.tensor([[0] * (longest - len(brief.ids)) + list(brief.ids) for brief in briefs])
        mask = torch.tensor([[0] * (longest - len(brief.ids)) + [1] * len(brief.ids) for brief in briefs])
        lengths = {"min_new_tokens": num_tokens, "max_new_tokens": num_tokens}
        self._model.generate(
            ids, attention_mask=mask, repetition_penalty=REPEAT_PENALTY, **_SAMPLING, **lengths
        )
        end = time.perf_counter() - began
        return [Stream(((end, num_tokens),)) for _ in briefs]


class TorchContinuous(_TorchPeer):
    """Continuous batching, with one manager for all bursts."""

    name = "transformers continuous"

    def __enter__(self) -> Self:
        from transformers import ContinuousBatchingConfig, GenerationConfig

        super().__enter__()
        # Without a repetition penalty: the packed batch has no rows to tell texts apart by.
        settings = GenerationConfig(**_SAMPLING, eos_token_id=-1, pad_token_id=0)  # type: ignore[no-untyped-call]
        limits = ContinuousBatchingConfig(
            num_blocks=_NUM_BLOCKS, max_batch_tokens=512, auto_switch_to_flash=False
        )
        self._manager = self._model.init_continuous_batching(settings, limits)
        self._manager.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.stop(block=True, timeout=10)
        super().__exit__()

    def write(self, briefs: Sequence[Brief], num_tokens: int) -> list[Stream]:
        began = time.perf_counter()
        prompts = [list(brief.ids) for brief in briefs]
        ids = self._manager.add_requests(prompts, max_new_tokens=num_tokens, streaming=True)
        arrivals: dict[str, list[tuple[float, int]]] = {id_: [] for id_ in ids}
        num_open = len(ids)
        while num_open and self._manager.is_running():
            if result := self._manager.get_result(timeout=1):
                told = arrivals[result.request_id]
                if new := len(result.generated_tokens) - sum(count for _, count in told):
                    told.append((time.perf_counter() - began, new))
                num_open -= result.is_finished()
        if not all(arrivals.values()):
            raise PeerFailed("continuous batching gave a text up")
        return [Stream(tuple(found)) for found in arrivals.values()]
