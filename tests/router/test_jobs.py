"""A job as it tells of itself, and its receipt."""

from __future__ import annotations

from dataclasses import replace

import pytest

from router.jobs import Outcome, Result
from router.placement import Word, place
from router.prediction import Need, Speed
from router.states import JobState
from router.wire import Try, Verdict
from tests.fakes import make_job, view


def test_a_job_tells_where_it_stands() -> None:
    job = make_job(chat_id="c", person="anna", why="retry", loading_pct=40, place=2, eta_s=7.5)
    job.decision = place([view("here", "e", warm=False)])
    info, news = job.info(), job.news()
    assert (info.state, info.place, info.why, info.loading_pct, info.key) == (JobState.QUEUED, 2, "retry", 40, "anna")
    assert info.eta_s == news.eta_s == 7.5
    assert (info.node, info.engine, info.kind, info.origin) == ("here", "e", "chat", "api")
    assert (news.state, news.place, news.why, news.loading_pct, news.node) == (JobState.QUEUED, 2, "retry", 40, "here")


def test_a_job_that_nobody_was_chosen_for_has_no_receipt() -> None:
    job = make_job()
    assert job.served(None, 1001.0) is None
    assert job.info().node is None
    job.decision = place([view(blocked=None, in_flight=1), view("p")], frozenset({("here", "e"), ("p", "e")}))
    assert job.served(None, 1001.0) is None


def test_a_receipt_says_who_served_why_and_how_long_each_part_took() -> None:
    job = make_job(digest="sha256:d", started_mono=1002.0, loading_s=1.5)
    job.decision = place([view("here", "e", warm=False, digest="sha256:d"), view("p", in_flight=1)])
    job.tries = [Try(number=1, node="here", engine="e", result="ok", duration_s=4.0)]
    receipt = job.served(Outcome(Result.DONE, ttft_s=0.25, completion_tokens=9, tokens_per_s=8.5), 1010.0)
    assert receipt is not None
    assert (receipt.node, receipt.engine, receipt.model, receipt.digest) == ("here", "e", "m", "sha256:d")
    assert not receipt.by_name
    assert (receipt.reason, [v.verdict for v in receipt.verdicts]) == ("local-cold", ["cold", "busy"])
    assert (receipt.queued_s, receipt.loading_s, receipt.ttft_s, receipt.total_s) == (2.0, 1.5, 0.25, 10.0)
    assert (receipt.completion_tokens, receipt.tokens_per_s, receipt.prompt_tokens) == (9, 8.5, None)
    assert receipt.tries == job.tries


def test_a_receipt_says_by_name_where_the_engine_that_served_tells_no_digest() -> None:
    job = make_job(digest="sha256:d", started_mono=1000.0)
    job.decision = place([view("here", "e"), view("p", digest="sha256:d", blocked=Word.UNHEALTHY)])
    receipt = job.served(Outcome(Result.DONE), 1001.0)
    assert receipt is not None
    assert (receipt.digest, receipt.by_name) == (None, True)


def test_a_receipt_names_those_that_do_not_hold_the_model_and_what_was_expected() -> None:
    job = make_job(started_mono=1000.0)
    decision = place([view("p", speed=Speed(10.0, 20.0))], need=Need(10, 40))
    job.decision = replace(decision, absent=(Verdict(node="q", engine="peer-q", verdict="missing"),))
    receipt = job.served(Outcome(Result.DONE), 1001.0)
    assert receipt is not None
    assert [(one.node, one.verdict) for one in receipt.verdicts] == [("p", "warm"), ("q", "missing")]
    assert receipt.predicted is not None
    assert (receipt.predicted.prefill_s, receipt.predicted.decode_s) == (1.0, 2.0)


@pytest.mark.parametrize(
    ("queued_there_s", "loading_there_s", "parts"),
    [
        (0.0, 0.0, (1.0, 0.0, 5.0, 8.0)),
        (1.0, 3.0, (2.0, 3.0, 1.0, 4.0)),
        (1e9, 1e9, (6.0, 0.0, 0.0, 3.0)),  # nobody can have waited longer than it took
    ],
)
def test_a_wait_and_a_load_on_another_computer_are_told_as_such(
    queued_there_s: float, loading_there_s: float, parts: tuple[float, ...]
) -> None:
    job = make_job(started_mono=1001.0)
    job.decision = place([view("p")])
    outcome = Outcome(
        Result.DONE,
        ttft_s=5.0,
        duration_s=8.0,
        queued_there_s=queued_there_s,
        loading_there_s=loading_there_s,
    )
    receipt = job.served(outcome, 1009.0)
    assert receipt is not None
    assert (receipt.queued_s, receipt.loading_s, receipt.ttft_s, receipt.working_s) == parts
