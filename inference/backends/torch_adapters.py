"""LoRAs on the one base model, through peft."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftModel
from safetensors import SafetensorError
from transformers import PreTrainedModel

from inference.errors import AdapterUnavailable

_LOAD_ERRORS = (OSError, ValueError, TypeError, KeyError, RuntimeError, ImportError, SafetensorError)
_HARMLESS_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")  # PiSSA and others shift the base


class TorchAdapters:
    """Many are loaded; one of them computes, or none."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._peft: Any = None  # wraps the layers of the model while there is any adapter
        self._active: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Those that are in memory."""
        return tuple(self._peft.peft_config) if self._peft else ()

    def load(self, name: str, folder: Path) -> None:
        """Put a checked adapter beside the others. Raises AdapterUnavailable."""
        try:
            with _known_warnings_ignored():
                strays = self._insert(name, folder)
        except _LOAD_ERRORS as error:
            self.unload(name)
            raise AdapterUnavailable(
                f"peft cannot run the adapter in {folder} ({error}); train it again on this model"
            ) from error
        if strays:
            self.unload(name)
            raise AdapterUnavailable(
                f"the adapter in {folder} does not fit this model ({strays[0]} and {len(strays) - 1} more "
                "weights have no counterpart); train it again on this model"
            )
        self._rest()

    def unload(self, name: str) -> None:
        self._rest()
        if not self._peft or name not in self._peft.peft_config:
            return
        if len(self._peft.peft_config) == 1:  # peft cannot go on from a model without any adapter
            self._peft.base_model.unload()
            self._peft = None
            return
        with _known_warnings_ignored():
            self._peft.delete_adapter(name)
        self._rest()

    def activate(self, name: str | None) -> None:
        if name == self._active:
            return
        if name is None:
            self._rest()
            return
        self._peft.base_model.set_adapter(name, inference_mode=True)
        self._peft.base_model.enable_adapter_layers()
        self._active = name

    def _rest(self) -> None:
        """Let the bare model compute, whatever peft has switched on."""
        if self._peft:
            self._peft.base_model.disable_adapter_layers()
        self._active = None

    def _insert(self, name: str, folder: Path) -> list[str]:
        """The names of weights that only the adapter or only the model has."""
        config = PeftConfig.from_pretrained(str(folder))
        _refuse(folder, config)
        if not self._peft:
            config.inference_mode = True
            self._peft = PeftModel(self._model, config, adapter_name=name)
        result = self._peft.load_adapter(str(folder), adapter_name=name)
        return [*result.missing_keys, *result.unexpected_keys]


def _refuse(folder: Path, config: Any) -> None:
    """All reasons at once why an adapter cannot share the base model with others."""
    kind = getattr(config.peft_type, "value", config.peft_type)
    start = getattr(config, "init_lora_weights", None)
    reasons = {
        f"its kind is {kind}, not LORA": kind != "LORA",
        "it trains biases of the base (bias)": getattr(config, "bias", "none") != "none",
        "it repeats layers (layer_replication)": getattr(config, "layer_replication", None),
        "it starts at invocation tokens (alora_invocation_tokens)": getattr(
            config, "alora_invocation_tokens", None
        ),
        f"its start changed the base model (init_lora_weights: {start})": start not in _HARMLESS_STARTS,
    }
    found = [reason for reason, applies in reasons.items() if applies]
    if found:
        raise AdapterUnavailable(
            f"the adapter in {folder} cannot run beside others: {'; '.join(found)}. Train a LoRA or DoRA."
        )


@contextmanager
def _known_warnings_ignored() -> Iterator[None]:
    """peft reads an attribute that transformers 5 has renamed, and tells which adapter it falls back to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        warnings.filterwarnings("ignore", "Adapter .* was active which is now deleted", UserWarning)
        yield
