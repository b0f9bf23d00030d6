"""A writer: from a claimed row to a finished draft, through a real engine process."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from pytest_django import Settings

from apps.common.leases import JobState
from apps.common.words import says
from apps.drafts import services
from apps.drafts.models import Chunk, Draft, Job, Worker
from apps.projects.models import Brief
from apps.tuning.models import Release, ReleaseKind
from inference import Engine
from tests.support.cast import Newsroom, assert_refused
from tests.support.factories import a_brief, a_queued_draft, an_adapter, let_the_lease_run_out
from tests.workers.conftest import OpenEngine
from workers import crew, generation, presence
from workers import engine as engines
from workers.crew import Keeper

NUM_TOKENS = 40


def written(draft: Draft) -> Draft:
    """The draft after one worker has answered its doorbell."""
    generation.write_next()
    draft.refresh_from_db()
    return draft


def text_of_chunks(draft: Draft) -> str:
    return "".join(Chunk.objects.filter(draft=draft).values_list("text", flat=True))


def test_it_works(newsroom: Newsroom, open_engine: OpenEngine) -> None:
    open_engine(tokens_per_second=300, num_tokens=NUM_TOKENS)

    draft = written(a_queued_draft(newsroom))

    assert (draft.state, draft.finish_reason) == ("ready", "end")
    assert len(draft.text.split()) == draft.num_tokens == NUM_TOKENS
    assert text_of_chunks(draft) == draft.text == draft.generated_text
    assert 2 <= draft.last_seq == draft.chunks.count() <= NUM_TOKENS
    assert (draft.model_name, draft.adapter_sha256, draft.release) == ("fake", "", None)
    assert Job.objects.get(draft=draft).state == JobState.DONE
    passport = newsroom.eli.get(f"/drafts/{draft.pk}").json()
    assert passport["tokens_per_second"] > 10
    assert passport["created_at"] < passport["started_at"] < passport["first_token_at"]


def test_the_same_brief_and_seed_write_the_same_text_again(
    newsroom: Newsroom, open_engine: OpenEngine
) -> None:
    open_engine()
    brief = a_brief(newsroom)

    first, second = (written(a_queued_draft(newsroom, brief=brief)) for _ in range(2))

    assert first.text == second.text
    assert first.content_sha256 == second.content_sha256


def test_what_must_not_be_said_is_not_said(newsroom: Newsroom, open_engine: OpenEngine) -> None:
    open_engine()
    terms = ["with", "new", "today"]

    free = written(a_queued_draft(newsroom))
    ruled = written(a_queued_draft(newsroom, brief=a_brief(newsroom, must_not_say=terms)))

    assert any(says(free.text, term) for term in terms)
    assert not any(says(ruled.text, term) for term in terms)
    assert ruled.finish_reason == "end"


def test_a_term_that_a_fact_says_is_left_to_the_model(newsroom: Newsroom) -> None:
    """Briefs from before the rule may still contradict themselves."""
    brief = a_brief(newsroom, must_say=["the new barn opens"], must_not_say=["old", "delay"])
    Brief.objects.filter(pk=brief.pk).update(must_say=["the old barn opens"])
    brief.refresh_from_db()
    assert a_queued_draft(newsroom, brief=brief).must_not_say == ["delay"]


def test_a_doorbell_for_nothing_does_nothing(newsroom: Newsroom, open_engine: OpenEngine) -> None:
    open_engine()
    written(a_queued_draft(newsroom))

    assert generation.write_next() is None
    assert Draft.objects.get().revision == 1


def test_the_engine_dies_and_the_draft_goes_on_where_it_stood(
    newsroom: Newsroom, open_engine: OpenEngine
) -> None:
    engine = open_engine(tokens_per_second=100, num_tokens=NUM_TOKENS)
    brief = a_brief(newsroom)
    undisturbed = written(a_queued_draft(newsroom, brief=brief))
    draft = a_queued_draft(newsroom, brief=brief)

    with _killing(engine, after_steps=NUM_TOKENS // 2):
        written(draft)

    job = Job.objects.get(draft=draft)
    assert (draft.state, job.state, job.deaths) == ("queued", JobState.QUEUED, 1)
    committed = text_of_chunks(draft)
    assert 0 < len(committed) < len(undisturbed.text)
    assert undisturbed.text.startswith(committed)

    written(draft)

    assert draft.state == "ready"
    assert draft.text == text_of_chunks(draft) == undisturbed.text
    assert draft.num_tokens == NUM_TOKENS
    assert engine.stats().deaths == 1


class _killing:
    """While the block runs, SIGKILL the engine's process once it has made so many more steps."""

    def __init__(self, engine: Engine, *, after_steps: int) -> None:
        self.engine, self.until = engine, engine.stats().num_steps + after_steps
        self.deadline = time.monotonic() + 20
        self.thread = threading.Thread(target=self._kill)

    def _kill(self) -> None:
        while self.engine.stats().num_steps < self.until:
            assert time.monotonic() < self.deadline, "the engine made too few steps in 20 s"
            time.sleep(0.002)
        pid = self.engine.stats().pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.thread.join()


def test_a_draft_that_kills_its_engine_twice_ends_with_a_reason(
    newsroom: Newsroom, open_engine: OpenEngine
) -> None:
    engine = open_engine(tokens_per_second=100, num_tokens=100)
    draft = a_queued_draft(newsroom)

    for _ in range(2):
        with _killing(engine, after_steps=15):
            written(draft)

    job = Job.objects.get(draft=draft)
    assert (draft.state, job.state, job.reason) == ("failed", JobState.FAILED, "poison")
    assert draft.text == text_of_chunks(draft) != ""


def test_a_worker_whose_lease_is_gone_stops_without_a_trace(
    newsroom: Newsroom, open_engine: OpenEngine
) -> None:
    open_engine()
    draft = a_queued_draft(newsroom)
    stale = Job.objects.claim_next(worker="worker-1")
    assert stale is not None
    let_the_lease_run_out(stale)
    services.reap_expired()

    assert generation.write(stale) == "lease lost"

    assert not Chunk.objects.exists()
    assert written(draft).state == "ready"


@pytest.mark.parametrize(
    ("messages", "reason"),
    [([{"role": "user", "text": "word " * 50_000}], "invalid_request"), ([], "invalid_request")],
)
def test_a_prompt_that_cannot_be_written_fails_with_its_reason(
    newsroom: Newsroom, open_engine: OpenEngine, messages: list[dict[str, str]], reason: str
) -> None:
    open_engine()
    draft = a_queued_draft(newsroom)
    Draft.objects.filter(pk=draft.pk).update(messages=messages)

    written(draft)

    assert draft.state == "failed"
    assert newsroom.eli.get(f"/drafts/{draft.pk}").json()["reason"] == reason


def test_an_adapter_that_is_gone_from_the_store_fails_the_draft_with_a_reason(
    newsroom: Newsroom, open_engine: OpenEngine
) -> None:
    open_engine()
    adapter = an_adapter(newsroom, files={"MANIFEST.json": "0" * 64})
    Release.objects.create(
        project=newsroom.project,
        number=1,
        kind=ReleaseKind.PROMOTION,
        adapter=adapter,
        created_by=newsroom.ada.user,
    )

    draft = written(a_queued_draft(newsroom))

    assert (draft.state, draft.adapter_sha256) == ("failed", adapter.sha256)
    assert Job.objects.get(draft=draft).reason == "artifact_missing"


def test_a_model_that_is_missing_fails_the_draft_and_closes_the_desk(
    newsroom: Newsroom, home: Path, settings: Settings
) -> None:
    settings.GALLEY_MODEL = "/nowhere/model.gguf"
    brief: Brief = a_brief(newsroom)

    draft = written(a_queued_draft(newsroom, brief=brief))

    assert (draft.state, Job.objects.get(draft=draft).reason) == ("failed", "model_unavailable")
    info = presence._writing_info()
    presence.report(name="writing@here", role="writing", info=info)
    assert "/nowhere/model.gguf" in Worker.objects.get().info["error"]
    body = assert_refused(newsroom.eli.post(f"/briefs/{brief.pk}/drafts"), 409, "model_unavailable")
    assert "/nowhere/model.gguf" in body["message"]


# --- stops, with the keeper's eyes ---------------------------------------------------------------


class _Writing:
    """A writer in a thread of its own, as in the worker's crew, watched by a keeper in this one."""

    def __init__(self, draft: Draft) -> None:
        self.draft, self.keeper = draft, Keeper()
        self.thread = threading.Thread(target=self._write)

    def _write(self) -> None:
        try:
            generation.write_next()
        finally:
            connection.close()

    def __enter__(self) -> "_Writing":
        self.thread.start()
        self.until(lambda draft: draft.last_seq >= 2)
        return self

    def __exit__(self, *_: object) -> None:
        self.thread.join(timeout=20)

    def until(self, holds: Any) -> None:
        deadline = time.monotonic() + 20
        while not holds(Draft.objects.get(pk=self.draft.pk)):
            assert time.monotonic() < deadline, "the draft did not get there in 20 s"
            time.sleep(0.01)

    def end(self) -> Draft:
        """Look as the keeper does until the thread has ended."""
        while self.thread.is_alive():
            self.keeper.look()
            time.sleep(0.02)
        return Draft.objects.get(pk=self.draft.pk)


@pytest.mark.django_db(transaction=True)
def test_a_stop_keeps_what_was_written(newsroom: Newsroom, open_engine: OpenEngine) -> None:
    open_engine(tokens_per_second=100, num_tokens=2000)
    draft = a_queued_draft(newsroom)

    with _Writing(draft) as writing:
        newsroom.eli.post(f"/drafts/{draft.pk}/cancel")
        stopped = writing.end()

    assert (stopped.state, stopped.finish_reason) == ("stopped", "cancelled")
    assert stopped.text == text_of_chunks(stopped) != ""
    assert stopped.num_tokens < 2000
    assert newsroom.eli.post(f"/drafts/{draft.pk}/submit").status_code == 201


@pytest.mark.django_db(transaction=True)
def test_a_worker_that_shuts_down_hands_its_draft_on_unharmed(
    newsroom: Newsroom, open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_engine(tokens_per_second=100, num_tokens=80)
    brief = a_brief(newsroom)
    draft = a_queued_draft(newsroom, brief=brief)
    stopping = threading.Event()
    monkeypatch.setattr(presence, "_stopping", stopping)

    with _Writing(draft) as writing:
        stopping.set()
        handed_back = writing.end()

    assert handed_back.state == "queued"
    assert Job.objects.get(draft=draft).deaths == 0
    stopping.clear()
    assert written(draft).text == written(a_queued_draft(newsroom, brief=brief)).text


@pytest.mark.django_db(transaction=True)
def test_the_keeper_renews_leases_only_while_the_engine_works(
    newsroom: Newsroom, open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "RENEW_S", 0)
    engine = open_engine(tokens_per_second=100, num_tokens=150)
    draft = a_queued_draft(newsroom)

    with _Writing(draft) as writing:
        pid = engine.stats().pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)  # hangs, does not die
        time.sleep(0.2)  # its last steps arrive
        leases = []
        for _ in range(3):
            writing.keeper.look()
            leases.append(Job.objects.get(draft=draft).lease_until)
        os.kill(pid, signal.SIGCONT)
        finished = writing.end()

    assert leases[0] == leases[1] == leases[2]
    assert finished.state == "ready"
    assert Job.objects.filter(draft=draft, lease_until__gt=leases[0]).exists()


def test_the_engine_is_opened_once_and_again_after_it_was_closed(
    newsroom: Newsroom, open_engine: OpenEngine
) -> None:
    first = open_engine()

    assert engines.get_engine() is first
    engines.close_engine()
    assert engines.num_steps() == 0
    assert written(a_queued_draft(newsroom)).state == "ready"
