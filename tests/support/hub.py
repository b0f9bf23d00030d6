"""A model hub on the loopback address: as much of the protocol as huggingface_hub and our download use."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

COMMIT = sha1(b"the only commit", usedforsecurity=False).hexdigest()


@dataclass
class FakeHub:
    """`repos` are files by name, by repository. What follows makes it misbehave."""

    address: str = ""
    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    token: str = ""  # without it: 401
    gated: bool = False
    ignores_ranges: bool = False
    cuts: dict[str, list[int]] = field(default_factory=dict)  # file -> bytes after which an answer breaks off
    down_after_cut: bool = False
    files_at: str = ""  # another address, as of a content network
    wrong_sha256: bool = False
    requests: list[tuple[str, str, Mapping[str, str]]] = field(default_factory=list)
    is_down: bool = False

    def asked_for(self, name: str) -> list[str]:
        """The Range of every request for a file, or "whole"."""
        return [
            headers.get("range", "whole")
            for _, path, headers in self.requests
            if path.split("?")[0].endswith(f"/{name}") and "/resolve/" in path
        ]

    def listing(self, repo: str) -> dict[str, Any]:
        siblings = []
        for name, content in self.repos[repo].items():
            sibling: dict[str, Any] = {"rfilename": name, "size": len(content)}
            if name.endswith((".safetensors", ".gguf")):
                digest = "0" * 64 if self.wrong_sha256 else sha256(content).hexdigest()
                sibling["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 1}
            siblings.append(sibling)
        return {"id": repo, "sha": COMMIT, "siblings": siblings}


@contextmanager
def running() -> Iterator[FakeHub]:
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            hub.requests.append((self.command, self.path, headers))
            if hub.is_down:
                self._answer(503, b"")
            elif hub.token and headers.get("authorization") != f"Bearer {hub.token}":
                self._answer(401, b"{}", {"X-Error-Code": "RepoNotFound"})
            elif match := re.fullmatch(r"/api/models/([^/]+/[^/?]+)(/revision/([^?]+))?(\?.*)?", self.path):
                self._list(match[1], match[3])
            elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", self.path):
                self._send_file(match[1], match[2])
            else:
                self._answer(404, b"{}")

        def _list(self, repo: str, revision: str | None) -> None:
            if repo not in hub.repos:
                self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            elif revision not in (None, "main", COMMIT):
                self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            else:
                self._answer(200, json.dumps(hub.listing(repo)).encode())

        def _send_file(self, repo: str, name: str) -> None:
            if hub.gated:
                self._answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
                return
            if hub.files_at:
                self._answer(302, b"", {"Location": f"{hub.files_at}{self.path}"})
                return
            content, status, extra = hub.repos[repo][name], 200, {}
            span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if span and not hub.ignores_ranges:
                begin, end = int(span[1]), int(span[2] or len(content) - 1) + 1
                extra = {"Content-Range": f"bytes {begin}-{end - 1}/{len(content)}"}
                content, status = content[begin:end], 206
            cut = hub.cuts[name].pop(0) if hub.cuts.get(name) else None
            self._answer(status, content, extra, cut=cut)

        def _answer(
            self, status: int, body: bytes, headers: Mapping[str, str] | None = None, cut: int | None = None
        ) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:cut])
            if cut is not None:
                self.close_connection = True
                hub.is_down = hub.down_after_cut

        def log_message(self, *_: Any) -> None:
            """Silence."""

    return Handler
