"""What must survive a kill: the LoRA, the optimiser's moments and the random generators, as safetensors."""

from collections.abc import Mapping

import torch
from safetensors.torch import load, save
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

_ADAM_STATE = ("step", "exp_avg", "exp_avg_sq")

Trainable = Mapping[str, Parameter]


def capture(trainable: Trainable, optimizer: Optimizer, device: torch.device) -> dict[str, bytes]:
    """The tensor files of a checkpoint. The learning rate is a function of the step and needs none."""
    moments = {
        f"{name}:{key}": optimizer.state[parameter][key]
        for name, parameter in trainable.items()
        for key in _ADAM_STATE
    }
    return {
        "adapter.safetensors": to_bytes(trainable),
        "optimizer.safetensors": to_bytes(moments),
        "rng.safetensors": to_bytes(_generators(device)),
    }


def restore(
    files: Mapping[str, bytes], trainable: Trainable, optimizer: Optimizer, device: torch.device
) -> None:
    """Put everything back that `capture` took; a name that is missing is a KeyError."""
    weights, moments = load(files["adapter.safetensors"]), load(files["optimizer.safetensors"])
    with torch.no_grad():
        for name, parameter in trainable.items():
            parameter.copy_(weights[name])
            step, exp_avg, exp_avg_sq = (moments[f"{name}:{key}"] for key in _ADAM_STATE)
            optimizer.state[parameter] = {
                "step": step,
                "exp_avg": exp_avg.to(device),
                "exp_avg_sq": exp_avg_sq.to(device),
            }
    generators = load(files["rng.safetensors"])
    torch.set_rng_state(generators["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(generators["cuda"], device)


def to_bytes(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """A safetensors file in memory: the caller writes it, so that a full disk is an OSError."""
    return save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, metadata)


def _generators(device: torch.device) -> dict[str, Tensor]:
    generators = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        generators["cuda"] = torch.cuda.get_rng_state(device)
    return generators
