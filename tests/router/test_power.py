"""The operating systems behind one interface; those that are not here speak to stand-ins of their libraries."""

from __future__ import annotations

import asyncio
import sys
import threading

import pytest

from router.aio import Tasks
from router.power import NoPower, for_this_system, part
from tests.fakes import BOUND_S


class Told:
    """What the node is told, and on which thread."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.threads: set[int] = set()
        self.hangs = False
        self.news = asyncio.Event()

    def _note(self, what: str) -> None:
        self.did.append(what)
        self.threads.add(threading.get_ident())
        self.news.set()

    async def sleeps(self) -> None:
        self._note("sleeps")
        if self.hangs:
            await asyncio.Event().wait()

    def woke(self) -> None:
        self._note("woke")

    def shuts_down(self) -> None:
        self._note("shuts down")

    async def until(self, *did: str) -> None:
        async with asyncio.timeout(BOUND_S):
            while self.did != list(did):
                self.news.clear()
                await self.news.wait()


def test_each_system_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {}
    for platform in ("linux", "win32", "darwin", "freebsd14"):
        monkeypatch.setattr(sys, "platform", platform)
        names[platform] = type(for_this_system(Tasks())).__name__
    assert names == {"linux": "Logind", "win32": "Windows", "darwin": "MacOS", "freebsd14": "NoPower"}


async def test_a_system_that_can_not_be_asked_says_so_and_does_nothing() -> None:
    power = NoPower("this system can't be asked")
    await power.start(Told())
    assert not await power.hold()
    await power.release()
    await power.stop()
    assert power.detail == "this system can't be asked"


async def test_a_thread_of_the_system_waits_for_the_goodbyes() -> None:
    told, tasks = Told(), Tasks()
    await asyncio.to_thread(part, asyncio.get_running_loop(), tasks, told, BOUND_S)
    assert told.did == ["sleeps"]
    assert told.threads == {threading.get_ident()}


async def test_it_does_not_wait_for_ever() -> None:
    told, tasks = Told(), Tasks()
    told.hangs = True
    await asyncio.wait_for(asyncio.to_thread(part, asyncio.get_running_loop(), tasks, told, 0.05), BOUND_S)
    assert told.did == ["sleeps"]
    await tasks.close()


def test_a_loop_that_has_ended_holds_nobody_up() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    part(loop, Tasks(), Told(), BOUND_S)
