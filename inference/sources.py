"""Where a model comes from, and what of it is taken: a GGUF, or a Hugging Face folder."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Protocol

from inference.chat import END_OF_TURN
from inference.errors import ModelUnavailable
from inference.gguf_header import read_header
from inference.models import shards
from inference.sizing import BITS_PER_WEIGHT, Shape, human, shape_from_config, shape_from_gguf, weight_bytes

_SMALL_FILES = (
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja"),
)
_NEEDED = ("config.json", "tokenizer.json")
_DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}

_CHATML_ADVICE = (
    "the engine speaks ChatML only (<|im_start|>, <|im_end|>): choose a model that does, such as the "
    "instruction-tuned ones of the Qwen families, or serve this one behind an OpenAI-compatible address"
)


Progress = Callable[[str, int, int], None]
"""(file, bytes that have come, bytes in all or 0)"""


class Source(Protocol):
    """A named set of files; sizes are in bytes."""

    name: str
    revision: str

    @property
    def sizes(self) -> Mapping[str, int]: ...
    def open(self, name: str) -> AbstractContextManager[IO[bytes]]: ...
    def fetch(self, name: str, target: Path, progress: Progress) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The files to take: a GGUF, or a folder with the GGUF of it that may lie beside.

    `convert_to` is the quantisation that a folder is to be written in, if one was asked for.
    """

    gguf: tuple[str, ...] = ()
    small: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    convert_to: str = ""

    @property
    def is_folder(self) -> bool:
        return bool(self.weights)

    @property
    def files(self) -> tuple[str, ...]:
        return self.small + self.weights + self.gguf

    @property
    def location(self) -> str:
        return "." if self.is_folder else self.gguf[0]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known before any weights have come. `weights` are bytes in the engine's memory."""

    shape: Shape
    quantization: str
    weights: int
    trainable: bool


class LocalSource:
    """A GGUF file or a folder of this machine."""

    revision = ""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.name = str(self.path)
        if self.path.is_dir():
            self._root = self.path
            files = [file for file in self.path.iterdir() if file.is_file()]
        else:
            self._root = self.path.parent
            files = [self._root / name for name in shards(self.path.name)]
        try:
            self.sizes: dict[str, int] = {file.name: file.stat().st_size for file in sorted(files)}
        except OSError as error:
            raise ModelUnavailable(f"{error.filename} cannot be read ({error.strerror})") from error

    def open(self, name: str) -> IO[bytes]:
        return self.file(name).open("rb")

    def file(self, name: str) -> Path:
        return self._root / name

    def fetch(self, name: str, target: Path, progress: Progress) -> None:
        if not target.exists():
            part = target.with_name(f"{target.name}.part")
            shutil.copyfile(self.file(name), part)
            os.replace(part, target)


class HubSource:
    """A repository of a model hub."""

    def __init__(self, repo: str, *, revision: str | None) -> None:
        from inference.hub import Repository  # brings an HTTP client with it

        self.name = repo
        self._repository = Repository(repo, revision=revision)
        self.revision = self._repository.revision

    @property
    def sizes(self) -> Mapping[str, int]:
        return {name: file.size for name, file in self._repository.files.items()}

    def open(self, name: str) -> IO[bytes]:
        return self._repository.open(name)

    def fetch(self, name: str, target: Path, progress: Progress) -> None:
        self._repository.fetch(name, target, progress)


def open_source(text: str, *, revision: str | None) -> LocalSource | HubSource:
    """What is there on this machine is a path; everything else is asked of the hub."""
    path = Path(text).expanduser()
    if path.exists():
        return LocalSource(path)
    if text.startswith(("/", ".", "~")) or text.endswith(".gguf"):
        raise ModelUnavailable(f"there is no file or folder {text} on this machine; check the path")
    return HubSource(text, revision=revision)


# --- which files ---------------------------------------------------------------------------------


def choose(
    sizes: Mapping[str, int], *, file: str = "", quantization: str = "", beside: bool = False
) -> Choice:
    """`file` if it is named, else the GGUF in `quantization`, else the folder, else the only GGUF.

    With `beside`, a folder's only GGUF is taken with it: it is what drafts are written with.
    Raises ModelUnavailable with the choices there are.
    """
    models = _ggufs(sizes)
    if file:
        return _named(file, models, sizes)
    matching = [first for first in models if _is_in(quantization, first)] if quantization else list(models)
    is_folder = all(name in sizes for name in _NEEDED) and bool(_weights(sizes))
    if is_folder and not (quantization and matching):
        only = next(iter(models.values())) if beside and len(models) == 1 and not quantization else ()
        return _folder(sizes, convert_to=quantization, gguf=only)
    if len(matching) == 1:
        return Choice(gguf=models[matching[0]])
    raise ModelUnavailable(_why_none(models, sizes, quantization))


def _ggufs(sizes: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    """First file -> all files, of every model; projectors of pictures are none."""
    firsts = sorted(name for name in sizes if name.endswith(".gguf") and "mmproj" not in name)
    models = {name: shards(name) for name in firsts if shards(name)[0] == name}
    return {first: names for first, names in models.items() if all(name in sizes for name in names)}


def _is_in(quantization: str, name: str) -> bool:
    """Q4_K in `x-Q4_K.gguf`, and not in `x-Q4_K_M.gguf`."""
    return bool(re.search(rf"(?<![A-Z0-9]){re.escape(quantization.upper())}(?![A-Z0-9_])", name.upper()))


def _weights(sizes: Iterable[str]) -> tuple[str, ...]:
    """`consolidated` is the same model once more, in the names of another program."""
    names = (name for name in sizes if name.endswith(".safetensors") and "/" not in name)
    return tuple(sorted(name for name in names if not name.startswith(("consolidated", "adapter"))))


def _folder(sizes: Mapping[str, int], *, convert_to: str, gguf: tuple[str, ...]) -> Choice:
    index = "model.safetensors.index.json"
    small = tuple(name for name in (*_SMALL_FILES, index) if name in sizes)
    return Choice(small=small, weights=_weights(sizes), gguf=gguf, convert_to=convert_to)


def _named(file: str, models: Mapping[str, tuple[str, ...]], sizes: Mapping[str, int]) -> Choice:
    for names in models.values():
        if file in names:
            return Choice(gguf=names)
    raise ModelUnavailable(f"there is no whole GGUF {file}; {_what_there_is(models, sizes)}")


def _why_none(models: Mapping[str, tuple[str, ...]], sizes: Mapping[str, int], quantization: str) -> str:
    if quantization and models:
        return f"no single GGUF is in {quantization}; {_what_there_is(models, sizes)}"
    if models:
        return f"there are several GGUF files: name one with --file; {_what_there_is(models, sizes)}"
    if "adapter_config.json" in sizes:
        return "this is an adapter, not a model: add the model that it was made for"
    if any(name.endswith((".bin", ".pt", ".pth")) for name in sizes) and not _weights(sizes):
        return "the weights are pickled, which can run code and is never loaded: choose safetensors or a GGUF"
    missing = [name for name in _NEEDED if name not in sizes] + ["*.safetensors"] * (not _weights(sizes))
    return f"there is neither a GGUF nor a whole Hugging Face folder (missing: {', '.join(missing)})"


def _what_there_is(models: Mapping[str, tuple[str, ...]], sizes: Mapping[str, int]) -> str:
    listed = [f"{first} ({human(sum(sizes[name] for name in names))})" for first, names in models.items()]
    return f"there is {', '.join(listed)}" if listed else "there is no GGUF at all"


# --- what it is ----------------------------------------------------------------------------------


def examine_gguf(source: Source, names: tuple[str, ...]) -> Facts:
    """From the header alone. Raises ModelUnavailable for what the engine cannot open."""
    with source.open(names[0]) as stream:
        header = read_header(stream, name=names[0])
    if not header.speaks_chatml:
        raise ModelUnavailable(f"{names[0]} has no ChatML tokens; {_CHATML_ADVICE}")
    weights = sum(source.sizes[name] for name in names)
    # Of a split model the first file lists its own tensors only, often none.
    bits = BITS_PER_WEIGHT.get(header.quantization, 5.0)
    num_params = header.num_params if len(names) == 1 else int(weights * 8 / bits)
    try:
        shape = shape_from_gguf(header.metadata, num_params=num_params, vocab_size=header.vocab_size)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelUnavailable(f"{names[0]} is no language model: its header lacks {error}") from error
    return Facts(shape=shape, quantization=header.quantization, weights=weights, trainable=False)


def examine_folder(
    folder: Path, *, name: str, stored: int, convert_to: str, beside: Facts | None = None
) -> Facts:
    """From config.json and tokenizer.json in `folder`; `stored` bytes of weights may be elsewhere still.

    A GGUF `beside` is opened instead of a conversion. Raises ModelUnavailable for what the engine
    cannot convert exactly.
    """
    config, tokenizer = read_json(folder / "config.json"), read_json(folder / "tokenizer.json")
    if quantized := config.get("quantization_config"):
        method = quantized.get("quant_method", "unknown") if isinstance(quantized, dict) else "unknown"
        raise ModelUnavailable(f"{name} is already quantised ({method}); take the original or a GGUF of it")
    if not _speaks_chatml(tokenizer):
        raise ModelUnavailable(f"{name} has no ChatML tokens; {_CHATML_ADVICE}")
    if beside:
        return replace(beside, trainable=True)
    try:
        shape = shape_from_config(_exportable_config(folder, convert_to or "F16"))
    except ModelUnavailable as error:
        raise ModelUnavailable(str(error).replace(str(folder), name)) from error
    except (KeyError, TypeError, ValueError) as error:
        raise ModelUnavailable(f"the config.json of {name} is incomplete or odd ({error!r})") from error
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16")
    num_params = stored // _DTYPE_BYTES.get(dtype, 2) or shape.num_params
    quantization = convert_to or "F16"
    return Facts(
        shape=replace(shape, num_params=num_params),
        quantization=quantization,
        weights=weight_bytes(num_params, quantization),
        trainable=True,
    )


def _exportable_config(folder: Path, quantization: str) -> dict[str, Any]:
    """The config with its defaults, if the family and the tokenizer have an exact counterpart in GGUF."""
    from inference.gguf.base import read_base  # heavy, and only a folder needs it
    from inference.gguf.quantize import check_types
    from inference.gguf.tokenizer import read_vocabulary
    from inference.quiet import quiet_llama

    quiet_llama()
    check_types(quantization, None)
    base = read_base(folder)
    with tempfile.TemporaryDirectory() as scratch:
        read_vocabulary(folder, base, Path(scratch))
    return base.config


def _speaks_chatml(tokenizer: Mapping[str, Any]) -> bool:
    added = {token.get("content") for token in tokenizer.get("added_tokens", []) if token.get("special")}
    return {"<|im_start|>", END_OF_TURN} <= added


def read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"{path} cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise ModelUnavailable(f"{path} is not a JSON object")
    return content
