"""ETAs come from what was measured here."""

from __future__ import annotations

from router.lanes import Lane
from router.rates import UNKNOWN_S, Rates
from router.wire import Receipt
from tests.fakes import make_job


def receipt(total_s: float, queued_s: float = 0.0, loading_s: float = 0.0) -> Receipt:
    return Receipt(
        node="here", engine="e", model="m", digest=None, reason="", verdicts=[], tries=[],
        queued_s=queued_s, loading_s=loading_s, total_s=total_s,
    )  # fmt: skip


def done(lane: Lane, model: str, total_s: float, **more: float):  # type: ignore[no-untyped-def]
    job = make_job(1, model, lane=lane, lane_model=model)
    job.receipt = receipt(total_s, **more)
    return job


def test_waiting_and_loading_are_not_counted_as_work() -> None:
    rates, lane = Rates(), Lane("e", 1)
    rates.learn(done(lane, "m", 10.0, queued_s=3.0, loading_s=5.0))
    assert rates.work_s("e", "m") == 2.0
    assert rates.load_s("e", "m") == 5.0


def test_a_mean_moves_towards_what_is_seen_now() -> None:
    rates, lane = Rates(), Lane("e", 1)
    for seconds in (10.0, 20.0):
        rates.learn(done(lane, "m", seconds))
    assert rates.work_s("e", "m") == 12.0


def test_each_in_line_waits_for_those_before_it_and_for_the_swap() -> None:
    rates, lane = Rates(), Lane("e", 1)
    rates.learn(done(lane, "a", 4.0))
    rates.learn(done(lane, "b", 8.0, loading_s=2.0))
    lane.running_model, lane.in_flight = "a", 1
    waiting = [make_job(number, model, lane_model=model) for number, model in enumerate("aab")]
    assert rates.etas(lane, waiting) == [2.0, 6.0, 12.0]


def test_what_was_never_measured_has_a_cautious_guess() -> None:
    assert Rates().work_s("e", "m") == UNKNOWN_S


def test_a_full_queue_says_when_its_next_place_is_likely() -> None:
    rates, lane = Rates(), Lane("e", 2)
    rates.learn(done(lane, "m", 30.0))
    lane.running_model, lane.waiting = "m", 5
    assert rates.turn_s([lane]) == 15.0
    assert rates.turn_s([]) == 1.0
