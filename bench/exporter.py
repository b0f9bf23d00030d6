"""The GGUF exporter: every family computes what torch computes, and what each quantization costs.

Families are random models of a few layers, base and with a LoRA of rsLoRA scale and rank and alpha
patterns. Quality is the perplexity of the model that ships on completions it has never seen, against
its F16 file, and how far its predictions move.
"""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.form import Row
from inference import gguf
from inference.chat import completion_ids, prompt_ids
from inference.tiny import MODEL_DIR
from inference.tiny.corpus import make_pair
from tests.support.families import FAMILIES, LORAS, save_lora, write_family
from tests.support.logits import LlamaFile, Logits, llama_logits, relative_error, silence, torch_logits

MAX_ERROR = 2e-3
NUM_PAIRS = 60
_SEED = 11
_IDS = (5, 80, 200, 17, 301, 44, 44, 499, 3, 120, 260, 7, 99, 410, 18, 333)
_LORA = "rslora and patterns"
# (quantization, type of the attention, bar for perplexity against F16)
_QUALITY: tuple[tuple[str, str | None, float], ...] = (
    ("Q8_0", None, 1.005),
    ("Q6_K", None, 1.01),
    ("Q4_K_M", None, 1.05),
    ("Q4_0", None, 1.1),
    ("Q4_0", "Q8_0", 1.05),
)


def measure() -> list[Row]:
    silence()
    with tempfile.TemporaryDirectory() as scratch, _quiet():
        rows = [row for family in FAMILIES for row in _family(family, Path(scratch) / family)]
        return rows + _quality(Path(scratch))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """transformers and peft talk about progress and about each other."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _family(family: str, folder: Path) -> list[Row]:
    from transformers import AutoModelForCausalLM

    model = write_family(folder / "model", family)
    exported = gguf.export_model(model, folder / "model.gguf", quantization="F32")
    adapted = save_lora(model, folder / "lora", **LORAS[_LORA])
    lora = gguf.export_lora(folder / "lora", model, folder / "lora.gguf")
    base = torch_logits(AutoModelForCausalLM.from_pretrained(model), _IDS)
    return [
        _comparison(f"{family}, base", llama_logits(exported, _IDS), base),
        _comparison(f"{family}, {_LORA}", llama_logits(exported, _IDS, lora), torch_logits(adapted, _IDS)),
    ]


def _comparison(claim: str, ours: Logits, reference: Logits) -> Row:
    error = relative_error(ours, reference)
    same = bool((ours.argmax(1) == reference.argmax(1)).all())
    return Row(
        claim=f"{claim}: worst relative error",
        figure=error,
        unit="",
        peer="torch, same argmax" if same else "torch, OTHER ARGMAX",
        bar=f"<= {MAX_ERROR}, same argmax",
        holds=error <= MAX_ERROR and same,
    )


def _quality(scratch: Path) -> list[Row]:
    plain = gguf.export_model(MODEL_DIR, scratch / "plain.gguf", quantization="F16")
    texts = _texts(plain)
    reference = _read(plain, texts)
    rows = [
        Row(claim="shipped model at F16: size", figure=_megabytes(plain), unit="MB"),
        Row(claim="shipped model at F16: perplexity", figure=reference.perplexity, unit=""),
    ]
    moved: dict[str, float] = {}
    for quantization, attention, limit in _QUALITY:
        small = gguf.export_model(
            MODEL_DIR, scratch / "small.gguf", quantization=quantization, attention=attention
        )
        name = f"{quantization}, attention {attention}" if attention else quantization
        found = _read(small, texts)
        coarse = moved.get(quantization, float("inf"))
        moved[name] = reference.divergence(found)
        ratio = found.perplexity / reference.perplexity
        rows += [
            Row(claim=f"{name}: size", figure=_megabytes(small), unit="MB"),
            Row(
                claim=f"{name}: perplexity against F16",
                figure=ratio,
                unit="",
                peer=f"{len(texts)} held-out pairs",
                bar=f"<= {limit}",
                holds=ratio <= limit,
            ),
            Row(
                claim=f"{name}: divergence from F16",
                figure=moved[name],
                unit="nats/token",
                peer=f"{quantization} {coarse:.4f}" if attention else "",
                bar=f"< {quantization}" if attention else "",
                holds=moved[name] < coarse,
            ),
            Row(claim=f"{name}: same first choice as F16", figure=reference.agreement(found), unit=""),
        ]
    return rows


@dataclass(frozen=True)
class _Reading:
    """Log-probabilities of a model over the completions, and those of the tokens that stand there."""

    all_tokens: list[Logits]
    chosen: Logits

    @property
    def perplexity(self) -> float:
        return float(np.exp(-self.chosen.mean()))

    def divergence(self, other: "_Reading") -> float:
        """Kullback-Leibler, in nats for each token: unlike perplexity it cannot fall by luck."""
        both = zip(self.all_tokens, other.all_tokens, strict=True)
        return float(np.concatenate([(np.exp(p) * (p - q)).sum(1) for p, q in both]).mean())

    def agreement(self, other: "_Reading") -> float:
        both = zip(self.all_tokens, other.all_tokens, strict=True)
        return float(np.concatenate([p.argmax(1) == q.argmax(1) for p, q in both]).mean())


def _read(model: Path, texts: Sequence[tuple[list[int], int]]) -> _Reading:
    all_tokens, chosen = [], []
    with LlamaFile(model, num_threads=2) as file:
        for ids, start in texts:
            rows = file.logits(ids)[start - 1 : -1]
            rows -= rows.max(1, keepdims=True)
            rows -= np.log(np.exp(rows).sum(1, keepdims=True))
            all_tokens.append(rows)
            chosen.append(rows[np.arange(len(rows)), ids[start:]])
    return _Reading(all_tokens, np.concatenate(chosen))


def _texts(model: Path) -> list[tuple[list[int], int]]:
    """(ids of prompt and completion, length of the prompt) of the held-out pairs that fit the context."""
    pairs = [make_pair(seed=_SEED, split="heldout", index=index) for index in range(NUM_PAIRS)]
    with LlamaFile(model) as file:
        prompts = [prompt_ids(pair.messages, file.tokenize) for pair in pairs]
        answers = [completion_ids(pair.text, file.tokenize) for pair in pairs]
        texts = [(prompt + answer, len(prompt)) for prompt, answer in zip(prompts, answers, strict=True)]
        return [text for text in texts if len(text[0]) <= file.num_context]


def _megabytes(path: Path) -> float:
    return path.stat().st_size / 1e6
