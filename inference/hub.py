"""A model hub over HTTP: what a repository holds, and its bytes, resumed where they stopped.

huggingface_hub gives addresses, headers and the reading of errors. Its own download starts a file
again in a new process; ours keeps what has come, because a file may be of 40 GB.
"""

import hashlib
import io
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx2  # the client of huggingface_hub
from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

# A lazy loader hides these public names from type checkers.
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    build_hf_headers,
    get_session,
    hf_raise_for_status,
)

from inference.errors import ModelUnavailable
from inference.sources import Progress

_TIMEOUT_S = 30.0
_NUM_TRIES = 5  # without a single byte in between
_PAUSE_S = 1.0
_PIECE_BYTES = 1 << 20
_MAX_HEADER_BYTES = 64 << 20
_CONTROL = re.compile(r"[\x00-\x1f\x7f\\:]")


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """`size` in bytes, 0 where the hub does not tell; `sha256` of large files only."""

    name: str
    size: int
    sha256: str = ""


class Repository:
    """One revision of a repository. Every call raises ModelUnavailable with what to try."""

    def __init__(self, repo: str, *, revision: str | None = None) -> None:
        self.name = repo
        self._endpoint = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
        # False: a token that some other program has left on this machine is not ours to send.
        self._token: str | bool = os.environ.get("HF_TOKEN") or False
        with self._explained(revision):
            api = HfApi(endpoint=self._endpoint, token=self._token)
            info = api.model_info(repo, revision=revision, files_metadata=True, timeout=_TIMEOUT_S)
        self.revision = info.sha or revision or "main"
        self.files = {
            sibling.rfilename: RemoteFile(
                name=_inside(sibling.rfilename, repo),
                size=sibling.size or 0,
                sha256=(sibling.lfs.sha256 if sibling.lfs else "") or "",
            )
            for sibling in info.siblings or []
        }

    def fetch(self, name: str, target: Path, progress: Progress) -> None:
        """Write a file, whole and checked; what an earlier call left unfinished is gone on with."""
        file, part = self.files[name], target.with_name(f"{target.name}.part")
        if target.exists():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._explained(), part.open("ab") as sink:
            if not file.size or sink.tell() > file.size:
                _begin_again(sink)
            self._fill(file, sink, progress)
            sink.flush()
            os.fsync(sink.fileno())
        _check(file, part)
        os.replace(part, target)

    def open(self, name: str) -> io.BufferedReader:
        """A stream of the first 64 MB, fetched as they are read."""
        return io.BufferedReader(_RemoteFile(self, self.files[name]), _PIECE_BYTES)

    def read_range(self, name: str, begin: int, end: int) -> bytes:
        span = {"Range": f"bytes={begin}-{end - 1}"}
        with self._explained(), self._get(name, span) as response:
            # A server without ranges sends the file from its beginning, which may be 40 GB: stop in time.
            skipped = 0 if response.status_code == 206 else begin
            content = bytearray()
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) >= skipped + end - begin:
                    break
        return bytes(content[skipped : skipped + end - begin])

    def _fill(self, file: RemoteFile, sink: IO[bytes], progress: Progress) -> None:
        tries = 0
        while not file.size or sink.tell() < file.size:
            before = sink.tell()
            try:
                self._stream(file, sink, progress)
                if not file.size:
                    return
            except httpx2.TransportError:
                tries = 1 if sink.tell() > before else tries + 1
                if tries >= _NUM_TRIES:
                    raise
                time.sleep(_PAUSE_S)
            else:
                if sink.tell() == before:
                    return  # a server that sends nothing more; the check of the size tells it

    def _stream(self, file: RemoteFile, sink: IO[bytes], progress: Progress) -> None:
        have = sink.tell()
        span = {"Range": f"bytes={have}-"} if have else {}
        with self._get(file.name, span) as response:
            if have and response.status_code != 206:  # the server begins again: so do we
                _begin_again(sink)
            for chunk in response.iter_bytes():
                sink.write(chunk)
                progress(file.name, sink.tell(), file.size)

    @contextmanager
    def _get(self, name: str, headers: dict[str, str]) -> Iterator[httpx2.Response]:
        # Uncompressed: positions in a range are those of the file.
        headers = build_hf_headers(token=self._token) | {"Accept-Encoding": "identity"} | headers
        url = hf_hub_url(self.name, name, revision=self.revision, endpoint=self._endpoint)
        with get_session().stream("GET", url, headers=headers, timeout=_TIMEOUT_S) as response:
            hf_raise_for_status(response)
            yield response

    @contextmanager
    def _explained(self, revision: str | None = None) -> Iterator[None]:
        try:
            yield
        except (httpx2.HTTPError, HFValidationError, OfflineModeIsEnabled) as error:
            raise ModelUnavailable(self._sentence(error, revision)) from error

    def _sentence(self, error: Exception, revision: str | None) -> str:
        match error:
            case HFValidationError():
                return f"{self.name!r} is neither a path on this machine nor a repository like OWNER/NAME"
            case OfflineModeIsEnabled():
                return "HF_HUB_OFFLINE is set: unset it, or add a local file or folder"
            case GatedRepoError():
                return (
                    f"{self.name} is given only to those who accept its terms: do that on "
                    f"{self._endpoint}/{self.name}, then set HF_TOKEN to a token of that account"
                )
            case RevisionNotFoundError():
                return f"{self.name} has no revision {revision}; name a branch, a tag or a commit of it"
            case HfHubHTTPError():
                return self._status_sentence(error)
        return (
            f"{self._endpoint} cannot be reached or broke off ({error or type(error).__name__}): run the "
            "same command again later, it goes on where it stopped; or set HF_ENDPOINT to a mirror; or "
            "fetch the model on another machine and add the folder"
        )

    def _status_sentence(self, error: HfHubHTTPError) -> str:
        status = error.response.status_code
        if isinstance(error, RepositoryNotFoundError) or status in (401, 403, 404):
            if self._token:
                advice = "check the spelling, and that the token in HF_TOKEN is valid and may read it"
            else:
                advice = "check the spelling; for a private repository set HF_TOKEN"
            return f"{self._endpoint} does not give out {self.name} (status {status}): {advice}"
        return (
            f"{self._endpoint} answers with status {status}: run the same command again later, it goes on "
            "where it stopped, or set HF_ENDPOINT to a mirror"
        )


class _RemoteFile(io.RawIOBase):
    """A remote file from its beginning, fetched as it is read."""

    def __init__(self, repository: Repository, file: RemoteFile) -> None:
        self._repository = repository
        self._file = file
        self._position = 0
        self._end = min(file.size or _MAX_HEADER_BYTES, _MAX_HEADER_BYTES)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        end = min(self._position + len(buffer), self._end)
        if end <= self._position:
            return 0
        piece = self._repository.read_range(self._file.name, self._position, end)
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)


def _begin_again(sink: IO[bytes]) -> None:
    sink.seek(0)
    sink.truncate()


def _inside(name: str, repo: str) -> str:
    """A repository names its files; none of them may lie outside of the folder they are put in."""
    if _CONTROL.search(name) or any(part in ("", ".", "..") for part in name.split("/")):
        raise ModelUnavailable(f"{repo} lists a file outside of its own folder ({name!r}): do not use it")
    return name


def _check(file: RemoteFile, part: Path) -> None:
    """What is damaged is thrown away: going on with it would never end well."""
    size = part.stat().st_size
    if file.size and size != file.size:
        part.unlink()
        raise ModelUnavailable(
            f"{file.name} came with {size} bytes instead of {file.size}; run the same command again"
        )
    if file.sha256:
        with part.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        if digest != file.sha256:
            part.unlink()
            raise ModelUnavailable(f"{file.name} was damaged on its way; run the same command again")
