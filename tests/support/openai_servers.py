"""Small servers of the OpenAI chat protocol on loopback, which behave like the kinds that Galley knows."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event as Flag
from threading import Thread
from typing import Any, Literal

Kind = Literal["plain", "vllm", "sglang", "llama"]

_LOAD_ROUTES = {"vllm": "/v1/load_lora_adapter", "sglang": "/load_lora_adapter"}
_UNLOAD_ROUTES = {"vllm": "/v1/unload_lora_adapter", "sglang": "/unload_lora_adapter"}


class OpenAIServer(ThreadingHTTPServer):
    """Says `words`, then ends as `ending` says: with a reason, `hang` until `let_go`, or `break`.

    `status` is what a chat gets instead, and `is_down` breaks every connection without an answer.
    """

    daemon_threads = True

    def __init__(self, kind: Kind) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.kind = kind
        self.words = ["Tul", "ips ", "bloom."]
        self.status = 200
        self.retry_after = "3"
        self.ending = "stop"
        self.is_down = False
        self.models = ["base"]
        self.started: list[str] = []
        """Paths of the adapters that a llama-server was started with."""
        self.loaded: dict[str, str] = {}
        self.load_status = 200
        self.load_began, self.let_load = Flag(), Flag()
        self.let_load.set()
        self.let_go = Flag()
        self.bodies: list[dict[str, Any]] = []
        self.loads: list[dict[str, Any]] = []
        self.unloads: list[str] = []
        self.keys: list[str | None] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def restart(self) -> None:
        """What it had loaded is gone."""
        self.loaded.clear()


class Handler(BaseHTTPRequestHandler):
    server: OpenAIServer

    def do_GET(self) -> None:
        if self.server.is_down:
            return
        self.server.keys.append(self.headers["Authorization"])
        if self.path == "/v1/models":
            names = [*self.server.models, *self.server.loaded]
            self._answer(200, {"data": [{"id": name, "max_model_len": 4096} for name in names]})
        elif self.path == "/lora-adapters" and self.server.kind == "llama":
            started = enumerate(self.server.started)
            self._answer(200, [{"id": id_, "path": path, "scale": 1.0} for id_, path in started])
        elif self.path == _LOAD_ROUTES.get(self.server.kind):
            self._answer(405, {"detail": "Method Not Allowed"})
        else:
            self._answer(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.is_down:
            return
        if self.path == "/v1/chat/completions":
            self.server.bodies.append(body)
            self._chat(body)
        elif self.path == _LOAD_ROUTES.get(self.server.kind):
            self._load(body)
        elif self.path == _UNLOAD_ROUTES.get(self.server.kind):
            self._unload(body)
        else:
            self._answer(404, {"detail": "Not Found"})

    def _load(self, body: dict[str, Any]) -> None:
        self.server.loads.append(body)
        self.server.load_began.set()
        self.server.let_load.wait(60)
        name = body["lora_name"]
        if self.server.load_status != 200:
            self._refuse(self.server.load_status, "No adapter found for the path")
        elif name not in self.server.loaded:
            self.server.loaded[name] = body["lora_path"]
            self._answer(200, f"Success: LoRA adapter '{name}' added successfully.")
        elif self.server.kind == "vllm":
            self._refuse(400, f"The lora adapter '{name}' has already been loaded. If you want [...]")
        else:
            told = f"Failed to load LoRA adapter {name} because it is already loaded"
            self._answer(400, {"success": False, "error_message": told})

    def _unload(self, body: dict[str, Any]) -> None:
        self.server.unloads.append(body["lora_name"])
        if self.server.loaded.pop(body["lora_name"], None):
            self._answer(200, "Success")
        else:
            self._refuse(404, f"The lora adapter '{body['lora_name']}' cannot be found.")

    def _chat(self, body: dict[str, Any]) -> None:
        if self.server.status != 200:
            self._answer(self.server.status, "no")
        elif self.server.kind == "vllm" and body["model"] not in {*self.server.models, *self.server.loaded}:
            self._refuse(404, f"The model `{body['model']}` does not exist.")
        else:
            self._stream(body)

    def _stream(self, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.end_headers()
        wanted = body.get("lora_path")
        if wanted and wanted not in self.server.loaded:
            # SGLang looks for the adapter when the answer has begun.
            told = f"The following requested LoRA adapters are not loaded: {wanted}"
            self._say({"error": {"message": told, "type": "BadRequestError", "code": 400}})
            return
        for word in self.server.words:
            self._say({"choices": [_choice(word, has_logprobs=bool(body.get("logprobs")))]})
        if self.server.ending == "hang":
            self.server.let_go.wait(60)
        elif self.server.ending != "break":
            self._say({"choices": [{"delta": {}, "finish_reason": self.server.ending}]})
            self.wfile.write(b"data: [DONE]\n\n")

    def _say(self, chunk: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        self.wfile.flush()

    def _refuse(self, status: int, message: str) -> None:
        self._answer(status, {"error": {"message": message, "code": status}})

    def _answer(self, status: int, said: object) -> None:
        body = said.encode() if isinstance(said, str) else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(said, str) else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Retry-After", self.server.retry_after)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the test output clean."""


def _choice(word: str, *, has_logprobs: bool) -> dict[str, Any]:
    choice: dict[str, Any] = {"delta": {"content": word}, "finish_reason": None}
    if has_logprobs:
        others = [{"token": word, "logprob": -0.1}, {"token": "no", "logprob": -3.0}]
        choice["logprobs"] = {"content": [{"token": word, "logprob": -0.1, "top_logprobs": others}]}
    return choice


@contextmanager
def serving(kind: Kind = "plain") -> Iterator[OpenAIServer]:
    with OpenAIServer(kind) as server:
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.let_go.set()
            server.let_load.set()
            server.shutdown()
            thread.join()
