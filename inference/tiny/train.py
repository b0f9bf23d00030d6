"""Trains the small model from nothing: the same code on a CPU and on a GPU."""

import json
import math
import os
import time
from dataclasses import asdict
from pathlib import Path

import torch
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from inference.chat import END_OF_TURN
from inference.tiny.batches import IGNORED, Batch, PackedPairs, load_batches
from inference.tiny.recipe import Recipe
from inference.tiny.tokenizer import END_OF_TEXT, MAX_TOKENS, load_tokenizer


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


class Trainer:
    """One training: `run` goes on from the last checkpoint in `out`, if there is one."""

    def __init__(
        self, recipe: Recipe, *, tokenizer_dir: Path, out: Path, workers: int, compiled: bool
    ) -> None:
        self.recipe, self.tokenizer_dir, self.out, self.workers = recipe, tokenizer_dir, out, workers
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = new_model(recipe, tokenizer_dir)
        self.model.to(self.device)  # type: ignore[arg-type]  # transformers wraps it without types
        self.body = torch.compile(self.model.model) if compiled else self.model.model
        self.optimizer = self._new_optimizer()
        self.step = 0
        out.mkdir(parents=True, exist_ok=True)

    def _new_optimizer(self) -> torch.optim.AdamW:
        matrices = [p for p in self.model.parameters() if p.dim() > 1]
        vectors = [p for p in self.model.parameters() if p.dim() == 1]
        groups = [
            {"params": matrices, "weight_decay": self.recipe.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(
            groups, lr=self.recipe.learning_rate, betas=(0.9, 0.95), fused=self.device.type == "cuda"
        )

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
        began, first = time.monotonic(), self.step
        for batch in load_batches(data, self.workers):
            loss = self.train_step(batch)
            self.step += 1
            if self.step % 20 == 0 or self.step == recipe.steps:
                self._report(loss.item(), (self.step - first) / (time.monotonic() - began))
            if self.step % recipe.checkpoint_every == 0 or self.step == recipe.steps:
                self.save_checkpoint()
        self.save_model()

    def train_step(self, batch: Batch) -> torch.Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * rate_share(self.step, self.recipe)
        loss = self.loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def loss(self, batch: Batch) -> torch.Tensor:
        """Mean cross-entropy over the tokens of the completions."""
        ids, labels, positions, documents = (tensor.to(self.device, non_blocking=True) for tensor in batch)
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            hidden = self.body(
                input_ids=ids, position_ids=positions, attention_mask=own_document(documents), use_cache=False
            ).last_hidden_state
            counted = labels != IGNORED
            logits = self.model.lm_head(hidden[counted])
        return functional.cross_entropy(logits.float(), labels[counted])

    def _report(self, loss: float, steps_per_s: float) -> None:
        tokens = self.recipe.rows * self.recipe.length * steps_per_s
        left = (self.recipe.steps - self.step) / steps_per_s
        progress = f"step {self.step}/{self.recipe.steps}  loss {loss:.4f}"
        print(f"{progress}  {tokens:,.0f} tokens/s  {left:.0f} s left", flush=True)

    # -- files ---------------------------------------------------------------------------------

    def save_checkpoint(self) -> None:
        state = {
            "recipe": asdict(self.recipe),
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
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
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]

    def save_model(self) -> None:
        """Weights in bf16, with the configuration that generation needs."""
        model = self.model
        model.to(torch.bfloat16)  # type: ignore[arg-type]  # transformers wraps it without types
        model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=True, temperature=0.6, top_k=40, top_p=0.95,
            eos_token_id=model.config.eos_token_id, pad_token_id=model.config.pad_token_id,
        )  # fmt: skip
        model.save_pretrained(self.out)
        (self.out / "recipe.json").write_text(json.dumps(asdict(self.recipe), indent=2) + "\n", "utf-8")


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
