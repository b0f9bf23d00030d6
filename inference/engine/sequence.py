"""One request on its way through the engine."""

import codecs
from dataclasses import dataclass, field
from typing import Self

from inference.errors import InvalidRequest
from inference.types import Event, FinishReason, Request


@dataclass(eq=False, kw_only=True)
class Sequence:
    """Token ids known so far, how many of them the KV cache holds, and the text not yet sent.

    `ids` is prompt, resumed tokens, then what the model adds. The ids beyond `num_computed` are
    pending: many of them are a prefill, exactly one is a decode. `deadline` is on the clock that
    the loop uses, in seconds.
    """

    ticket: int
    request: Request
    ids: list[int]
    num_prompt: int
    max_ids: int
    deadline: float
    num_computed: int = 0
    slot: int = -1
    _decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")(errors="replace")
    )
    _held_text: str = ""
    _held_ids: list[int] = field(default_factory=list)

    @classmethod
    def start(
        cls, *, ticket: int, request: Request, prompt_ids: list[int], context_length: int, now: float
    ) -> Self:
        if len(prompt_ids) + len(request.resume_ids) >= context_length:
            raise InvalidRequest(
                f"the prompt has {len(prompt_ids)} tokens and leaves no room for an answer in the "
                f"{context_length} tokens of this model; shorten the brief or its instructions"
            )
        return cls(
            ticket=ticket,
            request=request,
            ids=[*prompt_ids, *request.resume_ids],
            num_prompt=len(prompt_ids),
            max_ids=min(len(prompt_ids) + request.sampling.max_tokens, context_length),
            deadline=now + request.deadline_s,
        )

    @property
    def lane(self) -> str | None:
        """The adapter that has to be on while this sequence computes; None is the bare model."""
        return self.request.adapter.sha256 if self.request.adapter else None

    @property
    def num_pending(self) -> int:
        return len(self.ids) - self.num_computed

    @property
    def num_output(self) -> int:
        return len(self.ids) - self.num_prompt

    @property
    def is_full(self) -> bool:
        return len(self.ids) >= self.max_ids

    def append(self, token_id: int, piece: bytes) -> Event | None:
        """Take a sampled token in; an event comes back when its characters are complete."""
        self.ids.append(token_id)
        self._held_ids.append(token_id)
        self._held_text += self._decoder.decode(piece)
        unfinished, _ = self._decoder.getstate()
        return None if unfinished else self._release()

    def finish(self, reason: FinishReason) -> Event:
        """The last event; what was held back comes with it, a cut character as U+FFFD."""
        self._held_text += self._decoder.decode(b"", final=True)
        return self._release(reason)

    def _release(self, reason: FinishReason | None = None) -> Event:
        # NUL is a legal character that no text column and no page can hold.
        text, ids = self._held_text.replace("\0", ""), tuple(self._held_ids)
        self._held_text, self._held_ids = "", []
        return Event(
            request_id=self.request.id,
            text=text,
            token_ids=ids,
            finish_reason=reason,
            num_prompt_tokens=self.num_prompt,
        )
