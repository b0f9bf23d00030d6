"""The worker's one engine: opened when the worker starts, asked by all its threads."""

import logging
import threading
from contextlib import suppress
from pathlib import Path

from django.conf import settings

from apps.tuning import artifacts
from apps.tuning.models import Adapter
from inference import AdapterRef, Engine, ModelUnavailable

logger = logging.getLogger(__name__)

_lock = threading.Lock()
_engine: Engine | None = None


def get_engine() -> Engine:
    """The open engine; opens it on first use, and again after a failure. Raises ModelUnavailable."""
    global _engine
    with _lock:
        if _engine is None:
            _engine = Engine.open(
                settings.GALLEY_MODEL,
                home=settings.HOME / "cache",
                n_ctx=settings.GALLEY_CONTEXT,
                max_sequences=settings.GALLEY_MAX_SEQUENCES,
            )
        return _engine


def warm_up() -> None:
    """Load the model before a job is claimed: loading may take longer than a lease."""
    with suppress(ModelUnavailable):  # the job that asks next is told
        get_engine()


def num_steps() -> int:
    """Steps that the engine has made; a number that stands still means that it does not work."""
    return _engine.stats().num_steps if _engine else 0


def close_engine() -> None:
    global _engine
    with _lock:
        if _engine is not None:
            _engine.close()
            _engine = None


def adapter_ref(sha256: str) -> AdapterRef:
    """The adapter's sealed folder on this machine, fetched from the store on first use."""
    return AdapterRef(sha256=sha256, path=str(adapter_folder(sha256)))


def adapter_folder(sha256: str) -> Path:
    adapter = Adapter.objects.get(sha256=sha256)
    folder = Path(settings.HOME) / "cache" / "adapters" / sha256
    for name, file_sha256 in adapter.files.items():
        artifacts.fetch(file_sha256, folder / name)
    return folder
