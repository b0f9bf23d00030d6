"""Packed training batches, made on the fly: batch number i is the same on every machine."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from inference.chat import Tokenize, completion_ids, prompt_ids
from inference.tiny.corpus import make_pair
from inference.tiny.tokenizer import tokenize_with
from inference.tiny.values import Split

IGNORED = -100
_MEAN_TOKENS = 215  # of a pair; decides how many pairs are made for a batch


class Batch(NamedTuple):
    """Tensors of shape (rows, length). `documents` numbers the pairs of a row, 0 is padding."""

    ids: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor
    documents: torch.Tensor


class PackedPairs(Dataset[Batch]):
    """Batches of whole pairs packed into rows; labels are the completions, shifted by one."""

    def __init__(
        self,
        tokenizer_dir: Path,
        *,
        seed: int,
        rows: int,
        length: int,
        first: int,
        last: int,
        split: Split = "train",
    ) -> None:
        self.tokenizer_dir = tokenizer_dir
        self.seed, self.rows, self.length = seed, rows, length
        self.first, self.last, self.split = first, last, split
        self.num_pairs = rows * length // _MEAN_TOKENS

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, index: int) -> Batch:
        if index >= len(self):
            raise IndexError(index)
        tokenize = _tokenize(self.tokenizer_dir)
        start = (self.first + index) * self.num_pairs
        batch = Batch(*(torch.full((self.rows, self.length), fill) for fill in (0, IGNORED, 0, 0)))
        used, count = [0] * self.rows, [0] * self.rows
        for number in range(start, start + self.num_pairs):
            pair = make_pair(seed=self.seed, split=self.split, index=number)
            prompt, completion = prompt_ids(pair.messages, tokenize), completion_ids(pair.text, tokenize)
            size = len(prompt) + len(completion) - 1
            row = self._tightest(used, size)
            if row is None:
                continue
            place = slice(used[row], used[row] + size)
            count[row] += 1
            batch.ids[row, place] = torch.tensor((prompt + completion)[:-1])
            batch.labels[row, place.start + len(prompt) - 1 : place.stop] = torch.tensor(completion)
            batch.positions[row, place] = torch.arange(size)
            batch.documents[row, place] = count[row]
            used[row] += size
        return batch

    def _tightest(self, used: list[int], size: int) -> int | None:
        """The row whose free room the pair fills best; none if it fits nowhere."""
        fitting = [row for row in range(self.rows) if used[row] + size <= self.length]
        return max(fitting, key=lambda row: used[row], default=None)


@cache
def _tokenize(folder: Path) -> Tokenize:
    return tokenize_with(folder)


def load_batches(data: PackedPairs, workers: int) -> Iterator[Batch]:
    loader = DataLoader(
        data,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        pin_memory=torch.cuda.is_available(),
    )
    return iter(loader)
