"""What is expected comes from what was measured here, by engine and model."""

from __future__ import annotations

import json
from typing import Any

import pytest

from router.engines.base import Kind
from router.jobs import Job
from router.lanes import Lane
from router.placement import Decision
from router.prediction import Need, Speed
from router.rates import ANSWER_TOKENS, FRESH_S, UNKNOWN_S, Rates, identity_of
from router.wire import Receipt
from tests.fakes import make_job, view

NOW = 1000.0


def receipt(total_s: float, queued_s: float = 0.0, loading_s: float = 0.0, **more: Any) -> Receipt:
    return Receipt(
        node="here", engine="e", model="m", digest=None, reason="", verdicts=[], tries=[],
        queued_s=queued_s, loading_s=loading_s, total_s=total_s, **more,
    )  # fmt: skip


def done(lane: Lane, model: str, total_s: float, *, digest: str | None = None, body: bytes = b"", **more: Any) -> Job:
    chosen = view(engine=lane.engine, model=model, digest=digest)
    job = make_job(1, model, lane=lane, lane_model=model, decision=Decision(chosen, "", ()), body=body)
    job.kind = more.pop("kind", Kind.CHAT)
    job.sees = more.pop("sees", False)
    job.receipt = receipt(total_s, **more)
    return job


def learnt(*jobs: Job) -> Rates:
    rates = Rates()
    for job in jobs:
        rates.learn(job)
    return rates


LANE = Lane("e", 1)


def test_waiting_and_loading_are_not_counted_as_work() -> None:
    rates = learnt(done(LANE, "m", 10.0, queued_s=3.0, loading_s=5.0))
    assert (rates.work_s("e", "m"), rates.load_s("e", "m")) == (2.0, 5.0)


def test_neither_is_the_time_lost_with_others_that_were_tried_first() -> None:
    assert learnt(done(LANE, "m", 10.0, working_s=4.0)).work_s("e", "m") == 4.0


def test_a_mean_moves_towards_what_is_seen_now() -> None:
    assert learnt(*(done(LANE, "m", seconds) for seconds in (10.0, 20.0))).work_s("e", "m") == 12.0


def test_each_in_line_waits_for_those_before_it_and_for_the_swap() -> None:
    lane = Lane("e", 1)
    rates = learnt(done(lane, "a", 4.0), done(lane, "b", 8.0, loading_s=2.0))
    lane.running_model, lane.in_flight = "a", 1
    waiting = [make_job(number, model, lane_model=model) for number, model in enumerate("aab")]
    assert rates.etas(lane, waiting) == [2.0, 6.0, 12.0]


def test_what_was_never_measured_has_a_cautious_guess() -> None:
    assert Rates().work_s("e", "m") == UNKNOWN_S


def test_a_full_queue_says_when_its_next_place_is_likely() -> None:
    lane = Lane("e", 2)
    rates = learnt(done(lane, "m", 30.0))
    lane.running_model = "m"
    lane.add(make_job(lane_model="m"))
    assert rates.turn_s([lane]) == 15.0
    assert rates.turn_s([]) == 1.0


# -- speeds


def test_a_speed_belongs_to_an_engine_and_to_weights_not_to_a_name() -> None:
    rates = learnt(done(LANE, "llama", 5.0, digest="d1", completion_tokens=10, tokens_per_s=20.0))
    assert rates.speed("e", "d1", Speed(), NOW).decode_per_s == 20.0
    assert rates.speed("e", identity_of(None, "llama"), Speed(), NOW) == Speed()
    assert rates.speed("f", "d1", Speed(), NOW) == Speed()
    assert rates.own("e", "llama").decode_per_s == 20.0
    assert rates.own("e", "other") == Speed()
    assert identity_of(None, "Llama:latest") == "llama"


def test_a_long_answer_says_more_of_a_speed_than_a_short_one() -> None:
    short = done(LANE, "m", 1.0, completion_tokens=1, tokens_per_s=1.0, prompt_tokens=1, prefill_per_s=2.0)
    long = done(LANE, "m", 9.0, completion_tokens=900, tokens_per_s=100.0, prompt_tokens=900, prefill_per_s=300.0)
    speed = learnt(short, long).speed("e", "m", Speed(), NOW)
    assert speed.decode_per_s == pytest.approx(900.8 / 9.8)
    assert speed.prefill_per_s == pytest.approx(900.8 / 3.4)


def test_an_engine_that_tells_no_speeds_is_timed() -> None:
    speed = learnt(done(LANE, "m", 6.0, prompt_tokens=100, completion_tokens=50, ttft_s=2.0, tokens_per_s=12.5))
    assert speed.speed("e", "m", Speed(), NOW) == Speed(50.0, 12.5, None, 6.0)
    whole = learnt(done(LANE, "m", 5.0, completion_tokens=50))
    assert whole.speed("e", "m", Speed(), NOW) == Speed(None, 10.0, None, 5.0)
    embedding = learnt(done(LANE, "m", 2.0, prompt_tokens=100, kind=Kind.EMBEDDING))
    assert embedding.speed("e", "m", Speed(), NOW) == Speed(50.0, None, None, 2.0)


def test_prompts_that_lie_ready_are_expected_to_lie_ready_until_the_loaded_model_is_gone() -> None:
    rates = learnt(done(LANE, "m", 1.0, prompt_tokens=100, cached_tokens=80, prefill_per_s=40.0))
    speed = rates.speed("e", "m", Speed(), NOW)
    assert (speed.reused, speed.prefill_per_s) == (0.8, 40.0)
    rates.forget_prompts("e", "m")
    rates.forget_prompts("e", "unknown")
    speed = rates.speed("e", "m", Speed(), NOW)
    assert (speed.reused, speed.prefill_per_s) == (0.0, 40.0)


def test_what_was_seen_lately_counts_more_than_what_is_told_and_what_is_old_less() -> None:
    told = Speed(prefill_per_s=1.0, decode_per_s=2.0, load_s=3.0)
    rates = learnt(done(LANE, "m", 4.0, completion_tokens=10, tokens_per_s=20.0))
    assert rates.speed("e", "other", told, NOW) == told
    assert rates.speed("e", "m", told, NOW) == Speed(1.0, 20.0, 3.0, 4.0)
    assert rates.speed("e", "m", told, NOW + FRESH_S + 5) == Speed(1.0, 2.0, 3.0, 4.0)
    assert rates.speed("e", "m", Speed(), NOW + FRESH_S + 5).decode_per_s == 20.0


def test_peers_are_told_three_digits_so_that_not_every_job_is_news() -> None:
    rates = learnt(done(LANE, "m", 4.0, loading_s=1.23456, completion_tokens=10, tokens_per_s=123.456))
    assert rates.own("e", "m") == Speed(None, 123.0, 1.23)


# -- what a job takes


def asking(**fields: object) -> Job:
    return make_job(body=json.dumps({"model": "m", "messages": ["x" * 400], **fields}).encode())


def test_a_job_takes_what_its_text_is_long_and_what_the_model_usually_answers() -> None:
    rates = learnt(done(LANE, "m", 1.0, body=b"x" * 500, prompt_tokens=100, completion_tokens=60))
    job = asking()
    assert rates.need(job, "m") == Need(len(job.body) / 5, 60)
    assert rates.need(job, "never asked") == Need(len(job.body) / 4, ANSWER_TOKENS)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_no_answer_is_longer_than_was_asked_for(name: str) -> None:
    assert Rates().need(asking(**{name: 16}), "m").answer_tokens == 16
    assert Rates().need(asking(**{name: 10**6}), "m").answer_tokens == ANSWER_TOKENS
    assert Rates().need(asking(text=f'"{name}": 3'), "m").answer_tokens == ANSWER_TOKENS


def test_a_picture_is_not_measured_by_its_bytes() -> None:
    rates = learnt(done(LANE, "m", 1.0, body=b"x" * 10**6, prompt_tokens=700, sees=True))
    job = make_job(body=b"y" * 10**6, sees=True)
    assert rates.need(job, "m").prompt_tokens == 700
    assert rates.need(asking(), "m").prompt_tokens == len(asking().body) / 4


def test_an_embedding_answers_nothing() -> None:
    assert Rates().need(make_job(kind=Kind.EMBEDDING), "m").answer_tokens == 0
