"""Trains the small model, from nothing or from another's weights: the same code on a CPU and on a GPU."""

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from torch.nn import functional
from tqdm import tqdm
from transformers import (
    AttentionInterface,
    AutoModelForCausalLM,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
)

from inference.chat import END_OF_TURN
from inference.tiny.batches import IGNORED, Batch, PackedPairs, load_batches
from inference.tiny.muon import Muon
from inference.tiny.recipe import Recipe
from inference.tiny.tokenizer import END_OF_TEXT, MAX_TOKENS, load_tokenizer

_SPREAD = 0.02  # standard deviation of fresh embeddings, as in LlamaConfig


def new_model(recipe: Recipe, tokenizer_dir: Path) -> LlamaForCausalLM:
    tokenizer = load_tokenizer(tokenizer_dir)
    torch.manual_seed(recipe.seed)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=recipe.hidden,
        intermediate_size=recipe.feed_forward,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        max_position_embeddings=MAX_TOKENS,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.token_to_id(END_OF_TURN),
        pad_token_id=tokenizer.token_to_id(END_OF_TEXT),
    )
    return LlamaForCausalLM(config)


@torch.no_grad()
def take_over(model: LlamaForCausalLM, tokenizer_dir: Path, start: Path) -> None:
    """Begin with the weights of `start`, a folder of the same shape whose tokenizer may be another.

    A token that both vocabularies have keeps its embedding. Another gets the mean of the tokens
    into which the earlier tokenizer cuts it, and some noise, so that tokens of the same pieces
    come apart.
    """
    earlier = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32).state_dict()
    own = model.state_dict()
    for name, weights in own.items():
        if weights.shape == earlier[name].shape and "embed" not in name and "lm_head" not in name:
            weights.copy_(earlier[name])
        elif weights.shape[1:] != earlier[name].shape[1:]:
            raise SystemExit(
                f"{start} has another shape ({name}): give the same --hidden, --layers and so on."
            )
    cutter, known = load_tokenizer(start), earlier["model.embed_tokens.weight"]
    vocabulary, earlier_vocabulary = load_tokenizer(tokenizer_dir).get_vocab(), cutter.get_vocab()
    embeddings = cast(torch.Tensor, model.get_input_embeddings().weight)
    noise = torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(0)) * _SPREAD
    for token, number in vocabulary.items():
        if token in earlier_vocabulary:
            embeddings[number] = known[earlier_vocabulary[token]]
        else:
            pieces = [piece.id for piece in cutter.model.tokenize(token)]
            embeddings[number] = known[pieces].mean(dim=0) + noise[number]


class Trainer:
    """One training: `run` goes on from the last checkpoint in `out`, if there is one."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        tokenizer_dir: Path,
        out: Path,
        workers: int = 0,
        compiled: bool = False,
        start: Path | None = None,
        teacher: Path | None = None,
    ) -> None:
        if recipe.rows % recipe.accumulate:
            raise SystemExit(f"{recipe.rows} rows cannot be read in {recipe.accumulate} equal parts.")
        self.recipe, self.tokenizer_dir, self.out, self.workers = recipe, tokenizer_dir, out, workers
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.in_bf16 = has_fast_bf16(self.device)
        self.model = new_model(recipe, tokenizer_dir)
        if start:
            take_over(self.model, tokenizer_dir, start)
        self._place(self.model)
        self.body = torch.compile(self.model.model) if compiled else self.model.model
        self.teacher = self._load_teacher(teacher) if teacher else None
        self.optimizers = self._new_optimizers()
        self.step = 0
        self.losses: list[float] = []
        out.mkdir(parents=True, exist_ok=True)

    def _load_teacher(self, folder: Path) -> LlamaForCausalLM:
        if load_tokenizer(folder).get_vocab() != load_tokenizer(self.tokenizer_dir).get_vocab():
            raise SystemExit(f"{folder} has another vocabulary: a teacher has to speak in the same tokens.")
        teacher = cast(LlamaForCausalLM, AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))
        self._place(teacher)
        teacher.eval().requires_grad_(False)  # type: ignore[no-untyped-call]
        return teacher

    def _place(self, model: LlamaForCausalLM) -> None:
        model.to(self.device)  # type: ignore[arg-type]  # transformers wraps it without types
        if self.device.type == "cpu":
            model.set_attn_implementation(_BY_DOCUMENT)

    def _new_optimizers(self) -> list[torch.optim.Optimizer]:
        """AdamW for embeddings and norms, Muon for the matrices of the layers."""
        rate, decay = self.recipe.learning_rate, self.recipe.weight_decay
        embeddings = [self.model.get_input_embeddings().weight]
        matrices = [p for p in self.model.model.layers.parameters() if p.dim() > 1]
        vectors = [p for p in self.model.parameters() if p.dim() == 1]
        groups = [{"params": embeddings, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
        return [
            torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), fused=True),
            Muon(matrices, lr=rate, weight_decay=decay),
        ]

    def run(self) -> None:
        self.resume()
        recipe = self.recipe
        data = PackedPairs(
            self.tokenizer_dir,
            seed=recipe.seed,
            rows=recipe.rows,
            length=recipe.length,
            first=self.step,
            last=recipe.steps,
        )
        self.model.train()
        with tqdm(total=recipe.steps, initial=self.step, unit="step", mininterval=5) as progress:
            began = time.monotonic()
            for batch in load_batches(data, self.workers):
                self.losses.append(self.train_step(batch).item())
                self.step += 1
                speed = recipe.rows * recipe.length / (time.monotonic() - began)
                progress.set_postfix_str(f"loss {self.losses[-1]:.3f}, {speed:,.0f} tokens/s", refresh=False)
                progress.update()
                if self.step % recipe.checkpoint_every == 0 or self.step == recipe.steps:
                    self.save_checkpoint()
                began = time.monotonic()
        self.save_model()

    def train_step(self, batch: Batch) -> torch.Tensor:
        """One update from a batch, read in `accumulate` parts that weigh by their counted tokens."""
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            group["lr"] = self.recipe.learning_rate * rate_share(self.step, self.recipe)
        total = torch.zeros((), device=self.device)
        num_counted = (batch.labels != IGNORED).sum().item()
        for part in _parts(batch, self.recipe.rows // self.recipe.accumulate):
            share = (part.labels != IGNORED).sum().item() / num_counted
            loss = self.loss(part) * share
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return total

    def loss(self, batch: Batch) -> torch.Tensor:
        """Mean cross-entropy over the tokens of the completions; in training a teacher's part is mixed in."""
        batch = Batch(*(tensor.to(self.device, non_blocking=True) for tensor in batch))
        counted = batch.labels != IGNORED
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.in_bf16):
            logits = self._logits(self.model, self.body, batch, counted)
        loss = functional.cross_entropy(logits, batch.labels[counted])
        if self.teacher is None or not self.model.training:
            return loss
        with torch.no_grad(), torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.in_bf16):
            taught = self._logits(self.teacher, self.teacher.model, batch, counted)
        share = self.recipe.teacher_share
        return (1 - share) * loss + share * distance(logits, taught, self.recipe.teacher_temperature)

    @torch.no_grad()
    def heldout_loss(self, num_batches: int) -> float:
        """Mean cross-entropy, in nats per token, over the first batches of the held-out split."""
        recipe = self.recipe
        self.model.eval()  # type: ignore[no-untyped-call]
        data = PackedPairs(
            self.tokenizer_dir,
            seed=recipe.seed,
            rows=recipe.rows,
            length=recipe.length,
            first=0,
            last=num_batches,
            split="heldout",
        )
        losses = [self.loss(data[number]).item() for number in range(num_batches)]
        return sum(losses) / num_batches

    def _logits(
        self, model: LlamaForCausalLM, body: Callable[..., Any], batch: Batch, counted: torch.Tensor
    ) -> torch.Tensor:
        """Logits of shape (counted tokens, vocabulary) in float32."""
        if self.device.type == "cpu":
            batch, counted, sizes = in_one_row(batch, counted)
            attention: dict[str, Any] = {"attention_mask": None, "document_sizes": sizes}
        else:
            attention = {"attention_mask": own_document(batch.documents)}
        hidden = body(
            input_ids=batch.ids, position_ids=batch.positions, use_cache=False, **attention
        ).last_hidden_state
        return cast(torch.Tensor, model.lm_head(hidden[counted]).float())

    # -- files ---------------------------------------------------------------------------------

    def save_checkpoint(self) -> None:
        state = {
            "recipe": asdict(self.recipe),
            "step": self.step,
            "losses": self.losses,
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        partial = self.out / "checkpoint.partial"
        torch.save(state, partial)
        os.replace(partial, self.out / "checkpoint.pt")

    def resume(self) -> None:
        path = self.out / "checkpoint.pt"
        if not path.exists():
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["recipe"] != asdict(self.recipe):
            raise SystemExit(f"{path} was made with other numbers. Give another --out, or the same numbers.")
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.losses = state["step"], state["losses"]

    def save_model(self) -> None:
        """Weights in bf16, with the configuration that generation needs, the numbers and the loss."""
        model = self.model
        model.to(torch.bfloat16)  # type: ignore[arg-type]  # transformers wraps it without types
        model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=True, temperature=0.6, top_k=40, top_p=0.95,
            eos_token_id=model.config.eos_token_id, pad_token_id=model.config.pad_token_id,
        )  # fmt: skip
        model.save_pretrained(self.out)
        (self.out / "recipe.json").write_text(json.dumps(asdict(self.recipe), indent=2) + "\n", "utf-8")
        plot_loss(self.losses, self.out / "loss.png")


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bf16 arithmetic pays: an AVX2 processor emulates it a hundred times slower than float32."""
    return device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()


def distance(logits: torch.Tensor, taught: torch.Tensor, temperature: float) -> torch.Tensor:
    """Mean KL divergence of the student from the teacher, both softened, times temperature squared.

    The square keeps the gradient's size the same for every temperature (Hinton, Vinyals and
    Dean 2015). Both have shape (tokens, vocabulary).
    """
    student = functional.log_softmax(logits / temperature, dim=-1)
    teacher = functional.log_softmax(taught / temperature, dim=-1)
    divergence = functional.kl_div(student, teacher, log_target=True, reduction="batchmean")
    return divergence * temperature**2


def rate_share(step: int, recipe: Recipe) -> float:
    """Share of the learning rate at a step: linear warm-up, then a cosine down to `final_share`."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return recipe.final_share + (1 - recipe.final_share) * 0.5 * (1 + math.cos(math.pi * done))


def own_document(documents: torch.Tensor) -> torch.Tensor:
    """Boolean mask (rows, 1, length, length): a token sees earlier tokens of its own pair."""
    length = documents.shape[1]
    same = documents[:, :, None] == documents[:, None, :]
    return (same & torch.ones(length, length, dtype=torch.bool, device=documents.device).tril()).unsqueeze(1)


def in_one_row(batch: Batch, counted: torch.Tensor) -> tuple[Batch, torch.Tensor, list[int]]:
    """The pairs of a batch one after another in a single row without padding, and their sizes."""
    is_text = batch.documents > 0
    rows = torch.arange(len(batch.ids)).unsqueeze(1) * batch.documents.shape[1]
    sizes = torch.unique_consecutive((batch.documents + rows)[is_text], return_counts=True)[1]
    joined = Batch(*(tensor[is_text].unsqueeze(0) for tensor in batch))
    return joined, counted[is_text].unsqueeze(0), sizes.tolist()


def attend_by_document(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    document_sizes: list[int],
    scaling: float,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each pair of a single row; tensors of shape (1, heads, tokens, size).

    A processor saves the products that a mask over the whole row would throw away.
    """
    parts = zip(*(torch.split(tensor, document_sizes, dim=2) for tensor in (query, key, value)), strict=True)
    attended = [
        functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling) for q, k, v in parts
    ]
    return torch.cat(attended, dim=2).transpose(1, 2), None


_BY_DOCUMENT = "by_document"
AttentionInterface.register(_BY_DOCUMENT, attend_by_document)


def plot_loss(losses: list[float], path: Path) -> None:
    """The loss of every step and its moving mean over a fiftieth of the training, as a picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    width = max(1, len(losses) // 50)
    means = [sum(losses[i - width : i]) / width for i in range(width, len(losses) + 1)]
    axes.plot(range(1, len(losses) + 1), losses, color="0.8", linewidth=0.8, label="step")
    axes.plot(range(width, len(losses) + 1), means, color="tab:blue", label=f"mean of {width} steps")
    axes.set(xlabel="step", ylabel="loss (nats per token)", title="Training loss")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def _parts(batch: Batch, rows: int) -> Iterator[Batch]:
    for first in range(0, batch.ids.shape[0], rows):
        yield Batch(*(tensor[first : first + rows] for tensor in batch))
