"""Muon in float32, for processors on which the bf16 of torch.optim.Muon is emulated."""

from collections.abc import Iterable

import torch

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic that drives singular values to 1
_NUM_ITERATIONS = 5
_ADAMW_RMS = 0.2  # a step of AdamW has about this root mean square, before the learning rate


class Muon(torch.optim.Optimizer):
    """Nesterov momentum whose steps are made orthogonal, for matrices only (Jordan et al. 2024).

    A step is scaled by 0.2 sqrt(max(rows, columns)), so that AdamW's learning rate and weight
    decay serve here as well (Liu et al. 2025, "Muon is scalable for LLM training", section 2.2).
    """

    def __init__(
        self, params: Iterable[torch.Tensor], *, lr: float, momentum: float = 0.95, weight_decay: float = 0.1
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            rate, momentum = group["lr"], group["momentum"]
            for param in group["params"]:
                if param.grad is None:
                    continue
                state = self.state[param]
                mean = state.setdefault("momentum_buffer", torch.zeros_like(param))
                mean.lerp_(param.grad, 1 - momentum)
                step = orthogonal(param.grad.lerp(mean, momentum))
                param.mul_(1 - rate * group["weight_decay"])
                param.add_(step, alpha=-rate * _ADAMW_RMS * max(param.shape) ** 0.5)


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """The matrix with all its singular values brought near 1, by Newton-Schulz iterations."""
    a, b, c = _COEFFICIENTS
    is_wide = matrix.shape[0] <= matrix.shape[1]
    wide: torch.Tensor = matrix if is_wide else matrix.T
    wide = wide / (torch.linalg.norm(wide) + 1e-7)
    for _ in range(_NUM_ITERATIONS):
        gram = wide @ wide.T
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    return wide if is_wide else wide.T
