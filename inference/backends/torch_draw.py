"""From logits on the device to the tokens of many texts, by the rules of `inference.backends.sampling`."""

from collections.abc import Iterable
from collections.abc import Sequence as Seq
from functools import cached_property

import torch
from torch import Tensor

from inference.backends import Sampled
from inference.backends.sampling import choose, num_candidates, pulled
from inference.backends.torch_vocabulary import Vocabulary
from inference.engine.sequence import Sequence
from inference.engine.wanted import END_PULL
from inference.types import TokenLogprobs


class Drawer:
    """Draws the next tokens. `end_ids` are end of turn, end of text, and all other control tokens."""

    def __init__(self, vocabulary: Vocabulary, eos_ids: Iterable[int]) -> None:
        """`eos_ids` are the ends that the model names."""
        known = range(vocabulary.num_tokens)
        self._vocabulary = vocabulary
        self.end_ids = frozenset(n for n in vocabulary.special_ids.union(eos_ids) if n in known)

    def draw(self, sequences: Seq[Sequence], logits: Tensor) -> list[Sampled]:
        """One token for each sequence; `logits` are [sequences, tokens of the vocabulary]."""
        own = [
            torch.log_softmax(row.double(), dim=-1) if sequence.request.sampling.logprobs else None
            for sequence, row in zip(sequences, logits, strict=True)
        ]
        for sequence, row in zip(sequences, logits, strict=True):
            self._pull(sequence, row)
        most = max(num_candidates(sequence.request.sampling) for sequence in sequences)
        # Top-k where the logits are: what follows is a few numbers, and cheaper beside the GPU.
        values, ids = (part.cpu().numpy() for part in logits.topk(min(most, logits.shape[1])))
        drawn = [
            choose(
                ids[number],
                values[number],
                sampling=sequence.request.sampling,
                answer_ids=sequence.ids[sequence.num_prompt :],
            )
            for number, sequence in enumerate(sequences)
        ]
        return [
            Sampled(token_id, None if logprobs is None else self._logprobs(sequence, token_id, logprobs))
            for sequence, token_id, logprobs in zip(sequences, drawn, own, strict=True)
        ]

    @cached_property
    def ids_of_pieces(self) -> dict[bytes, int]:
        """Tokens that are text, by their bytes."""
        numbers = range(self._vocabulary.num_tokens)
        return {self._vocabulary.piece(n): n for n in numbers if n not in self.end_ids}

    @cached_property
    def _longest_piece(self) -> int:
        return max(map(len, self.ids_of_pieces))

    def _pull(self, sequence: Sequence, logits: Tensor) -> None:
        """Change logits [tokens of the vocabulary] by what the text must and must not say."""
        pulls, is_any_unsaid = sequence.pulls()
        if pulls:
            for token_id, pull in pulled(pulls, self.ids_of_pieces, self._longest_piece).items():
                logits[token_id] += pull
        if is_any_unsaid:
            logits[sorted(self.end_ids)] -= END_PULL
        if sequence.forbidden_ids:
            logits[sorted(sequence.forbidden_ids)] = -torch.inf

    def _logprobs(self, sequence: Sequence, token_id: int, logprobs: Tensor) -> TokenLogprobs:
        """The drawn token and the likeliest, of the model's own distribution."""
        values, ids = logprobs.topk(sequence.request.sampling.logprobs)
        return TokenLogprobs(
            text=self._shown(token_id),
            logprob=float(logprobs[token_id]),
            alternatives=tuple(zip(map(self._shown, ids.tolist()), values.tolist(), strict=True)),
        )

    def _shown(self, token_id: int) -> str:
        return self._vocabulary.piece(token_id).decode("utf-8", errors="replace")
