"""The engine's own door against `Llama.generate`, and what presets, adapters and backlogs do to it.

On a model of about 100 M parameters with random weights in Q4_0: speeds are real, texts are not.
All rounds are interleaved, so that a busy moment of the machine hits every side.
"""

import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

from bench.form import Row
from bench.models import random_adapter, random_model
from inference import AdapterRef, Engine, Request, Sampling
from inference.chat import prompt_ids
from inference.quiet import quiet_llama
from inference.types import RequestClass

ROUNDS = 5
NUM_TOKENS = 64
NUM_SEQUENCES = 16
CONTEXT = 16384
_PRESET_WORDS = 400  # about 512 tokens


@dataclass(frozen=True)
class Timing:
    """Seconds from the request to the first and the last of its tokens, and how many there were."""

    first: float
    last: float
    num_tokens: int


def measure() -> list[Row]:
    quiet_llama()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = random_model(folder)
        adapters = [random_adapter(folder, model, seed=seed) for seed in range(4)]
        rows = _throughput(model, folder / "throughput")
        rows += _presets(model, folder)
        rows += _adapters(model, folder / "adapters", adapters)
        return rows + _backlog(model, folder / "backlog")


def _throughput(model: Path, home: Path) -> list[Row]:
    """Texts at once against the same texts one after another in llama-cpp-python's own class."""
    from llama_cpp import Llama

    peer = Llama(str(model), n_ctx=1024, verbose=False)
    rates: dict[str, list[float]] = {}
    with _engine(model, home) as engine:
        _together(engine, [_request("warm")])
        for round_ in range(ROUNDS):
            for num in (1, 8, NUM_SEQUENCES):
                requests = [_request(f"{round_} {i}") for i in range(num)]
                rates.setdefault(f"engine {num}", []).append(_rate(_together(engine, requests)))
            rates.setdefault("peer", []).append(_peer_rate(peer, round_))
    peer.close()
    base = median(rates.pop("peer"))
    rows = [Row(claim="Llama.generate, one after another", figure=base, unit="tok/s")]
    for name, values in rates.items():
        rows.append(
            Row(
                claim=f"{name.replace('engine ', '')} at once, with sampling and streaming",
                figure=median(values),
                unit="tok/s",
                peer=f"{median(values) / base:.2f} x Llama.generate",
            )
        )
    return rows


def _presets(model: Path, folder: Path) -> list[Row]:
    """A burst of eight briefs with one preset of about 512 tokens: never seen, kept, after a restart."""
    cold, warm, restarted = [], [], []
    for round_ in range(ROUNDS):
        home, style = folder / f"preset-{round_}", _preset(round_)
        with _engine(model, home) as engine:
            _together(engine, [_request("warm")])
            cold.append(_together(engine, [_request(f"cold {i}", style=style) for i in range(8)]))
            warm.append(_together(engine, [_request(f"warm {i}", style=style) for i in range(8)]))
        with _engine(model, home) as engine:
            _together(engine, [_request("warm")])
            restarted.append(_together(engine, [_request(f"again {i}", style=style) for i in range(8)]))
    ratio = median(_mean_first(b) / _mean_first(a) for a, b in zip(warm, restarted, strict=True))
    return [
        Row(claim="burst of 8, preset never seen: first token", figure=_median_first(cold), unit="s"),
        Row(claim="burst of 8, preset kept: first token", figure=_median_first(warm), unit="s"),
        Row(claim="burst of 8, preset never seen: rate", figure=median(map(_rate, cold)), unit="tok/s"),
        Row(claim="burst of 8, preset kept: rate", figure=median(map(_rate, warm)), unit="tok/s"),
        Row(
            claim="burst of 8 after a restart: first token against kept",
            figure=ratio,
            unit="x",
            bar="<= 1.3",
            holds=ratio <= 1.3,
        ),
    ]


def _adapters(model: Path, home: Path, adapters: Sequence[AdapterRef]) -> list[Row]:
    """Four requests for each adapter at once: who waits longest for a first word, and who least."""
    rows = []
    with _engine(model, home) as engine:
        for num, bar in ((2, 1.3), (4, 1.5)):
            used, ratios, rates = adapters[:num], [], []
            _together(engine, [_request("warm", adapter=adapter) for adapter in used])
            for round_ in range(ROUNDS):
                requests = [_request(f"{round_} {i}", adapter=used[i % num]) for i in range(4 * num)]
                timings = _together(engine, requests)
                firsts = [median(t.first for t in timings[i::num]) for i in range(num)]
                ratios.append(max(firsts) / min(firsts))
                rates.append(_rate(timings))
            ratio = median(ratios)
            rows += [
                Row(claim=f"{num} adapters, 4 requests each", figure=median(rates), unit="tok/s"),
                Row(
                    claim=f"{num} adapters: latest first token against earliest",
                    figure=ratio,
                    unit="x",
                    bar=f"<= {bar}",
                    holds=ratio <= bar,
                ),
            ]
    return rows


def _backlog(model: Path, home: Path) -> list[Row]:
    """A person every half second, on an idle engine and over a backlog of batch texts."""
    with _engine(model, home) as engine:
        _together(engine, [_request("warm")])
        idle = [t.first for t in _people(engine, 20)]
        alone = _rate(
            _together(engine, [_request(f"batch {i}", of="batch") for i in range(2 * NUM_SEQUENCES)])
        )
        with ThreadPoolExecutor(1) as backlog:
            running = backlog.submit(_together, engine, _batch("backlog", 3 * NUM_SEQUENCES))
            time.sleep(1)
            busy = [t.first for t in _people(engine, 20)]
            rate = _rate(running.result())
    ratio, share = _p95(busy) / _p95(idle), rate / alone
    return [
        Row(claim="a person's first token, idle engine, p95", figure=_p95(idle), unit="s"),
        Row(
            claim="over a batch backlog, p95",
            figure=_p95(busy),
            unit="s",
            peer=f"{ratio:.2f} x idle",
            bar="<= 1.5 x idle",
            holds=ratio <= 1.5,
        ),
        Row(
            claim="what the backlog keeps of its rate",
            figure=share,
            unit="",
            bar=">= 0.8",
            holds=share >= 0.8,
        ),
    ]


@contextmanager
def _engine(model: Path, home: Path) -> Iterator[Engine]:
    with Engine.open(str(model), home=home, n_ctx=CONTEXT, max_sequences=NUM_SEQUENCES) as engine:
        yield engine


def _request(
    name: str,
    *,
    style: str = "Style: news",
    adapter: AdapterRef | None = None,
    of: RequestClass = "interactive",
    num_tokens: int = NUM_TOKENS,
) -> Request:
    return Request(
        id=f"{name} {time.perf_counter_ns()}",
        messages=(
            {"role": "system", "text": style},
            {"role": "user", "text": f"Subject: the library by the river, number {name}\nLength: 60 words"},
        ),
        sampling=Sampling(temperature=0.8, seed=1, max_tokens=num_tokens),
        adapter=adapter,
        request_class=of,
    )


def _batch(name: str, count: int) -> list[Request]:
    return [_request(f"{name} {i}", of="batch", num_tokens=256) for i in range(count)]


def _preset(number: int) -> str:
    return f"Style {number}: " + "write plainly and name the source " * (_PRESET_WORDS // 6)


def _together(engine: Engine, requests: Sequence[Request]) -> list[Timing]:
    began = time.perf_counter()
    timings: list[Timing | None] = [None] * len(requests)

    def write(i: int) -> None:
        first, num = 0.0, 0
        for event in engine.submit(requests[i]):
            first = first or time.perf_counter() - began
            num += len(event.token_ids)
        timings[i] = Timing(first, time.perf_counter() - began, num)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [timing for timing in timings if timing]


def _people(engine: Engine, count: int) -> list[Timing]:
    timings = []
    for number in range(count):
        timings += _together(engine, [_request(f"person {number}", num_tokens=16)])
        time.sleep(0.2)
    return timings


def _peer_rate(peer: object, round_: int) -> float:
    """Tokens per second of eight texts in turn, with the same settings."""
    from llama_cpp import Llama

    assert isinstance(peer, Llama)
    began, num = time.perf_counter(), 0
    for number in range(8):
        messages = _request(f"{round_} {number}").messages
        ids = prompt_ids(messages, lambda text, special: peer.tokenize(text.encode(), False, special))
        tokens = peer.generate(ids, top_k=40, top_p=0.95, min_p=0.0, temp=0.8, repeat_penalty=1.05)
        for _, _token in zip(range(NUM_TOKENS), tokens, strict=False):
            num += 1
    return num / (time.perf_counter() - began)


def _rate(timings: Sequence[Timing]) -> float:
    return sum(t.num_tokens for t in timings) / max(t.last for t in timings)


def _mean_first(timings: Sequence[Timing]) -> float:
    return sum(t.first for t in timings) / len(timings)


def _median_first(rounds: Sequence[Sequence[Timing]]) -> float:
    return median(map(_mean_first, rounds))


def _p95(seconds: Sequence[float]) -> float:
    return quantiles(seconds, n=20)[-1]
