"""Whether this computer slept, seen from its clocks."""

from __future__ import annotations

import asyncio
import time

import pytest

from router import awake
from router.aio import SystemClock
from router.awake import Gap
from tests.fakes import FakeClock


class Machine:
    """A computer that sleeps when told to: its monotonic clock stands still meanwhile."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.slept = 500.0
        self.gap = Gap(self.clock, lambda: self.slept)

    def doze(self, seconds: float) -> None:
        self.slept += seconds
        self.clock.jump(seconds)


def test_a_computer_that_stays_awake_misses_nothing() -> None:
    machine = Machine()
    for _ in range(100):
        machine.clock.advance(1.0)
        assert machine.gap.look() == 0


def test_a_sleep_is_seen_once_with_its_length() -> None:
    machine = Machine()
    machine.clock.advance(1.0)
    machine.doze(3600)
    assert machine.gap.look() == 3600
    machine.clock.advance(1.0)
    assert machine.gap.look() == 0


def test_a_sleep_of_less_than_ten_seconds_is_no_matter() -> None:
    machine = Machine()
    machine.doze(9.9)
    assert machine.gap.look() == 0
    machine.doze(10.1)
    assert machine.gap.look() > 10


def test_a_sleep_counts_whatever_the_wall_clock_says_afterwards() -> None:
    machine = Machine()
    machine.slept += 60
    machine.clock.jump(-7200)
    assert machine.gap.look() == 60


def test_a_virtual_machine_that_was_stopped_shows_by_its_wall_clock() -> None:
    machine = Machine()
    machine.clock.jump(60)
    assert machine.gap.look() == 60


def test_a_wall_clock_set_back_is_no_sleep() -> None:
    machine = Machine()
    machine.clock.jump(-86_400)
    assert machine.gap.look() == 0


def test_a_process_that_was_frozen_missed_that_time() -> None:
    machine = Machine()
    machine.clock.advance(91.0)
    assert machine.gap.look() == 90


def test_the_clock_of_this_system_is_the_one_that_stands_still() -> None:
    assert SystemClock.mono is awake.mono
    assert awake.slept_s() >= -0.001
    before = awake.mono()
    assert 0 <= awake.mono() - before < 5


async def test_a_loop_whose_clock_counts_sleep_gets_the_one_that_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    own = loop.time
    awake.install(loop)
    assert loop.time == own or awake.mono is not time.monotonic
    monkeypatch.setattr(awake, "mono", lambda: 7.0)
    awake.install(loop)
    try:
        assert loop.time() == 7.0
    finally:
        loop.time = own  # type: ignore[method-assign]
