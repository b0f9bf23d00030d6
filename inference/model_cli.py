"""`python -m inference model add|list|use|check`: bring your own model. `manage.py model` calls it."""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from inference.engine.engine import Engine
from inference.errors import EngineError, ModelUnavailable
from inference.models import resolve
from inference.sizing import (
    BITS_PER_WEIGHT,
    fitting,
    human,
    read_memory,
    shape_from_config,
    training_bytes,
)
from inference.sources import read_json
from inference.store import BUILT_IN, Plan, Store
from inference.types import Event, Request, Sampling

_INTERRUPTED = 130
_PROGRESS_EVERY_S = 1.0
_LOGGED_EVERY_S = 10.0
_CHECK_TOKENS = 48
_CHECK_DEADLINE_S = 600.0
_SHOWN_CHARACTERS = 160


def main(argv: list[str]) -> int:
    """Returns the exit status: 0, or 1 after one sentence on stderr that says what to do."""
    options = _parser().parse_args(argv)
    store = Store(Path(os.environ.get("GALLEY_HOME", "var")))
    commands: dict[str, Callable[[Store, argparse.Namespace], None]]
    commands = {"add": _add, "list": _list, "use": _use, "check": _check}
    try:
        commands[options.command](store, options)
    except (EngineError, OSError) as error:
        print(f"model {options.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on where it was", file=sys.stderr)
        return _INTERRUPTED
    return 0


# --- add -----------------------------------------------------------------------------------------


def _add(store: Store, options: argparse.Namespace) -> None:
    plan = store.plan(
        options.source,
        revision=options.revision,
        file=options.file,
        quantization=options.quantization,
        name=options.name,
    )
    _say(_description(plan))
    _require_memory(plan, is_forced=options.force)
    store.require_space(plan, copy=options.copy)
    entry = store.add(plan, copy=options.copy, progress=Meter(), say=_say)
    _say(f"added {entry.name}; next: `model check {entry.name}`, then `model use {entry.name}`")


def _description(plan: Plan) -> str:
    facts, shape = plan.facts, plan.facts.shape
    revision = f" at {plan.source.revision[:12]}" if plan.source.revision else ""
    training = "can be trained" if facts.trainable else "no training (that needs the Hugging Face folder)"
    count = f"{len(plan.choice.files)} files" if len(plan.choice.files) > 1 else "1 file"
    return (
        f"{plan.name}: {plan.source.name}{revision}, {count}, {human(plan.num_bytes)}\n"
        f"  {shape.family}, {_millions(shape.num_params)} parameters, {facts.quantization}, "
        f"context {shape.context_length} tokens, {training}"
    )


def _require_memory(plan: Plan, *, is_forced: bool) -> None:
    """Say what it needs and what there is, before anything large is fetched."""
    cells, memory, needed = _cells(), read_memory(), plan.need(_cells())
    _say(
        f"  memory: {human(needed.weights)} weights + {human(needed.kv)} for {cells} KV cells + up to "
        f"{human(needed.working)} to compute = {human(needed.total)}; "
        f"this machine has {human(memory.available)} free of {human(memory.total)}"
    )
    peak = max(needed.total, plan.conversion_bytes)
    if peak > needed.total:
        _say(f"  its conversion, once, takes {human(peak)}")
    if peak <= memory.available:
        return
    advice = what_would_fit(plan, cells=cells, available=memory.available)
    if peak <= memory.total or is_forced:
        _say(f"  careful: that is more than is free now; {advice}, or stop other programs")
        return
    raise ModelUnavailable(
        f"{plan.name} needs {human(peak)} and this machine has {human(memory.total)}: {advice}; "
        "a smaller GALLEY_CONTEXT helps a little, and --force adds it all the same"
    )


def what_would_fit(plan: Plan, *, cells: int, available: int) -> str:
    can_convert = 0 < plan.conversion_bytes <= available
    among = _writable() if can_convert else tuple(BITS_PER_WEIGHT)
    fits = fitting(plan.facts.shape, cells=cells, memory=available, among=among)
    if not fits:
        return f"not even {among[-1]} would fit: take a smaller model"
    return f"--quantization {fits[0]} would fit" if can_convert else f"a GGUF of it in {fits[0]} would fit"


def _writable() -> tuple[str, ...]:
    from inference.gguf import QUANTIZATIONS  # heavy, and loaded already where a folder is converted

    return QUANTIZATIONS


class Meter:
    """Prints how far a file has come: on a terminal every second in one line, else every ten seconds."""

    def __init__(self) -> None:
        self._file = ""
        self._began_at = self._printed_at = 0.0
        self._began_with = 0

    def __call__(self, name: str, done: int, total: int) -> None:
        now = time.monotonic()
        if name != self._file:
            self._file, self._began_at, self._began_with, self._printed_at = name, now, done, now
        is_last, is_terminal = done == total, sys.stderr.isatty()
        every_s = _PROGRESS_EVERY_S if is_terminal else _LOGGED_EVERY_S
        if now - self._printed_at < every_s and not is_last:
            return
        self._printed_at = now
        speed = (done - self._began_with) / max(now - self._began_at, 0.001)
        share = f"{100 * done // total}%" if total else "?"
        line = f"  {name}: {human(done)} of {human(total)} ({share}), {human(speed)}/s"
        end = "\n" if is_last or not is_terminal else ""
        print(f"\r\x1b[K{line}" if is_terminal else line, end=end, file=sys.stderr, flush=True)


# --- list, use -----------------------------------------------------------------------------------


def _list(store: Store, options: argparse.Namespace) -> None:
    explicit, chosen = os.environ.get("GALLEY_MODEL", ""), store.chosen()
    rows = [("", "NAME", "SIZE", "FAMILY", "WEIGHTS", "CONTEXT", "TRAINS", "SOURCE")]
    for entry in store.entries():
        is_used = str(store.path(entry)) == explicit if explicit else entry.name == chosen
        source = entry.source + (f" at {entry.revision[:12]}" if entry.revision else "")
        trains = "yes" if entry.trainable else "no"
        facts = (human(entry.size), entry.family, entry.quantization, str(entry.context_length), trains)
        rows.append(("*" if is_used else "", entry.name, *facts, source))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        _say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if explicit:
        _say(f"GALLEY_MODEL={explicit} is set and wins over the choice of `model use` ({chosen})")


def _use(store: Store, options: argparse.Namespace) -> None:
    entry = store.use(options.name)
    if explicit := os.environ.get("GALLEY_MODEL"):
        _say(
            f"{entry.name} is chosen, but GALLEY_MODEL={explicit} is set (in the shell or in .env) "
            "and wins: unset it"
        )
        return
    _say(f"{entry.name} is used from the next start on: restart `make up` (a running engine keeps its model)")
    if not entry.trainable:
        _say("Training needs a Hugging Face folder: with this model runs fail with a sentence that says so.")
    _say("Adapters belong to the model they were trained on: roll releases back, or train on this model.")


# --- check ---------------------------------------------------------------------------------------


def _check(store: Store, options: argparse.Namespace) -> None:
    """Open it with the real engine and write a few words."""
    model = _model_to_check(store, options.name)
    _say(f"{options.name or 'the model in use'}: {model}")
    _convert_if_needed(model, store.home / "cache")
    began = time.monotonic()
    with Engine.open(
        model, home=store.home / "cache", n_ctx=_cells(), max_sequences=_max_sequences()
    ) as engine:
        info, seconds = engine.model_info, time.monotonic() - began
        _say(f"  opens in {seconds:.1f} s with {info.backend}: {info.name}, {info.quantization}")
        chatml = " speaks ChatML;" if info.backend == "llama.cpp" else ""
        _say(f"  context: {info.context_length} tokens;{chatml} {_cells()} KV cells are shared")
        text = _write(engine)
        _say(_memory_line(engine.stats().pid))
    _say(_training_line(Path(model)))
    if not text.strip():
        raise ModelUnavailable(
            "it wrote nothing: it is probably a base model; take one that was tuned for instructions or chat"
        )
    _say("it works")


def _model_to_check(store: Store, name: str) -> str:
    if name:
        return str(store.path(store.find(name)))
    return os.environ.get("GALLEY_MODEL") or str(store.path(store.find(store.chosen())))


def _convert_if_needed(model: str, cache: Path) -> None:
    """Here and not in the engine's process, whose memory is measured."""
    began = time.monotonic()
    resolved = resolve(model, cache)
    if resolved.kind == "gguf":
        seconds = time.monotonic() - began
        _say(f"  file: {resolved.path}, SHA-256 {resolved.sha256[:12]}…, ready in {seconds:.1f} s")


def _write(engine: Engine) -> str:
    """A greedy draft, with its speed after the first token."""
    messages = ({"role": "user", "text": "Write two sentences about a harbour in the morning."},)
    request = Request(
        id="check",
        messages=messages,  # type: ignore[arg-type]
        sampling=Sampling(temperature=0.0, max_tokens=_CHECK_TOKENS),
        deadline_s=_CHECK_DEADLINE_S,
    )
    began, arrivals, events = time.monotonic(), list[float](), list[Event]()
    for event in engine.submit(request):
        arrivals.append(time.monotonic())
        events.append(event)
    num_tokens = sum(len(event.token_ids) for event in events)
    later = num_tokens - len(events[0].token_ids)
    speed = later / (arrivals[-1] - arrivals[0]) if later and arrivals[-1] > arrivals[0] else 0.0
    text = "".join(event.text for event in events)
    _say(
        f"  wrote {num_tokens} tokens, first after {arrivals[0] - began:.2f} s, then {speed:.3g} tokens/s, "
        f"ended by {events[-1].finish_reason}"
    )
    shown = " ".join(text.split())
    _say(f"  “{shown[:_SHOWN_CHARACTERS]}{'…' if len(shown) > _SHOWN_CHARACTERS else ''}”")
    return text


def _memory_line(pid: int | None) -> str:
    if pid is None:
        return "  memory: the server's own affair"
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return "  memory: not known on this system"
    peak = next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM")), 0)
    return f"  memory: {human(peak)} at most; {human(read_memory().available)} are free beside it"


def _training_line(model: Path) -> str:
    if not (model / "config.json").is_file():
        return "  training: no; it needs the model as a Hugging Face folder (add that, not a GGUF)"
    needed = training_bytes(shape_from_config(read_json(model / "config.json")))
    total = read_memory().total
    fits = "fits" if needed <= total else f"more than the {human(total)} of this machine"
    return f"  training: possible, with about {human(needed)} of memory ({fits})"


# --- small things --------------------------------------------------------------------------------


def _cells() -> int:
    return int(os.environ.get("GALLEY_CONTEXT") or 8192)


def _max_sequences() -> int:
    return int(os.environ.get("GALLEY_MAX_SEQUENCES") or 16)


def _millions(count: int) -> str:
    return f"{count / 1e9:.3g} B" if count >= 1e9 else f"{count / 1e6:.3g} M"


def _say(line: str) -> None:
    print(line, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="model", description="The models of this installation.")
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("add", help="a GGUF file, a Hugging Face folder, or a repository of the hub")
    add.add_argument("source", metavar="PATH-or-OWNER/NAME")
    add.add_argument("--name", default="", help="what to call it [the last part of the source]")
    add.add_argument("--revision", help="a branch, a tag or a commit of the repository")
    add.add_argument("--file", default="", help="the GGUF to take where there are several")
    add.add_argument(
        "--quantization",
        default="",
        metavar="TYPE",
        help=f"take the GGUF in this type, or write a folder in it: {', '.join(BITS_PER_WEIGHT)}",
    )
    add.add_argument("--copy", action="store_true", help="copy a local model instead of linking to it")
    add.add_argument("--force", action="store_true", help="even if it does not fit into the memory")
    commands.add_parser("list", help="what there is; * marks the one in use")
    use = commands.add_parser("use", help="open this one from the next start on")
    use.add_argument("name", help=f"{BUILT_IN} is the model that ships")
    check = commands.add_parser("check", help="open it with the real engine and write a few words")
    check.add_argument("name", nargs="?", default="", help="[the one in use]")
    return parser
