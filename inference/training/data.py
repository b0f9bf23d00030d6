"""Approved texts as token ids, and which of them each step sees. Plain Python: no tensors here."""

import hashlib
import json
import logging
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from inference.chat import Message, Tokenize, completion_ids, prompt_ids
from inference.training.errors import BadData

logger = logging.getLogger(__name__)

MAX_WEIGHT = 100.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One approved text with the messages that asked for it."""

    id: str
    messages: tuple[Message, ...]
    completion: str
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """A record as token ids. Only `completion` (it ends with the end-of-turn token) is learned."""

    id: str
    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    weight: float

    @property
    def num_tokens(self) -> int:
        return len(self.prompt) + len(self.completion)


Step = tuple[tuple[Example, ...], ...]
"""The micro-batches whose gradients make one optimiser step."""


def read_records(path: Path) -> list[Record]:
    """The records of a JSON lines file, sorted by id, so that the order of export does not matter."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # splitlines() would also cut at U+2028
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"{path.name} cannot be read: {error}") from error
    records = [_record(line, f"{path.name} line {n}") for n, line in enumerate(lines, 1) if line.strip()]
    records.sort(key=lambda record: record.id)
    for first, second in pairwise(records):
        if first.id == second.id:
            raise BadData(f"{path.name} has the id {first.id!r} twice")
    return records


def _record(line: str, place: str) -> Record:
    try:
        fields = json.loads(line)
        record = Record(
            id=_text(fields["id"]),
            messages=tuple(_message(message) for message in fields["messages"]),
            completion=_text(fields["completion"]),
            weight=float(fields.get("weight", 1.0)),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadData(
            f"{place} is not a record: {error!r}. It needs id, messages [{{role, text}}] and completion."
        ) from error
    if not 0 < record.weight <= MAX_WEIGHT:
        raise BadData(f"{place}: weight must be above 0 and at most {MAX_WEIGHT:g}, not {record.weight}")
    return record


def _message(value: Any) -> Message:
    return {"role": _text(value["role"]), "text": _text(value["text"])}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def tokenise(records: Iterable[Record], tokenize: Tokenize, *, max_tokens: int) -> list[Example]:
    """Examples of the records that fit into `max_tokens` and say something; the others are logged."""
    examples = []
    for record in records:
        example = Example(
            id=record.id,
            prompt=tuple(prompt_ids(record.messages, tokenize)),
            completion=tuple(completion_ids(record.completion, tokenize)),
            weight=record.weight,
        )
        if not record.completion.strip():
            logger.warning("sample %s left out: its text is empty", record.id)
        elif example.num_tokens > max_tokens:
            logger.warning("sample %s left out: it has %d tokens", record.id, example.num_tokens)
        else:
            examples.append(example)
    return examples


def plan_steps(
    examples: Sequence[Example], *, num_epochs: int, batch_size: int, gradient_accumulation: int, seed: int
) -> list[Step]:
    """Every step of the run, a pure function of its arguments: a resumed run sees what it would have seen.

    Each epoch is shuffled anew. Inside a step the samples are put in order of length, so that
    texts of one micro-batch need little padding while chance still decides which step they are in.
    """
    steps = []
    for epoch in range(num_epochs):
        order = list(examples)
        random.Random(f"{seed}:{epoch}").shuffle(order)
        for chosen in _chunks(order, batch_size * gradient_accumulation):
            by_length = sorted(chosen, key=lambda example: (example.num_tokens, example.id))
            steps.append(tuple(_chunks(by_length, batch_size)))
    return steps


def _chunks(examples: Sequence[Example], size: int) -> Iterator[tuple[Example, ...]]:
    for start in range(0, len(examples), size):
        yield tuple(examples[start : start + size])


def fingerprint(identity: dict[str, Any], *sets: Sequence[Example]) -> str:
    """SHA-256 over settings and token ids: two runs with the same one give the same weights."""
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode())
    for examples in sets:
        rows = [[e.id, e.prompt, e.completion, e.weight] for e in examples]
        digest.update(json.dumps(rows).encode())
    return digest.hexdigest()
