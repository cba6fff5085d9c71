"""The bus: everybody is told, nobody holds it up, and whoever is slow starts again from a snapshot."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from router.events import OVERFLOW, QUEUE_LIMIT, Bus


@dataclass
class Moved:
    number: int


@dataclass
class Other:
    number: int


def test_listeners_hear_events_of_exactly_their_class_in_order() -> None:
    bus, heard = Bus(), []
    bus.listen(Moved, lambda event: heard.append(("a", event.number)))
    bus.listen(Moved, lambda event: heard.append(("b", event.number)))
    for event in (Moved(1), Other(2), Moved(3), object()):
        bus.publish(event)
    assert heard == [("a", 1), ("b", 1), ("a", 3), ("b", 3)]


def test_a_listener_that_fails_is_logged_and_keeps_nobody_from_hearing(caplog: pytest.LogCaptureFixture) -> None:
    bus, heard = Bus(), []

    def fails(event: Moved) -> None:
        raise ValueError("broken")

    bus.listen(Moved, fails)
    bus.listen(Moved, heard.append)
    bus.publish(Moved(1))
    assert heard == [Moved(1)]
    assert "a listener of Moved failed" in caplog.text


async def test_every_open_queue_gets_what_is_pushed_and_a_closed_one_nothing() -> None:
    bus = Bus()
    assert not bus.watched
    with bus.queue() as one:
        with bus.queue() as two:
            bus.push("a")
        bus.push("b")
        assert bus.watched
    bus.push("c")
    assert not bus.watched
    assert [one.get_nowait(), one.get_nowait()] == ["a", "b"]
    assert two.get_nowait() == "a"
    assert one.empty()
    assert two.empty()


async def test_a_slow_reader_gets_a_mark_instead_of_what_it_missed_and_holds_nobody_up() -> None:
    bus = Bus()
    with bus.queue() as slow, bus.queue() as quick:
        for number in range(QUEUE_LIMIT + 2):
            bus.push(number)
            assert quick.get_nowait() == number
        assert [slow.get_nowait() for _ in range(slow.qsize())] == [OVERFLOW, QUEUE_LIMIT + 1]
        for number in range(10 * QUEUE_LIMIT):
            bus.push(number)
            assert slow.qsize() <= QUEUE_LIMIT
        assert slow.get_nowait() is OVERFLOW


async def test_a_queue_closes_however_its_reader_ends() -> None:
    bus = Bus()
    with pytest.raises(RuntimeError), bus.queue():
        raise RuntimeError
    assert not bus.watched
