"""`python -m inference generate`: briefs from a file, texts to a file, many at once.

`python -m inference train` and `evaluate` are in `inference.training.cli`,
`python -m inference model` is in `inference.model_cli`.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from inference import adapters
from inference.engine.engine import Engine
from inference.errors import EngineError, InvalidRequest
from inference.types import AdapterRef, Request, Sampling

_DEADLINE_S = 24 * 3600.0


@dataclass(frozen=True, kw_only=True)
class Written:
    """One line of the output."""

    id: str
    text: str
    finish_reason: str
    num_tokens: int


def main(argv: list[str]) -> int:
    """Returns the exit status: 0, or 1 after one sentence on stderr that says what is wrong."""
    if argv[:1] in (["train"], ["evaluate"]):
        from inference.training.cli import main as training_main  # brings torch

        return training_main(argv)
    if argv[:1] == ["model"]:
        from inference.model_cli import main as model_main

        return model_main(argv[1:])
    options = _parser().parse_args(argv)
    try:
        generate(options)
    except (EngineError, OSError) as error:
        print(f"generate: {error}", file=sys.stderr)
        return 1
    return 0


def generate(options: argparse.Namespace) -> None:
    """Write a text for every brief; the output appears, whole and in order, when all are done."""
    sampling = Sampling(temperature=options.temperature, max_tokens=options.max_tokens, seed=options.seed)
    adapter = _adapter_ref(options.adapter) if options.adapter else None
    requests = _read_requests(options.input, sampling, adapter)
    cache = Path(os.environ.get("GALLEY_HOME", "var")) / "cache"
    with (
        Engine.open(options.model_path, home=cache, max_sequences=options.batch_size) as engine,
        ThreadPoolExecutor(options.batch_size) as callers,
    ):
        _save(options.output, _with_progress(callers.map(partial(_write, engine), requests), len(requests)))


def _write(engine: Engine, request: Request) -> Written:
    events = list(engine.submit(request))
    return Written(
        id=request.id,
        text="".join(event.text for event in events),
        finish_reason=events[-1].finish_reason or "",
        num_tokens=sum(len(event.token_ids) for event in events),
    )


def _adapter_ref(folder: Path) -> AdapterRef:
    return AdapterRef(sha256=adapters.check(folder).sha256, path=str(folder))


def _read_requests(path: Path, sampling: Sampling, adapter: AdapterRef | None) -> list[Request]:
    """All requests of a file, or all its mistakes at once."""
    requests, problems = [], []
    with path.open("rb") as file:  # bytes: a text line may hold U+2028, which is no end of line here
        for number, line in enumerate(file, start=1):
            try:
                requests.append(_request(json.loads(line), sampling, adapter))
            except (ValueError, KeyError, TypeError, InvalidRequest) as error:
                problems.append(f"line {number}: {error!r}")
    if problems:
        raise InvalidRequest(
            f'{path} needs lines like {{"id", "messages": [{{"role", "text"}}]}}; {"; ".join(problems)}'
        )
    return requests


def _request(brief: dict[str, Any], sampling: Sampling, adapter: AdapterRef | None) -> Request:
    return Request(
        id=str(brief["id"]),
        messages=tuple({"role": m["role"], "text": m["text"]} for m in brief["messages"]),
        sampling=sampling,
        adapter=adapter,
        request_class="batch",
        deadline_s=_DEADLINE_S,
    )


def _with_progress(texts: Iterator[Written], total: int) -> Iterator[Written]:
    for count, written in enumerate(texts, start=1):
        print(f"generate: {count}/{total}", file=sys.stderr)
        yield written


def _save(path: Path, texts: Iterator[Written]) -> None:
    fresh = path.with_name(f"{path.name}.part")
    with fresh.open("w", encoding="utf-8") as file:
        for written in texts:
            file.write(json.dumps(vars(written), ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m inference", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("generate", help="write a text for every brief of a file")
    command.add_argument("--model-path", required=True, help="whatever GALLEY_MODEL may be")
    command.add_argument("--adapter", type=Path, metavar="DIR", help="a sealed adapter folder")
    command.add_argument("--input", type=Path, required=True, help="JSON lines: id, messages")
    command.add_argument("--output", type=Path, required=True)
    command.add_argument("--batch-size", type=int, default=16, metavar="N")
    command.add_argument("--max-tokens", type=int, default=512, metavar="N")
    command.add_argument("--temperature", type=float, default=0.0)
    command.add_argument("--seed", type=int, default=0)
    commands.add_parser("train", help="train an adapter; see its own --help")
    commands.add_parser("evaluate", help="measure a model and an adapter; see its own --help")
    commands.add_parser("model", help="add, list, use and check models; see its own --help")
    return parser
