"""The servers that come with llama-cpp-python: the package's own, and the larger one of its sdist.

Both need packages that the engine does not; LLAMA_SERVER_PYTHON names an interpreter that has them
and llama_cpp (default: this one).
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

from bench.bursts import NUM_THREADS, REPEAT_PENALTY, TEMPERATURE, TOP_K, TOP_P, Brief, Stream, together
from bench.peers.errors import PeerMissing
from bench.peers.servers import HOST, Server, free_port

_SAMPLING = {"temperature": TEMPERATURE, "top_p": TOP_P, "seed": 1, "stream": True}


class PackageServer:
    """`python -m llama_cpp.server`: one text after another, behind two locks."""

    name = "llama_cpp.server"

    def __init__(self, model: Path) -> None:
        self._model = model

    def __enter__(self) -> Self:
        python = _python("fastapi", "uvicorn", "sse_starlette", "starlette_context", "pydantic_settings")
        port = free_port()
        options = {"--model": self._model, "--host": HOST, "--port": port, "--n_ctx": 1024}
        options |= {"--n_threads": NUM_THREADS, "--n_threads_batch": NUM_THREADS}
        # By default a new request ends the one that is being written.
        options |= {"--interrupt_requests": False, "--verbose": False}
        command = [python, "-m", "llama_cpp.server"]
        command += [str(word) for option in options.items() for word in option]
        self._server = Server(command, port=port, ready="/v1/models")
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    def write(self, briefs: Sequence[Brief], num_tokens: int) -> list[Stream]:
        own = {"top_k": TOP_K, "min_p": 0.0, "repeat_penalty": REPEAT_PENALTY}
        bodies = [{**_SAMPLING, **own, "prompt": brief.text, "max_tokens": num_tokens} for brief in briefs]
        return together([partial(_completion, self._server, body) for body in bodies])


class ExamplesServer:
    """The sdist's `examples/server/server.py`, named by LLAMA_EXAMPLES_SERVER: batches and radix prefixes.

    It has neither top-k nor a repetition penalty, so it samples with top-p and temperature only.
    """

    name = "examples/server"

    def __init__(self, model: Path, *, num_sequences: int, num_context: int) -> None:
        self._model = {
            "path": str(model),
            "alias": "model",
            "n_ctx": num_context,
            "n_seq_max": num_sequences,
            "n_batch": 512,
            "n_ubatch": 512,
            "threads": NUM_THREADS,
            "threads_batch": NUM_THREADS,
            "kv_unified": True,
            "store_logits": False,
        }

    def __enter__(self) -> Self:
        script = os.environ.get("LLAMA_EXAMPLES_SERVER", "")
        if not Path(script).is_file():
            raise PeerMissing(
                "set LLAMA_EXAMPLES_SERVER to examples/server/server.py of llama-cpp-python's sdist"
            )
        python = _python("fastapi", "uvicorn", "openai", "jinja2", "websockets", "safetensors")
        port = free_port()
        config = {"server": {"host": HOST, "port": port}, "model": self._model}
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(config, file)
            file.flush()
            self._server = Server([python, script, "-C", file.name], port=port, ready="/healthz")
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    def write(self, briefs: Sequence[Brief], num_tokens: int) -> list[Stream]:
        bodies = [
            {**_SAMPLING, "model": "model", "prompt": brief.ids, "max_tokens": num_tokens} for brief in briefs
        ]
        return together([partial(_completion, self._server, body) for body in bodies])


def _completion(server: Server, body: Mapping[str, Any]) -> Iterator[int]:
    """One token per event; with the last one comes what events without a whole character held back."""
    num_told = 0
    for event in server.events("/v1/completions", body):
        for choice in event.get("choices", ()):
            is_full = choice.get("finish_reason") == "length"
            count = body["max_tokens"] - num_told if is_full else int(bool(choice.get("text")))
            num_told += count
            if count:
                yield count


def _python(*modules: str) -> str:
    """An interpreter that has them. Raises PeerMissing."""
    python = os.environ.get("LLAMA_SERVER_PYTHON") or sys.executable
    ran = subprocess.run(
        [python, "-c", f"import llama_cpp, {', '.join(modules)}"], capture_output=True, text=True
    )
    if ran.returncode:
        needed = ", ".join(module.replace("_", "-") for module in modules)
        raise PeerMissing(
            f"an interpreter with llama-cpp-python and {needed} is needed: set LLAMA_SERVER_PYTHON"
        )
    return python
