"""One request on its way through the engine."""

import codecs
import re
from dataclasses import dataclass, field
from typing import Self

from inference.engine.costs import CostTable
from inference.engine.speculation import PromptLookup, worthwhile
from inference.engine.terms import Terms
from inference.engine.wanted import Pull, WantedTerms
from inference.errors import InvalidRequest
from inference.types import Event, FinishReason, Request, TokenLogprobs

_ALONE = " alone"

# A sentence with the space after it, or without one in Chinese; the point of "34.2" ends none.
_SENTENCE = re.compile(r".*?(?:[.?!…][\"'”’)]*\s|[。？！…][”’」』）]*(?![”’」』）])|\n)", re.DOTALL)
_LETTERS = re.compile(r"[\u3040-\u9fff\uac00-\ud7af]|\w+")
_HAN = re.compile(r"[\u3040-\u9fff]")
_LONG_WORDS, _LONG_LETTERS = 4, 7  # shorter sentences ("said the driver") may come back

# A model that finds so many ways to the same term will not be argued out of it.
_MAX_REWINDS = 1024


@dataclass
class _Unit:
    """Tokens that together make whole characters."""

    ids: list[int] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    text: str = ""


@dataclass(eq=False, kw_only=True)
class Sequence:
    """Token ids known so far, how many of them the KV cache holds, and the text not yet sent.

    `ids` is prompt, resumed tokens, then what the model adds. The ids beyond `num_computed` are
    pending: many of them are a prefill, exactly one is a decode. The first `num_shared` ids are
    likely to begin other prompts as well. `deadline` is on the clock that the loop uses, in seconds.

    Text that may become a term of `must_not_say` is held back. When it does, the sequence goes
    back to where the term began and forbids the token that led there. With `no_repeats` each
    sentence that was sent becomes such a term. Text that may become a stop
    string is held back as well; when it does, `is_stopped` says so. Terms of `must_say` pull, see
    `pulls`.
    """

    ticket: int
    request: Request
    ids: list[int]
    num_prompt: int
    num_shared: int
    max_ids: int
    deadline: float
    num_computed: int = 0
    slot: int = -1
    is_stopped: bool = False
    is_over: bool = False
    _decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")(errors="replace")
    )
    _banned: Terms = field(default_factory=lambda: Terms(()))
    _wanted: WantedTerms = field(default_factory=lambda: WantedTerms(()))
    _sent: str = ""
    _sentence_start: int = 0
    _held: list[_Unit] = field(default_factory=list)
    _open: _Unit = field(default_factory=_Unit)
    _forbidden: dict[int, set[int]] = field(default_factory=dict)
    _num_rewinds: int = 0
    _lookup: PromptLookup = field(default_factory=PromptLookup)

    @classmethod
    def start(
        cls,
        *,
        ticket: int,
        request: Request,
        prompt_ids: list[int],
        context_length: int,
        now: float,
        num_shared: int = 0,
    ) -> Self:
        if len(prompt_ids) + len(request.resume_ids) >= context_length:
            raise InvalidRequest(
                f"the prompt has {len(prompt_ids)} tokens and leaves no room for an answer in the "
                f"{context_length} tokens of this model; shorten the brief or its instructions"
            )
        sequence = cls(
            ticket=ticket,
            request=request,
            ids=[*prompt_ids, *request.resume_ids],
            num_prompt=len(prompt_ids),
            num_shared=num_shared,
            max_ids=min(len(prompt_ids) + request.sampling.max_tokens, context_length),
            deadline=now + request.deadline_s,
            _banned=Terms(request.must_not_say),
            _wanted=WantedTerms(request.must_say, written=request.resume_text),
            _sent=request.resume_text,
        )
        sequence._note_sentences()
        return sequence

    @property
    def lane(self) -> str | None:
        """Sequences of one lane share a forward pass: those of an adapter, or of None, the bare model.

        A reproducible one has the adapter's other lane to itself.
        """
        adapter = self.request.adapter.sha256 if self.request.adapter else None
        return f"{adapter or ''}{_ALONE}" if self.request.reproducible else adapter

    @property
    def num_pending(self) -> int:
        return len(self.ids) - self.num_computed

    @property
    def num_output(self) -> int:
        return len(self.ids) - self.num_prompt

    @property
    def is_full(self) -> bool:
        return len(self.ids) >= self.max_ids

    @property
    def forbidden_ids(self) -> set[int]:
        """Tokens that must not come next: each has led to a banned term from here."""
        return self._forbidden.get(len(self.ids), set())

    def pulls(self) -> tuple[list[Pull], bool]:
        """How terms of `must_say` that have begun go on, and whether any is still unsaid."""
        if not self.request.must_say:
            return [], False
        written = (self._sent + self._held_text).encode() + b"".join(self._open.pieces)
        self._wanted.look(written)
        return self._wanted.pulls(written), self._wanted.is_any_unsaid

    def guess(self, costs: CostTable, *, num_rows: int, most: int) -> tuple[int, ...]:
        """Tokens that may come next, as many as are likely to pay beside `num_rows` rows."""
        if most < 1:
            return ()
        guesses = self._lookup.guess(
            self.ids, worthwhile(self._lookup.share, costs, num_rows=num_rows, most=most)
        )
        if not guesses:
            self._lookup.rest()
        return guesses

    def learn(self, *, num_guessed: int, num_true: int) -> None:
        """How many of its guesses came true."""
        self._lookup.learn(num_guessed=num_guessed, num_true=num_true)

    def append(self, token_id: int, piece: bytes, logprobs: TokenLogprobs | None = None) -> Event | None:
        """Take a sampled token in; an event comes back when its characters are complete and allowed.

        `ids` may be shorter afterwards: then the token was taken back.
        """
        self.ids.append(token_id)
        self._open.ids.append(token_id)
        self._open.pieces.append(piece)
        self._open.logprobs += [logprobs] if logprobs else []
        self._open.text += self._decoder.decode(piece)
        if self._decoder.getstate()[0]:
            return None
        self._held.append(self._open)
        self._open = _Unit()
        self._note_sentences()
        found = self._banned.find(self._held_text, before=self._sent[-1:])
        if found and found.is_said and self._take_back(found.start):
            return None
        if self._stop():
            return None
        num_units = self._num_certain()
        return self._release(num_units) if num_units else None

    def may_end(self) -> bool:
        """Whether the text may end here; if its last words are banned it goes back instead."""
        found = self._banned.find(self._held_text, before=self._sent[-1:], final=True)
        return found is None or not self._take_back(found.start)

    def finish(self, reason: FinishReason) -> Event:
        """The last event; what was held back comes with it, a cut character as U+FFFD.

        An ending that the engine has forced drops a banned term rather than say it.
        """
        self._open.text += self._decoder.decode(b"", final=True)
        self._held.append(self._open)
        found = self._banned.find(self._held_text, before=self._sent[-1:], final=True)
        if found is not None and self._num_rewinds < _MAX_REWINDS:
            del self._held[self._unit_at(found.start) :]
        return self._release(len(self._held), reason)

    @property
    def _held_text(self) -> str:
        return "".join(unit.text for unit in self._held)

    def _stop(self) -> bool:
        """Cut the held text before the first stop string that it has come to say."""
        text = self._held_text
        places = [place for stop in self.request.sampling.stop if (place := text.find(stop)) >= 0]
        if not places:
            return False
        last = self._unit_at(min(places))
        before = sum(len(unit.text) for unit in self._held[:last])
        self._held[last].text = self._held[last].text[: min(places) - before]
        del self._held[last + (1 if self._held[last].text else 0) :]
        self.is_stopped = True
        return True

    def _num_certain(self) -> int:
        """How many held units may be sent: also those after them may still be taken back."""
        text = self._held_text
        text = text[: len(text) - _overlap(text, self.request.sampling.stop)]
        while (found := self._banned.find(text, before=self._sent[-1:])) and not found.is_said:
            text = text[: found.start]
        return self._unit_at(len(text))

    def _unit_at(self, index: int) -> int:
        """The held unit that has the character at `index` of the held text."""
        for number, unit in enumerate(self._held):
            index -= len(unit.text)
            if index < 0:
                return number
        return len(self._held)

    def _take_back(self, index: int) -> bool:
        """Go back to the unit with the character at `index`; False when that was tried too often."""
        if self._num_rewinds >= _MAX_REWINDS:
            return False
        self._num_rewinds += 1
        number = self._unit_at(index)
        unit = self._held[number]
        num_back = sum(len(later.ids) for later in self._held[number:]) - (len(unit.ids) - 1)
        del self.ids[len(self.ids) - num_back :], self._held[number:]
        here = len(self.ids)  # what was forbidden further on belonged to another text
        self._forbidden = {place: ids for place, ids in self._forbidden.items() if place <= here}
        self._forbidden.setdefault(here, set()).add(unit.ids[-1])
        self._decoder.reset()
        self._open = _Unit(unit.ids[:-1], unit.pieces[:-1], unit.logprobs[: len(unit.ids) - 1])
        self._open.text = "".join(self._decoder.decode(piece) for piece in self._open.pieces)
        return True

    def _release(self, num_units: int, reason: FinishReason | None = None) -> Event:
        units, self._held = self._held[:num_units], self._held[num_units:]
        # NUL is a legal character that no text column and no page can hold.
        text = "".join(unit.text for unit in units).replace("\0", "")
        self._sent += text
        return Event(
            request_id=self.request.id,
            text=text,
            token_ids=tuple(number for unit in units for number in unit.ids),
            finish_reason=reason,
            num_prompt_tokens=self.num_prompt,
            logprobs=tuple(logprobs for unit in units for logprobs in unit.logprobs),
        )

    def _note_sentences(self) -> None:
        """Sentences that were sent whole are not said again; that one has ended, the next token tells."""
        while self.request.no_repeats:
            text = self._sent[self._sentence_start :] + self._held_text
            found = _SENTENCE.match(text)
            if not found or self._sentence_start + len(found[0].rstrip()) > len(self._sent):
                return
            self._sentence_start += found.end()
            if _is_long(found[0]):
                self._banned.add(found[0])


def _is_long(sentence: str) -> bool:
    return len(_LETTERS.findall(sentence)) >= (_LONG_LETTERS if _HAN.search(sentence) else _LONG_WORDS)


def _overlap(text: str, stops: tuple[str, ...]) -> int:
    """The length of the longest end of the text with which a stop string begins."""
    sizes = (size for stop in stops for size in range(1, len(stop)) if text.endswith(stop[:size]))
    return max(sizes, default=0)
