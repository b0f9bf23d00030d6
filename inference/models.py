"""From what the configuration calls a model to what an engine can open."""

import os
import re
import tempfile
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Literal

from inference.errors import ModelUnavailable

ADDRESS_PREFIXES = ("http://", "https://")
FAKE_PREFIX = "fake:"
TORCH_PREFIX = "torch:"

_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")

_ADVICE = (
    "GALLEY_MODEL takes a GGUF file, a Hugging Face folder (torch:FOLDER runs it with PyTorch), "
    "or the address of an OpenAI-compatible server"
)


@dataclass(frozen=True, kw_only=True)
class ResolvedModel:
    """`location` is a path for `gguf` and `torch`, an address for `openai`, and the options for `fake`.

    `sha256` names the weights (of a GGUF: the file); an address has none. `options` is what a
    `torch:` address has behind its question mark.
    """

    kind: Literal["gguf", "openai", "fake", "torch"]
    location: str
    name: str
    sha256: str = ""
    options: str = ""

    @property
    def path(self) -> Path:
        return Path(self.location)


def resolve(model: str, cache: Path) -> ResolvedModel:
    """Find out what `model` is; a Hugging Face folder is converted once, into `cache`.

    Raises ModelUnavailable with a sentence that names the model and what to try.
    """
    if model.startswith(ADDRESS_PREFIXES):
        return ResolvedModel(kind="openai", location=model, name=model)
    if model.startswith(FAKE_PREFIX):
        digest = sha256(FAKE_PREFIX.encode()).hexdigest()
        return ResolvedModel(kind="fake", location=model, name="fake", sha256=digest)
    if model.startswith(TORCH_PREFIX):
        return _resolve_torch(model.removeprefix(TORCH_PREFIX), cache)
    if not model:
        raise ModelUnavailable(f"no model is configured; {_ADVICE}")
    return _resolve_path(Path(model).expanduser(), cache)


def _resolve_path(path: Path, cache: Path) -> ResolvedModel:
    try:
        gguf = _gguf_of_folder(path, cache) if path.is_dir() else path
        digest = _digest_of_gguf(gguf)
    except OSError as error:
        raise _unreadable(path, error) from error
    return ResolvedModel(kind="gguf", location=str(gguf), name=gguf.stem, sha256=digest)


def _resolve_torch(address: str, cache: Path) -> ResolvedModel:
    """A Hugging Face folder for PyTorch, from FOLDER?OPTIONS."""
    location, _, options = address.partition("?")
    folder = Path(location).expanduser()
    if not (folder / "config.json").is_file():
        raise ModelUnavailable(f"{folder} is no Hugging Face folder: it has no config.json; {_ADVICE}")
    try:
        digest = _digest_of_folder(folder, cache)
    except OSError as error:
        raise _unreadable(folder, error) from error
    name = folder.resolve().name
    return ResolvedModel(kind="torch", location=str(folder), name=name, sha256=digest, options=options)


def _digest_of_folder(folder: Path, cache: Path) -> str:
    """That of its GGUF, made once if need be, because adapters are bound to it and run on both backends.

    A model that llama.cpp cannot run is named by its own weights.
    """
    try:
        return _digest_of_gguf(_gguf_of_folder(folder, cache))
    except ModelUnavailable:
        return _digest_of_weights(folder)


def _unreadable(path: Path, error: OSError) -> ModelUnavailable:
    return ModelUnavailable(f"the model {path} cannot be read ({error.strerror or str(error)}); {_ADVICE}")


def shards(name: str) -> tuple[str, ...]:
    """All files of a GGUF that may be split, from the name of any of them."""
    match = _SHARD.fullmatch(name)
    if not match:
        return (name,)
    stem, count = match["stem"], int(match["count"])
    return tuple(f"{stem}-{number:05}-of-{count:05}.gguf" for number in range(1, min(count, 999) + 1))


def _digest_of_gguf(gguf: Path) -> str:
    return _join([_digest(gguf.with_name(name)) for name in shards(gguf.name)])


def _digest(gguf: Path) -> str:
    with gguf.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelUnavailable(f"{gguf} is not a GGUF file; {_ADVICE}")
        file.seek(0)
        return file_digest(file, "sha256").hexdigest()


def _digest_of_weights(folder: Path) -> str:
    digests = []
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            digests.append(file_digest(file, "sha256").hexdigest())
    if not digests:
        raise ModelUnavailable(f"{folder} has no *.safetensors; {_ADVICE}")
    return _join(digests)


def _join(digests: list[str]) -> str:
    return digests[0] if len(digests) == 1 else sha256("".join(digests).encode()).hexdigest()


def _gguf_of_folder(folder: Path, cache: Path) -> Path:
    beside = sorted(folder.glob("*.gguf"))
    if beside and tuple(path.name for path in beside) == shards(beside[0].name):
        return beside[0]
    if beside:
        names = ", ".join(path.name for path in beside)
        raise ModelUnavailable(f"{folder} has several GGUF files ({names}); name the one to use")
    if not (folder / "config.json").is_file():
        raise ModelUnavailable(f"{folder} has neither a GGUF file nor a config.json; {_ADVICE}")
    return quantized(folder, "F16", cache)


def quantized(model: Path, quantization: str, cache: Path) -> Path:
    """A GGUF of a Hugging Face folder, or of an unquantised GGUF file, in a type; made once."""
    is_folder = model.is_dir()
    name = model.name if is_folder else model.stem
    target = cache / f"{name}-{_fingerprint(model)}-{quantization.lower()}.gguf"
    if target.exists():
        return target
    from inference.gguf import export_model, quantize  # heavy: needed once in the life of a model
    from inference.quiet import quiet_llama

    quiet_llama()
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        fresh = Path(scratch) / target.name
        if is_folder:
            export_model(model, fresh, quantization=quantization)
        else:
            quantize(model, fresh, quantization)
        os.replace(fresh, target)
    return target


def _fingerprint(model: Path) -> str:
    """Changes when a file of the model does; reading gigabytes of weights to know is too slow."""
    files = sorted(path for path in model.iterdir() if path.is_file()) if model.is_dir() else [model]
    facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return sha256(repr(facts).encode()).hexdigest()[:16]
