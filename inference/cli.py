"""`python -m inference generate`: briefs from a file, texts to a file, many at once.

Broken off, the same command goes on where it stopped: what is done stands in a `.part` file whose
name tells model, settings and briefs, so that others never mix in.

`python -m inference train` and `evaluate` are in `inference.training.cli`,
`python -m inference model` is in `inference.model_cli`.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from tqdm import tqdm

from inference import adapters
from inference.engine.engine import Engine
from inference.errors import EngineError, InvalidRequest
from inference.models import quantized
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
    model = options.model_path
    if options.quantization:
        model = str(quantized(Path(model), options.quantization.upper(), cache))
    with (
        Engine.open(model, home=cache, max_sequences=options.batch_size) as engine,
        ThreadPoolExecutor(options.batch_size) as callers,
    ):
        output = _Output(options.output, engine, requests)
        output.fill(callers.map(partial(_write, engine), requests[output.num_done :]))


class _Output:
    """The lines that are done, kept through a crash, and in the end the whole file."""

    def __init__(self, path: Path, engine: Engine, requests: Sequence[Request]) -> None:
        facts = repr((engine.model_info.name, engine.model_info.sha256, requests))
        self._path, self._total = path, len(requests)
        self._part = path.with_name(f"{path.name}.{sha256(facts.encode()).hexdigest()[:12]}.part")
        self.num_done = self._keep_whole_lines()

    def _keep_whole_lines(self) -> int:
        if not self._part.exists():
            return 0
        with self._part.open("r+b") as file:
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)
        return content.count(b"\n")

    def fill(self, texts: Iterator[Written]) -> None:
        progress = tqdm(texts, desc="generate", total=self._total, initial=self.num_done, unit="brief")
        with self._part.open("a", encoding="utf-8") as file:
            for written in progress:
                file.write(json.dumps(vars(written), ensure_ascii=False) + "\n")
                file.flush()
            os.fsync(file.fileno())
        os.replace(self._part, self._path)


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m inference", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("generate", help="write a text for every brief of a file")
    command.add_argument("--model-path", required=True, help="whatever GALLEY_MODEL may be")
    command.add_argument(
        "--quantization", default="", metavar="TYPE", help="write the model in this type first, such as q4_0"
    )
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
