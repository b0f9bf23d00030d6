"""The adapter folder: PEFT weights, their GGUF twin where there is one, and a manifest that seals them.

An adapter is named by the SHA-256 of its manifest, which lists every file with size and hash, so
one short string stands for exact bytes on every machine. Its kind is the `peft_type` of its config:
LORA, or one of the soft prompts, which are virtual tokens in front of every text and have no GGUF
form. Of p-tuning peft saves what its encoder has made: virtual tokens as in prompt tuning.
"""

import json
import os
from dataclasses import asdict, dataclass
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from inference.errors import AdapterUnavailable

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
GGUF_NAME = "adapter.gguf"
MANIFEST_NAME = "MANIFEST.json"

LORA = "LORA"
PREFIX_TUNING = "PREFIX_TUNING"
PROMPT_TUNING = ("PROMPT_TUNING", "P_TUNING")
KINDS = (LORA, PREFIX_TUNING, *PROMPT_TUNING)

_PEFT_NAMES = (CONFIG_NAME, WEIGHTS_NAME)
_ALL_NAMES = (*_PEFT_NAMES, GGUF_NAME)
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """One sealed file; `size` in bytes."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a sealed folder holds. `base_sha256` names the model file that the adapter was made for."""

    base_sha256: str
    files: tuple[FileEntry, ...]

    @property
    def sha256(self) -> str:
        """The name of the adapter."""
        return sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        return json.dumps({"format": _FORMAT, **asdict(self)}, sort_keys=True, separators=(",", ":"))


def seal(folder: Path, *, base_sha256: str) -> Manifest:
    """Write MANIFEST.json over the files of the adapter's kind; after this the folder must not change.

    adapter.gguf may be missing for soft prompts and for DoRA, which GGUF cannot carry.
    """
    manifest = Manifest(base_sha256=base_sha256, files=tuple(_entry(folder / n) for n in _file_names(folder)))
    fresh = folder / f"{MANIFEST_NAME}.new"
    with fresh.open("w") as file:
        file.write(manifest.to_json())
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, folder / MANIFEST_NAME)
    _sync_folder(folder)
    return manifest


def check(folder: Path, *, sha256: str | None = None, base_sha256: str | None = None) -> Manifest:
    """Read a sealed folder and compare every byte with its manifest.

    `sha256` is the name that the caller knows the adapter by, `base_sha256` the model that it is
    to run on. Raises AdapterUnavailable naming the first difference.
    """
    manifest = _read_manifest(folder)
    if sha256 not in (None, manifest.sha256):
        raise AdapterUnavailable(f"{folder} holds adapter {manifest.sha256[:12]}, not {sha256[:12]}")
    if base_sha256 not in (None, manifest.base_sha256):
        raise AdapterUnavailable(
            f"the adapter in {folder} was trained on model {manifest.base_sha256[:12]} and cannot run on "
            f"{base_sha256[:12]}; configure that model or train again"
        )
    for sealed in manifest.files:
        if _entry(folder / sealed.name) != sealed:
            raise AdapterUnavailable(f"{folder / sealed.name} is not the file that was sealed; restore it")
    return manifest


def read_config(folder: Path) -> dict[str, Any]:
    """What peft notes of an adapter. Raises AdapterUnavailable."""
    path = folder / CONFIG_NAME
    try:
        config = json.loads(path.read_bytes())
    except OSError as error:
        raise AdapterUnavailable(f"{path} cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise AdapterUnavailable(f"{path} is not JSON; save the adapter again") from error
    if not isinstance(config, dict):
        raise AdapterUnavailable(f"{path} is no config of an adapter; save the adapter again")
    return config


def kind_of(config: dict[str, Any]) -> str:
    """One of KINDS. Raises AdapterUnavailable for kinds that no backend can run."""
    kind = str(config.get("peft_type", LORA))
    if kind not in KINDS:
        raise AdapterUnavailable(
            f"adapters of the kind {kind} cannot be run; train one of these: {', '.join(KINDS)}"
        )
    return kind


def num_virtual_tokens(config: dict[str, Any]) -> int:
    """How many positions of the context a soft prompt takes in front of every text; 0 for a LoRA."""
    if kind_of(config) == LORA:
        return 0
    number = config.get("num_virtual_tokens")
    if not isinstance(number, int) or number < 1:
        raise AdapterUnavailable(
            f"num_virtual_tokens of a soft prompt must be 1 or more, not {number!r}; save the adapter again"
        )
    return number


def _file_names(folder: Path) -> tuple[str, ...]:
    if (folder / GGUF_NAME).exists():
        return _ALL_NAMES
    config = read_config(folder)
    has_no_gguf = kind_of(config) != LORA or config.get("use_dora")
    return _PEFT_NAMES if has_no_gguf else _ALL_NAMES


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST_NAME
    try:
        return _parse(json.loads(path.read_bytes()))
    except OSError as error:
        reason = error.strerror or str(error)
        raise AdapterUnavailable(f"{path} cannot be read ({reason}); is the adapter sealed?") from error
    except (ValueError, TypeError, KeyError) as error:
        raise AdapterUnavailable(f"{path} is not an adapter manifest; seal the adapter again") from error


def _parse(content: dict[str, Any]) -> Manifest:
    if content.pop("format") != _FORMAT:
        raise ValueError("unknown format")
    files = tuple(FileEntry(**entry) for entry in content.pop("files"))
    if tuple(entry.name for entry in files) not in (_ALL_NAMES, _PEFT_NAMES):
        raise ValueError("unknown files")
    return Manifest(files=files, **content)


def _entry(path: Path) -> FileEntry:
    try:
        with path.open("rb") as file:
            digest = file_digest(file, "sha256").hexdigest()
            return FileEntry(name=path.name, size=os.fstat(file.fileno()).st_size, sha256=digest)
    except OSError as error:
        raise AdapterUnavailable(f"{path} cannot be read ({error.strerror or error})") from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
