"""The models of this installation: what was added, where it lies, and which one is in use.

GALLEY_HOME/models/NAME/            the model's files, or links to them
GALLEY_HOME/models/NAME/model.json  what it is; `location` is relative to its folder
GALLEY_HOME/models/in-use           the NAME that `model use` chose; Galley's settings read it
GALLEY_HOME/models/.adding/NAME/    what has come so far of a model that is being fetched
"""

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from inference import sources
from inference.errors import ModelUnavailable
from inference.sizing import Need, human, need, read_memory, weight_bytes
from inference.tiny import GGUF_PATH, MODEL_DIR

BUILT_IN = "galley-tiny"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RESERVED = (BUILT_IN, "in-use")

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A model that Galley knows. `size` in bytes on the disk; `sha256` is over all its files."""

    name: str
    source: str
    revision: str = ""
    sha256: str = ""
    size: int = 0
    family: str = ""
    quantization: str = ""
    context_length: int = 0
    trainable: bool = False
    location: str = ""
    added_at: str = ""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What an addition will take and make, known before it begins."""

    name: str
    source: sources.Source
    choice: sources.Choice
    facts: sources.Facts
    folder: Path

    @property
    def num_bytes(self) -> int:
        return sum(self.source.sizes[name] for name in self.choice.files)

    @property
    def conversion_bytes(self) -> int:
        """Memory that the one conversion of a folder takes: all its weights in 16 bits."""
        is_converted = self.choice.is_folder and not self.choice.gguf
        return weight_bytes(self.facts.shape.num_params, "F16") if is_converted else 0

    def need(self, cells: int) -> Need:
        return need(self.facts.shape, weights=self.facts.weights, cells=cells)


class Store:
    """`home` is GALLEY_HOME. Every method raises ModelUnavailable with a sentence that says what to try."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder = home / "models"

    # --- what there is ---------------------------------------------------------------------------

    def entries(self) -> list[Entry]:
        """The model that ships first, then those that were added, by name."""
        files = sorted(self.folder.glob("[!.]*/model.json"))
        return [built_in(), *(_read_entry(file) for file in files)]

    def find(self, name: str) -> Entry:
        for entry in self.entries():
            if entry.name == name:
                return entry
        known = ", ".join(entry.name for entry in self.entries())
        raise ModelUnavailable(f"there is no model {name!r}; there is {known} (`model add` brings others)")

    def path(self, entry: Entry) -> Path:
        """What GALLEY_MODEL would be."""
        if entry.name == BUILT_IN:
            return MODEL_DIR
        return (self.folder / entry.name / entry.location).absolute()

    # --- which one is used -----------------------------------------------------------------------

    def chosen(self) -> str:
        try:
            return (self.folder / "in-use").read_text().strip() or BUILT_IN
        except FileNotFoundError:
            return BUILT_IN

    def use(self, name: str) -> Entry:
        """Galley opens it from its next start on."""
        entry = self.find(name)
        if not self.path(entry).exists():
            raise ModelUnavailable(f"{name} is gone from {entry.source}; put it back, or add it again")
        self.folder.mkdir(parents=True, exist_ok=True)
        _write_whole(self.folder / "in-use", f"{name}\n")
        return entry

    # --- adding ----------------------------------------------------------------------------------

    def plan(
        self,
        text: str,
        *,
        revision: str | None = None,
        file: str = "",
        quantization: str = "",
        name: str = "",
    ) -> Plan:
        """Find out all that can be known without the weights; small files of a folder are fetched."""
        source = sources.open_source(text, revision=revision)
        is_local = isinstance(source, sources.LocalSource)
        quantization = quantization.upper()
        try:
            choice = sources.choose(source.sizes, file=file, quantization=quantization, beside=is_local)
        except ModelUnavailable as error:
            room = human(read_memory().available)
            hint = f"; this machine has {room} of memory free" if "there is " in str(error) else ""
            raise ModelUnavailable(f"{source.name}: {error}{hint}") from error
        name = self._free_name(name or _default_name(source, choice))
        folder = self.folder / ".adding" / name
        with _locked(folder):
            _forget_others(folder, source, choice)
            facts = _examine(source, choice, folder)
        return Plan(name=name, source=source, choice=choice, facts=facts, folder=folder)

    def require_space(self, plan: Plan, *, copy: bool) -> None:
        """Refuse before the disk is full. A folder needs room for its conversion too."""
        is_local = isinstance(plan.source, sources.LocalSource)
        missing = 0 if is_local and not copy else plan.num_bytes - _size_below(plan.folder)
        if plan.choice.is_folder and not plan.choice.gguf:
            missing += plan.facts.weights * (2 if plan.choice.convert_to else 1)
        self.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.folder).free
        if missing > free:
            raise ModelUnavailable(
                f"{plan.name} needs {human(missing)} on the disk of {self.folder} and {human(free)} are "
                "free: free some space, or set GALLEY_HOME to a folder on another disk"
            )

    def add(self, plan: Plan, *, copy: bool, progress: sources.Progress, say: Say) -> Entry:
        """Bring the files, convert where that was asked for, and give the model its name.

        What is broken off stays in `.adding` and is gone on with by the next call.
        """
        with _locked(plan.folder):
            is_linked = isinstance(plan.source, sources.LocalSource) and not copy
            for name in plan.choice.files:
                _bring(plan.source, name, plan.folder / name, is_linked=is_linked, progress=progress)
            if plan.choice.convert_to:
                _convert(plan, say)
            (plan.folder / "model.json").unlink(missing_ok=True)
            say("computing its checksum")
            entry = self._seal(plan)
            self._free_name(plan.name)  # another `add` may have been faster
            os.rename(plan.folder, self.folder / plan.name)
            _beside(plan.folder, "json").unlink()
        return entry

    def _seal(self, plan: Plan) -> Entry:
        files = sorted(
            path for path in plan.folder.rglob("*") if path.is_file() and path.name != "model.json"
        )
        entry = Entry(
            name=plan.name,
            source=plan.source.name,
            revision=plan.source.revision,
            sha256=_digest(plan.folder, files),
            size=sum(path.stat().st_size for path in files),
            family=plan.facts.shape.family,
            quantization=plan.facts.quantization,
            context_length=plan.facts.shape.context_length,
            trainable=plan.facts.trainable,
            location=plan.choice.location,
            added_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )
        _write_whole(plan.folder / "model.json", json.dumps(asdict(entry), indent=1) + "\n")
        return entry

    def _free_name(self, name: str) -> str:
        if not _NAME.fullmatch(name) or name in _RESERVED:
            raise ModelUnavailable(
                f"{name!r} cannot be a model's name: give one of up to 64 letters, digits, dots, "
                f"dashes and underscores with --name ({BUILT_IN} is the model that ships)"
            )
        if (self.folder / name).exists():
            raise ModelUnavailable(
                f"there is a model {name} already: choose another name with --name, "
                f"or remove {self.folder / name} first"
            )
        return name


def built_in() -> Entry:
    config = sources.read_json(MODEL_DIR / "config.json")
    return Entry(
        name=BUILT_IN,
        source="ships with Galley",
        size=sum(path.stat().st_size for path in MODEL_DIR.iterdir()),
        family=str(config.get("model_type", "")),
        quantization=GGUF_PATH.stem.rpartition("-")[2].upper(),
        context_length=int(config.get("max_position_embeddings", 0)),
        trainable=True,
    )


def _read_entry(file: Path) -> Entry:
    content = sources.read_json(file)
    try:
        known: dict[str, Any] = {name: content[name] for name in Entry.__dataclass_fields__}
    except KeyError as error:
        raise ModelUnavailable(f"{file} lacks {error}; remove its folder and add the model again") from error
    return Entry(**known | {"name": file.parent.name})


def _default_name(source: sources.Source, choice: sources.Choice) -> str:
    """The last part of a repository's or a folder's name, or the GGUF file's own."""
    is_file = isinstance(source, sources.LocalSource) and not source.path.is_dir()
    last = choice.gguf[0] if is_file else source.name
    stem = re.sub(r"(-\d{5}-of-\d{5})?\.gguf$", "", last.rstrip("/").rsplit("/", 1)[-1])
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:64]


def _examine(source: sources.Source, choice: sources.Choice, folder: Path) -> sources.Facts:
    if not choice.is_folder:
        return sources.examine_gguf(source, choice.gguf)
    is_linked = isinstance(source, sources.LocalSource)
    for name in choice.small:
        _bring(source, name, folder / name, is_linked=is_linked, progress=_silent)
    stored = sum(source.sizes[name] for name in choice.weights)
    return sources.examine_folder(
        folder,
        name=source.name,
        stored=stored,
        convert_to=choice.convert_to,
        beside=sources.examine_gguf(source, choice.gguf) if choice.gguf else None,
    )


def _bring(
    source: sources.Source, name: str, target: Path, *, is_linked: bool, progress: sources.Progress
) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_symlink():  # made by `plan`, or by an earlier `add` with other options
        target.unlink()
    if is_linked and isinstance(source, sources.LocalSource):
        target.unlink(missing_ok=True)
        target.symlink_to(source.file(name))
    else:
        source.fetch(name, target, progress)


def _forget_others(folder: Path, source: sources.Source, choice: sources.Choice) -> None:
    """Go on with what an earlier call has left only if it was fetching these very files."""
    wanted = json.dumps([source.name, source.revision, choice.files, choice.convert_to])
    note = _beside(folder, "json")
    is_same = note.exists() and note.read_text() == wanted and not isinstance(source, sources.LocalSource)
    if not is_same:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    _write_whole(note, wanted)


def _beside(folder: Path, suffix: str) -> Path:
    return folder.with_name(f"{folder.name}.{suffix}")


def _silent(name: str, done: int, total: int) -> None:
    """Small files are not worth a line."""


def _convert(plan: Plan, say: Say) -> None:
    from inference.gguf import export_model  # heavy: needed once in the life of a model
    from inference.quiet import quiet_llama

    quiet_llama()
    target = plan.folder / f"{plan.name}-{plan.choice.convert_to.lower()}.gguf"
    if not target.exists():
        say(f"writing it in {plan.choice.convert_to}")
        export_model(plan.folder, target, quantization=plan.choice.convert_to)


def _digest(folder: Path, files: list[Path]) -> str:
    """Of a single file its own, else of the list `sha256sum` would print."""
    lines = []
    for path in files:
        with path.open("rb") as content:
            lines.append(f"{file_digest(content, 'sha256').hexdigest()}  {path.relative_to(folder)}\n")
    return lines[0][:64] if len(lines) == 1 else sha256("".join(lines).encode()).hexdigest()


def _size_below(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def _write_whole(path: Path, text: str) -> None:
    fresh = path.with_name(f"{path.name}.part")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One `add` of a name at a time; the kernel drops the lock with its holder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _beside(folder, "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ModelUnavailable(f"{folder.name} is being added by another process; wait for it") from error
        yield
