"""logind as this node uses it, on a real private bus: locks that are held and given back, signals that are believed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from router.aio import Tasks
from router.power_linux import Logind as Power
from tests.fakes import BOUND_S
from tests.router.logind import DesktopLock, Logind, SessionBus, need_a_bus, spoof

NOWHERE = "unix:path=/nonexistent/bus"


class Told:
    """What the node would do."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.may_sleep = asyncio.Event()
        self.may_sleep.set()
        self._news = asyncio.Event()

    def _note(self, what: str) -> None:
        self.did.append(what)
        self._news.set()

    async def sleeps(self) -> None:
        self._note("sleeps")
        await self.may_sleep.wait()

    def woke(self) -> None:
        self._note("woke")

    def shuts_down(self) -> None:
        self._note("shuts down")

    async def until(self, *did: str) -> None:
        async with asyncio.timeout(BOUND_S):
            while self.did != list(did):
                self._news.clear()
                await self._news.wait()


@pytest.fixture
def bus() -> Iterator[SessionBus]:
    need_a_bus()
    made = SessionBus()
    yield made
    made.close()


@pytest.fixture
async def logind(bus: SessionBus) -> AsyncIterator[Logind]:
    made = await Logind.on(bus.address)
    yield made
    await made.close()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    made = Tasks()
    yield made
    await made.close()


@pytest.fixture
async def power(bus: SessionBus, logind: Logind, tasks: Tasks, told: Told) -> AsyncIterator[Power]:
    made = Power(tasks, system=bus.address, session=NOWHERE)
    await made.start(told)
    yield made
    await made.stop()


async def test_sleep_waits_for_the_goodbyes_and_the_next_one_does_too(power: Power, logind: Logind, told: Told) -> None:
    (lock,) = logind.held("delay")
    assert (lock.what, lock.who) == ("sleep:shutdown", "Quorum")
    told.may_sleep.clear()
    logind.suspend(True)
    await told.until("sleeps")
    assert lock.held
    told.may_sleep.set()
    await logind.until(lambda: not lock.held)
    logind.suspend(False)
    await told.until("sleeps", "woke")
    await logind.until(lambda: len(logind.held("delay")) == 1)
    assert power.detail == "logind waits for goodbyes"


async def test_a_shutdown_is_told_and_waits_until_this_program_has_ended(
    power: Power, logind: Logind, told: Told
) -> None:
    logind.shut_down()
    await told.until("shuts down")
    assert logind.held("delay")
    await power.stop()
    await logind.until(lambda: not logind.held("delay"))


async def test_a_shutdown_called_off_is_none(power: Power, logind: Logind, told: Told) -> None:
    logind.shut_down(False)
    logind.suspend(False)
    await told.until("woke")


async def test_the_computer_is_kept_awake_until_released(power: Power, logind: Logind) -> None:
    assert await power.hold()
    assert await power.hold()
    (lock,) = logind.held("block")
    assert (lock.what, lock.who) == ("sleep", "Quorum")
    await power.release()
    await logind.until(lambda: not lock.held)
    assert await power.hold()
    await power.stop()
    await logind.until(lambda: not logind.held("block"))


async def test_nobody_else_can_speak_for_logind(power: Power, logind: Logind, told: Told, bus: SessionBus) -> None:
    assert power._bus is not None
    for target in (":1.0", ":1.1", ":1.2", ":1.3"):
        await spoof(bus.address, target, "PrepareForShutdown")
    logind.suspend(False)
    await told.until("woke")


async def test_who_may_not_delay_sleep_still_hears_of_it(
    bus: SessionBus, logind: Logind, tasks: Tasks, told: Told
) -> None:
    logind.denied = {"delay", "block"}
    power = Power(tasks, system=bus.address, session=NOWHERE)
    await power.start(told)
    assert power.detail == "logind tells of it"
    logind.suspend(True)
    await told.until("sleeps")
    assert not await power.hold()
    assert "nobody keeps it awake" in power.detail
    await power.stop()


@pytest.mark.parametrize("kind", ["portal", "saver"])
async def test_without_logind_the_desktop_keeps_it_awake(bus: SessionBus, tasks: Tasks, told: Told, kind: str) -> None:
    desk = await (DesktopLock.portal if kind == "portal" else DesktopLock.saver)(bus.address)
    power = Power(tasks, system=NOWHERE, session=bus.address)
    await power.start(told)
    assert power.detail == "there is no logind"
    assert await power.hold()
    await power.release()
    reason = "A model answers on this computer"
    assert desk.asked == ([(4, reason), "closed"] if kind == "portal" else [("Quorum", reason), 42])
    await power.stop()
    await desk.close()


async def test_without_any_bus_nothing_happens_and_that_is_said_once(
    tasks: Tasks, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    power = Power(tasks, system=NOWHERE, session="disabled:")
    await power.start(told)
    for _ in range(3):
        assert not await power.hold()
        await power.release()
    await power.stop()
    assert power.detail == "there is no logind; nobody keeps it awake"
    lines = [record.getMessage() for record in caplog.records if "sleep of this computer" in record.getMessage()]
    assert len(lines) == 2


async def test_a_logind_that_starts_anew_is_found_again(
    bus: SessionBus, logind: Logind, tasks: Tasks, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.power_linux.AGAIN_S", 0.05)
    power = Power(tasks, system=bus.address, session=NOWHERE)
    await power.start(told)
    assert await power.hold()
    logind._bus.disconnect()
    await logind._bus.wait_for_disconnect()
    again = await Logind.on(bus.address)
    await again.until(lambda: len(again.held("delay")) == 1)
    assert await power.hold()
    await again.until(lambda: len(again.held("block")) == 1)
    again.suspend(True)
    await told.until("sleeps")
    await power.stop()
    await again.close()


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_nothing_stays_open_after_many_locks(power: Power, logind: Logind) -> None:
    await power.hold()
    await power.release()
    await logind.until(lambda: not logind.held("block") and not logind._given)
    before = _open_files()
    for _ in range(50):
        await power.hold()
        await power.release()
    await logind.until(lambda: not logind.held("block") and not logind._given)
    assert _open_files() - before <= 50  # the other ends are the test's own
