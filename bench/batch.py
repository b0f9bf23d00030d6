"""Eight drafts at once against the same eight one after the other, on the engine's own door."""

import tempfile
import threading
import time
from pathlib import Path
from statistics import median

from bench.form import Row
from inference import Engine, Request, Sampling
from inference.chat import Message
from inference.tiny import MODEL_DIR

NUM_DRAFTS = 8
ROUNDS = 5
MAX_SHARE = 0.7
_SYSTEM = "Style: news"
_BRIEF = (
    "Subject: Opening of the riverside library\nMust say:\n- the doors open on {day} May\nLength: 100 words"
)


def measure() -> list[Row]:
    """Interleaved rounds, so that a busy moment of the machine hits both sides."""
    one, at_once, in_turn = [], [], []
    with tempfile.TemporaryDirectory() as home, Engine.open(str(MODEL_DIR), home=Path(home)) as engine:
        _write_together(engine, 1, round_=99)  # warm
        for round_ in range(ROUNDS):
            one.append(_write_together(engine, 1, round_=round_))
            at_once.append(_write_together(engine, NUM_DRAFTS, round_=round_))
            in_turn.append(sum(_write_together(engine, 1, round_=round_, first=i) for i in range(NUM_DRAFTS)))
    share = median(a / b for a, b in zip(at_once, in_turn, strict=True))
    return [
        Row(claim="one draft alone", figure=median(one), unit="s"),
        Row(claim=f"{NUM_DRAFTS} drafts one after the other", figure=median(in_turn), unit="s"),
        Row(
            claim=f"{NUM_DRAFTS} drafts at once",
            figure=median(at_once),
            unit="s",
            peer=f"{median(in_turn):.2f} s in turn",
        ),
        Row(
            claim=f"{NUM_DRAFTS} at once, share of the time in turn",
            figure=share,
            unit="",
            peer="1 without batching",
            bar=f"<= {MAX_SHARE}",
            holds=share <= MAX_SHARE,
        ),
    ]


def _write_together(engine: Engine, num_drafts: int, *, round_: int, first: int = 0) -> float:
    """Seconds from the first request to the end of the last draft."""
    threads = [
        threading.Thread(target=_write, args=(engine, f"{round_}.{first + i}", first + i))
        for i in range(num_drafts)
    ]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started


def _write(engine: Engine, name: str, number: int) -> None:
    messages: tuple[Message, ...] = (
        {"role": "system", "text": _SYSTEM},
        {"role": "user", "text": _BRIEF.format(day=number + 1)},
    )
    request = Request(
        id=f"{name}.{time.perf_counter_ns()}",
        messages=messages,
        sampling=Sampling(temperature=0.6, seed=number, max_tokens=160),
    )
    for _event in engine.submit(request):
        pass
