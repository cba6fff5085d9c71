"""A failing peer is left alone for a while, tried by one request, and retries stay a small share of all requests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.health import EJECT_MAX_S, LAST_CALLS, Failure, Health
from tests.fakes import FakeClock

BROKEN, SHED, SILENT, UNREACHABLE = Failure.BROKEN, Failure.SHED, Failure.SILENT, Failure.UNREACHABLE


class Peer:
    """One model at one peer as calls and placement meet it; the jitter is in the middle."""

    def __init__(self, spread: float = 1.0) -> None:
        self.clock = FakeClock()
        self.health = Health(self.clock, lambda low, high: spread)
        self.told: list[bool] = []
        self.health.changed = lambda: self.told.append(self.out)

    @property
    def out(self) -> bool:
        return bool(self.health.ejected("p", "m"))

    def call(self, failure: Failure | None = None) -> None:
        self.health.began("p", "m")
        if failure is None:
            self.health.succeeded("p", "m")
        else:
            self.health.failed("p", "m", failure, "It is broken.")
        self.health.ended("p", "m")

    def out_for(self) -> float:
        waited = 0.0
        while self.out:
            self.clock.advance(0.5)
            waited += 0.5
            assert waited < 1000
        return waited


def test_a_peer_that_did_not_accept_in_time_is_out_at_once() -> None:
    peer = Peer()
    peer.call(SILENT)
    assert peer.out
    assert peer.health.ejected("p", "m") == "Left alone for 5 s more. It is broken."
    assert peer.told == [True]


def test_two_connect_failures_in_a_row_are_out_and_one_is_not() -> None:
    peer = Peer()
    peer.call(UNREACHABLE)
    assert not peer.out
    peer.call()
    peer.call(UNREACHABLE)
    assert not peer.out
    peer.call(UNREACHABLE)
    assert peer.out


@pytest.mark.parametrize("failure", [BROKEN, SHED])
def test_three_failures_in_ten_calls_are_out_whatever_they_are(failure: Failure) -> None:
    peer = Peer()
    for _ in range(2):
        peer.call(failure)
        for _ in range(LAST_CALLS // 2 - 1):
            peer.call()
    assert not peer.out
    peer.call(failure)
    assert not peer.out, "the first of the three is no longer among the last ten"
    peer.call()
    peer.call(failure)
    assert peer.out


def test_each_ejection_in_a_row_is_twice_as_long_up_to_five_minutes_and_a_good_trial_forgives() -> None:
    peer = Peer()
    times = []
    for _ in range(9):
        peer.call(SILENT)
        times.append(peer.out_for())
    assert times == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    peer.call()
    assert not peer.out
    peer.call(SILENT)
    assert peer.out_for() == 5


@given(st.floats(0.8, 1.2))
def test_the_time_is_spread_by_a_fifth(spread: float) -> None:
    peer = Peer(spread)
    peer.call(SILENT)
    assert 4 <= peer.out_for() <= 6.5


def test_one_request_at_a_time_tries_a_peer_whose_time_is_over() -> None:
    peer = Peer()
    peer.call(SILENT)
    peer.clock.advance(5)
    assert not peer.out
    peer.health.began("p", "m")
    assert peer.out
    assert "tries it again" in peer.health.ejected("p", "m")
    peer.health.ended("p", "m")  # it was cancelled
    assert not peer.out
    peer.health.began("p", "m")
    peer.health.succeeded("p", "m")
    assert not peer.out
    peer.health.ended("p", "m")
    peer.call(BROKEN)
    assert not peer.out


def test_one_failed_trial_is_enough() -> None:
    peer = Peer()
    peer.call(SILENT)
    peer.clock.advance(5)
    peer.call(SHED)
    assert peer.out_for() == 10


def test_calls_that_were_under_way_when_it_was_ejected_change_nothing() -> None:
    peer = Peer()
    peer.call(SILENT)
    for _ in range(8):
        peer.health.failed("p", "m", SILENT)
        peer.health.succeeded("p", "m")
    assert peer.out_for() == 5


def test_only_the_model_and_the_peer_that_failed_are_left_alone() -> None:
    peer = Peer()
    peer.call(SILENT)
    assert (peer.health.ejected("p", "other"), peer.health.ejected("q", "m")) == ("", "")


def test_after_sleep_or_a_new_start_of_the_peer_all_is_forgotten() -> None:
    peer = Peer()
    peer.call(SILENT)
    peer.health.clear("q")
    assert peer.out
    peer.health.clear("p")
    assert (peer.out, peer.told) == (False, [True, False])
    peer.call(SILENT)
    peer.health.clear()
    assert not peer.out


def test_no_time_is_longer_than_five_minutes_and_a_fifth() -> None:
    peer = Peer(1.2)
    for _ in range(100):
        peer.call(SILENT)
        assert peer.out_for() <= EJECT_MAX_S * 1.2 + 0.5


# -- the budget


def test_three_retries_are_always_allowed_in_ten_seconds() -> None:
    clock = FakeClock()
    budget = Health(clock).budget
    for _ in range(3):
        assert not budget.spent
        budget.retry()
    assert budget.spent
    clock.advance(10)
    assert not budget.spent


def test_retries_are_a_fifth_of_the_requests() -> None:
    clock = FakeClock()
    budget = Health(clock).budget
    for second in range(10):
        for _ in range(10):
            budget.request()
        if second < 9:
            clock.advance(1)
    retries = 0
    while not budget.spent:
        budget.retry()
        retries += 1
    assert retries == 20
    clock.advance(9)
    assert budget.spent, "what was retried in this second still counts"
    clock.advance(1)
    assert not budget.spent
