"""Taking a claimed job in hand: the release is pinned once, another model starts the text over."""

from apps.drafts import services
from apps.drafts.models import Draft, Job
from tests.support.cast import Newsroom
from tests.support.factories import MODEL, a_claimed_job, append_words


def claimed_again(job: Job) -> Job:
    services.hand_back(job=job)
    again = Job.objects.filter(pk=job.pk).claim_next(worker="worker-2")
    assert again is not None
    return again


def begin(job: Job, *, model: dict[str, str]) -> Draft:
    return services.begin_writing(job=job, release_id=None, adapter_sha256="", model=model)


def test_a_second_worker_goes_on_after_the_committed_text(newsroom: Newsroom) -> None:
    job = a_claimed_job(newsroom)
    append_words(job, "The ", "doors ")

    draft = begin(claimed_again(job), model=MODEL)

    assert (draft.state, draft.attempt, draft.last_seq) == ("writing", 1, 2)
    assert services.committed(draft).text == "The doors "


def test_another_model_starts_the_text_over(newsroom: Newsroom) -> None:
    job = a_claimed_job(newsroom)
    append_words(job, "The ", "doors ")
    again = claimed_again(job)

    draft = begin(again, model={"name": "other", "sha256": "0" * 64})
    append_words(again, "Libraries ")

    assert (draft.attempt, draft.last_seq, draft.model_name) == (2, 0, "other")
    finished = services.finish_draft(job=again, finish_reason="end")
    assert (finished.text, finished.last_seq, finished.num_tokens) == ("Libraries ", 1, 1)
