"""What computes. A backend knows one way to run a model and nothing of queues, callers or pipes."""

from typing import NamedTuple, Protocol

from inference.engine.costs import CostTable
from inference.engine.scheduler import Step
from inference.engine.sequence import Sequence
from inference.types import ModelInfo, Request, TokenLogprobs


class Sampled(NamedTuple):
    """A drawn token; its log-probabilities where the request asks for them."""

    token_id: int
    logprobs: TokenLogprobs | None = None


class Runner(Protocol):
    """A model in this process, driven by one thread.

    A step names a lane and its rows. `run` opens the lane on its first use, computes the rows
    against what their sequences' slots already hold, and returns one sampled token for each
    row that samples, in their order; never one of the sequence's `forbidden_ids`. A sequence that
    was parked goes on, in whatever slot, as if it had never stopped.
    """

    info: ModelInfo
    costs: CostTable
    max_prefixes: int
    """Slots for prefixes in a lane beside those for texts; 0 where prompts cannot be shared."""
    max_lanes: int
    """Adapters that may write at the same time."""
    max_guesses: int
    """Guessed tokens that a row may carry; 0 where only one token of a row can be drawn."""

    def encode(self, request: Request) -> list[int]:
        """Token ids of the prompt, without the resumed ones.

        Raises InvalidRequest for a grammar or schema that cannot be followed.
        """
        ...

    def run(self, step: Step) -> list[Sampled]:
        """Compute one step. Raises AdapterUnavailable when its lane cannot be opened."""
        ...

    def draw_behind(self, sequence: Sequence, number: int) -> Sampled:
        """One more token for a row of the last step: behind its first `number` guesses, all of them true."""
        ...

    def piece(self, token_id: int) -> bytes:
        """The bytes that a token stands for; a character may span several tokens."""
        ...

    def is_end(self, token_id: int) -> bool: ...

    def rewind(self, sequence: Sequence) -> None:
        """Forget what a sequence computed beyond its `num_computed` tokens."""
        ...

    def free(self, sequence: Sequence) -> None:
        """Forget a sequence; harmless for one that never ran."""
        ...
