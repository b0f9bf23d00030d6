"""Schedule, run, postprocess: one turn of the engine."""

import time
from collections.abc import Sequence as Seq

from inference.backends import Runner, Sampled
from inference.engine.messages import Batch, Cancel, Submit, ToEngine
from inference.engine.scheduler import Limits, Row, Scheduler, Step
from inference.engine.sequence import Sequence
from inference.errors import AdapterUnavailable, EngineBusy, EngineError, InvalidRequest
from inference.types import EngineStats, Event, FinishReason, Request

# Longer than any text of so many tokens can be; tokenising it would hold up everybody.
_MAX_BYTES_PER_TOKEN = 32
_DECAY = 0.98
_MIN_SHARED = 16  # tokens; fewer are computed as fast as they are looked up


class Loop:
    """Owns the runner; called by one thread only."""

    def __init__(self, runner: Runner, limits: Limits) -> None:
        self._runner = runner
        self._scheduler = Scheduler(limits, runner.costs)
        self._outbox: list[tuple[int, Event | EngineError]] = []
        self._recent_tokens = 0.0
        self._recent_seconds = 0.0
        self._num_steps = 0
        self._num_guessed = self._num_true = 0

    @property
    def is_idle(self) -> bool:
        return self._scheduler.is_idle

    @property
    def stats(self) -> EngineStats:
        running = self._scheduler.running
        return EngineStats(
            model=self._runner.info.name,
            num_steps=self._num_steps,
            active=len(running),
            queued=self._scheduler.num_waiting,
            tokens_per_second=self._recent_tokens / self._recent_seconds if self._recent_seconds else 0.0,
            kv_used=sum(s.num_computed for s in running) + self._scheduler.num_prefix_tokens,
            num_parked=self._scheduler.num_parked,
            num_guessed=self._num_guessed,
            num_guessed_right=self._num_true,
            kv_cells=self._scheduler.limits.kv_cells * max(1, len(self._scheduler.lanes)),
            adapters=self._scheduler.adapters,
        )

    def turn(self, messages: Seq[ToEngine]) -> Batch:
        """Take in what callers asked, compute one step, and tell what it brought."""
        for message in messages:
            match message:
                case Submit():
                    self._accept(message)
                case Cancel():
                    self._cancel(message.ticket)
        for sequence in self._scheduler.expired(time.monotonic()):
            self._finish(sequence, "deadline")
        if step := self._scheduler.schedule():
            self._compute(step)
        items, self._outbox = tuple(self._outbox), []
        return Batch(items, self.stats)

    def _accept(self, message: Submit) -> None:
        try:
            sequence = self._start(message.ticket, message.request)
        except EngineError as error:
            self._outbox.append((message.ticket, error))
            return
        self._scheduler.add(sequence)
        if sequence.is_full:  # an earlier attempt died between its last token and its end
            self._finish(sequence, "length")

    def _start(self, ticket: int, request: Request) -> Sequence:
        if self._scheduler.is_full(request.request_class):
            raise EngineBusy(
                f"{self._scheduler.limits.max_queued} drafts are already waiting; try again later",
                retry_after_s=self._seconds_of_work(),
            )
        context_length = self._runner.info.context_length
        num_bytes = sum(len(message["text"]) for message in request.messages)
        if num_bytes > context_length * _MAX_BYTES_PER_TOKEN:
            raise InvalidRequest(
                f"the prompt has {num_bytes} characters, far more than fit in the {context_length} "
                "tokens of this model; shorten the brief or its instructions"
            )
        prompt_ids = self._runner.encode(request)
        return Sequence.start(
            ticket=ticket,
            request=request,
            prompt_ids=prompt_ids,
            num_shared=self._num_shared(request, prompt_ids),
            context_length=context_length,
            now=time.monotonic(),
        )

    def _num_shared(self, request: Request, prompt_ids: list[int]) -> int:
        """How many tokens come before the last message: those of the style, in a brief."""
        if len(request.messages) == 1 or not self._runner.max_prefixes:
            return 0
        head = self._runner.encode(Request(id=request.id, messages=request.messages[:-1]))
        num_same = next((i for i, (a, b) in enumerate(zip(head, prompt_ids, strict=False)) if a != b), 0)
        return num_same if num_same >= _MIN_SHARED else 0

    def _seconds_of_work(self) -> float:
        owed = sum(sequence.max_ids - sequence.num_computed for sequence in self._scheduler.running)
        return max(1.0, owed * self._recent_seconds / max(1.0, self._recent_tokens))

    def _cancel(self, ticket: int) -> None:
        if sequence := self._scheduler.find(ticket):
            self._finish(sequence, "cancelled")

    def _compute(self, step: Step) -> None:
        self._num_steps += 1
        began = time.perf_counter()
        try:
            sampled = self._runner.run(step)
        except AdapterUnavailable as error:
            self._fail_lane(step, error)
            return
        self._recent_seconds = self._recent_seconds * _DECAY + time.perf_counter() - began
        self._recent_tokens = self._recent_tokens * _DECAY + len(sampled)
        self._postprocess(step, sampled)

    def _postprocess(self, step: Step, sampled: list[Sampled]) -> None:
        sampling = [row for row in step.rows if row.samples]
        for row in step.rows:
            row.sequence.num_computed += row.num_tokens
        for row, one in zip(sampling, sampled, strict=True):
            num_ids = len(row.sequence.ids)
            self._append(row.sequence, one)
            if row.guesses:
                self._check(row, num_ids)

    def _check(self, row: Row, num_ids: int) -> None:
        """Draw on, behind one guess after another, for as long as they are what was drawn.

        `num_ids` are the ids before the pass; with fewer than one more some were taken back.
        """
        sequence, num_true = row.sequence, 0
        for guess in row.guesses:
            has_one_more = len(sequence.ids) == num_ids + num_true + 1
            if sequence.is_over or not has_one_more or sequence.ids[-1] != guess:
                break
            num_true += 1
            sequence.num_computed += 1
            self._append(sequence, self._runner.draw_behind(sequence, num_true))
        sequence.learn(num_guessed=len(row.guesses), num_true=num_true)
        self._num_guessed += len(row.guesses)
        self._num_true += num_true
        if num_true < len(row.guesses) and not sequence.is_over:
            self._runner.rewind(sequence)

    def _append(self, sequence: Sequence, sampled: Sampled) -> None:
        token_id = sampled.token_id
        if self._runner.is_end(token_id) and sequence.may_end():
            self._finish(sequence, "end")
            return
        if not self._runner.is_end(token_id):
            event = sequence.append(token_id, self._runner.piece(token_id), sampled.logprobs)
            if event:
                self._outbox.append((sequence.ticket, event))
        if sequence.num_pending < 1:
            self._rewind(sequence)
        if sequence.is_stopped:
            self._finish(sequence, "stop")
        elif sequence.is_full:
            self._finish(sequence, "length")

    def _rewind(self, sequence: Sequence) -> None:
        """The sequence took tokens back; the last that stays is computed again, for its logits."""
        sequence.num_computed = len(sequence.ids) - 1
        self._runner.rewind(sequence)

    def _finish(self, sequence: Sequence, reason: FinishReason) -> None:
        sequence.is_over = True
        self._scheduler.remove(sequence)
        self._runner.free(sequence)
        self._outbox.append((sequence.ticket, sequence.finish(reason)))

    def _fail_lane(self, step: Step, error: AdapterUnavailable) -> None:
        for sequence in self._scheduler.drop_lane(step.lane):
            self._runner.free(sequence)
            self._outbox.append((sequence.ticket, error))
