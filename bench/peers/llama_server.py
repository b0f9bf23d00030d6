"""llama-server and llama-batched-bench, llama.cpp's own programs, from the folder LLAMA_BIN_DIR."""

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from bench.bursts import NUM_THREADS, REPEAT_PENALTY, TEMPERATURE, TOP_K, TOP_P, Brief, Stream, together
from bench.peers.errors import PeerFailed, PeerMissing
from bench.peers.servers import HOST, Server, free_port

_SAMPLING = {
    "temperature": TEMPERATURE,
    "top_k": TOP_K,
    "top_p": TOP_P,
    "min_p": 0.0,
    "repeat_penalty": REPEAT_PENALTY,
    # The engine's own order. Penalties first would cost a walk over the whole vocabulary per token.
    "samplers": ["top_k", "penalties", "top_p", "temperature"],
}


class LlamaServer:
    """`-np` slots on one unified KV cache, adapters loaded at the start and chosen per request."""

    name = "llama-server"

    def __init__(
        self, model: Path, *, num_slots: int, num_context: int, adapters: Sequence[Path] = ()
    ) -> None:
        """`adapters` are GGUF files; a brief names one by its place."""
        self._model, self._num_slots, self._num_context = model, num_slots, num_context
        self._adapters = adapters

    def __enter__(self) -> Self:
        port = free_port()
        options: dict[str, object] = {
            "-m": self._model,
            "-np": self._num_slots,
            "-c": self._num_context,
            "-t": NUM_THREADS,
        }
        options |= {"--host": HOST, "--port": port}
        if self._adapters:
            options["--lora"] = ",".join(map(str, self._adapters))
        command = [_binary("llama-server"), "-kvu", "--lora-init-without-apply"]
        command += [str(word) for option in options.items() for word in option]
        self._server = Server(command, port=port, ready="/health")
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    def write(self, briefs: Sequence[Brief], num_tokens: int) -> list[Stream]:
        return together([partial(self._stream, brief, num_tokens) for brief in briefs])

    def _stream(self, brief: Brief, num_tokens: int) -> Iterator[int]:
        body: dict[str, Any] = {
            **_SAMPLING,
            "prompt": brief.ids,
            "n_predict": num_tokens,
            "seed": 1,
            "ignore_eos": True,
            "stream": True,
        }
        if self._adapters:
            body["lora"] = [] if brief.adapter is None else [{"id": brief.adapter, "scale": 1.0}]
        num_told = 0
        for event in self._server.events("/completion", body):
            if "error" in event:
                raise PeerFailed(f"llama-server: {event['error']}")
            if new := event["tokens_predicted"] - num_told:
                num_told += new
                yield new


@dataclass(frozen=True)
class Speeds:
    """Tokens per second: while texts are written, and from the first prompt to the last token."""

    steady: float
    whole: float


class BatchedBench:
    """The ceiling: C++ without sampling, streaming or texts."""

    name = "llama-batched-bench"

    def __init__(self, model: Path) -> None:
        """Raises PeerMissing."""
        self._model, self._program = model, _binary("llama-batched-bench")

    def speeds(self, *, num_prompt: int, num_tokens: int, sizes: Sequence[int]) -> dict[int, Speeds]:
        """By number of texts at once; each has its own prompt of `num_prompt` tokens."""
        options: dict[str, object] = {
            "-m": self._model,
            "-t": NUM_THREADS,
            "-npp": num_prompt,
            "-ntg": num_tokens,
        }
        options |= {"-npl": ",".join(map(str, sizes)), "-c": max(sizes) * (num_prompt + num_tokens + 8)}
        command = [self._program, "-kvu", "--output-format", "jsonl"]
        command += [str(word) for option in options.items() for word in option]
        ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        lines = [line[line.index("{") :] for line in ran.stdout.splitlines() if '"speed_tg"' in line]
        if ran.returncode or len(lines) != len(sizes):
            raise PeerFailed(f"llama-batched-bench ended with {ran.returncode}: {ran.stderr[-400:]}")
        return {found["pl"]: _speeds(found) for found in map(json.loads, lines)}


def _speeds(found: dict[str, float]) -> Speeds:
    return Speeds(found["speed_tg"], found["pl"] * found["tg"] / (found["t_pp"] + found["t_tg"]))


def _binary(name: str) -> str:
    folder = os.environ.get("LLAMA_BIN_DIR", "")
    path = Path(folder) / name
    if not folder or not path.is_file():
        raise PeerMissing(f"{name} is not there: build it and set LLAMA_BIN_DIR")
    return str(path)
