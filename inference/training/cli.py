"""`python -m inference train DIR` and `python -m inference evaluate DIR`, for workers to call.

Events go to stdout, one JSON object a line; logs go to stderr.
Exit status: 0 done, 1 failed, 3 stopped on SIGTERM or SIGINT (run it again to go on).
"""

import argparse
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from inference.errors import EngineError
from inference.training.errors import Stopped

logger = logging.getLogger(__name__)

DONE, FAILED, STOPPED = 0, 1, 3


def main(argv: list[str]) -> int:
    """Run one command to its end. Never raises: every failure is an event with a reason."""
    options = _parser().parse_args(argv)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    _stay_offline()
    should_stop = _stop_on_signal()
    command = {"train": _train, "evaluate": _evaluate}[options.command]
    try:
        command(options.folder, should_stop)
    except Stopped as stop:
        return _end(STOPPED, "stopped", step=stop.step)
    except EngineError as failure:
        return _end(FAILED, "failed", reason=failure.reason, message=str(failure))
    except BrokenPipeError:
        logger.warning("nobody reads the events any more: stopped at the last checkpoint")
        _mute_stdout()
        return STOPPED
    except MemoryError:
        return _end(FAILED, "failed", reason="no_memory", message="Out of memory: lower batch_size.")
    except Exception as error:
        logger.exception("the run crashed")
        return _end(FAILED, "failed", reason="crashed", message=f"{type(error).__name__}: {error}")
    return DONE


def emit(event: str, **fields: object) -> None:
    print(json.dumps({"event": event} | fields), flush=True)


def _train(folder: Path, should_stop: Callable[[], bool]) -> None:
    from inference.training.recipe import run_sft

    run_sft(folder, emit=emit, should_stop=should_stop)


def _evaluate(folder: Path, should_stop: Callable[[], bool]) -> None:
    from inference.training.evaluation import evaluate

    result = evaluate(folder, should_stop=should_stop)
    rows = [{"id": id, "loss": round(loss, 6)} for id, loss in result.per_sample.items()]
    emit("evaluated", loss=round(result.loss, 6), num_tokens=result.num_tokens, per_sample=rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m inference", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, help_text in (
        ("train", "train the LoRA that DIR/config.json and DIR/train.jsonl describe"),
        ("evaluate", "measure DIR/heldout.jsonl with the model and adapter of DIR/config.json"),
    ):
        command = commands.add_parser(name, help=help_text)
        command.add_argument("folder", metavar="DIR", type=_folder)
    return parser


def _folder(text: str) -> Path:
    path = Path(text).resolve()
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is not a folder")
    return path


def _stay_offline() -> None:
    """Set before transformers is imported: it reads them once."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"


def _stop_on_signal() -> Callable[[], bool]:
    """From now on SIGTERM and SIGINT only raise a flag, which the run looks at between steps."""
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())
    return asked.is_set


def _end(status: int, event: str, **fields: object) -> int:
    try:
        emit(event, **fields)
    except BrokenPipeError:
        _mute_stdout()
    return status


def _mute_stdout() -> None:
    """Python flushes stdout once more at exit, which would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
