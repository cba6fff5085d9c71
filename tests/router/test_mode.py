"""Pause survives a restart and frees memory; drain does not; both end with resume."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from router import mode
from router.aio import Tasks
from router.mode import Mode
from router.states import NodeMode
from tests.fakes import happens
from tests.world import World


class Desk:
    """A mode over a scheduler in memory."""

    def __init__(self, path: Path) -> None:
        self.world = World()
        self.unloaded = asyncio.Event()
        self.changes = 0
        self.resumed = asyncio.Event()
        self.mode = Mode(self.world.scheduler, path, Tasks(), self.world.clock, self.unload, self.changed)

    async def unload(self) -> None:
        self.unloaded.set()

    def changed(self) -> None:
        self.changes += 1
        self.resumed.set()

    @property
    def now(self) -> NodeMode:
        return self.world.scheduler.mode


@pytest.fixture
async def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "mode.json")


async def test_an_idle_node_frees_memory_as_soon_as_it_is_paused(desk: Desk) -> None:
    desk.mode.pause(None)
    await happens(desk.unloaded, 1.0)
    assert desk.now is NodeMode.PAUSED


async def test_what_runs_finishes_before_memory_is_freed(desk: Desk) -> None:
    job = desk.world.submit()
    desk.mode.pause(None)
    assert not desk.unloaded.is_set()
    desk.world.end(job)
    desk.mode.job_ended()
    await happens(desk.unloaded, 1.0)


async def test_a_pause_is_taken_up_again_at_the_next_start(desk: Desk, tmp_path: Path) -> None:
    desk.mode.pause(None)
    again = Desk(tmp_path / "mode.json")
    again.mode.restore()
    assert again.now is NodeMode.PAUSED


async def test_a_pause_that_is_over_is_not(desk: Desk, tmp_path: Path) -> None:
    desk.mode.pause(60)
    again = Desk(tmp_path / "mode.json")
    again.world.clock.advance(61)
    again.mode.restore()
    assert again.now is NodeMode.RUNNING
    desk.mode.resume()


async def test_a_timed_pause_tells_when_it_ends(desk: Desk) -> None:
    desk.mode.pause(3600)
    assert desk.mode.paused_until == desk.world.clock.wall() + 3600
    desk.mode.resume()
    assert desk.mode.paused_until is None
    assert desk.changes == 2


async def test_a_drain_does_not_outlive_the_process_and_frees_no_memory(desk: Desk, tmp_path: Path) -> None:
    desk.mode.drain()
    assert desk.now is NodeMode.DRAINED
    assert not desk.unloaded.is_set()
    again = Desk(tmp_path / "mode.json")
    again.mode.restore()
    assert again.now is NodeMode.RUNNING


async def test_a_broken_file_is_no_pause(desk: Desk, tmp_path: Path) -> None:
    for broken in (b"{", b'{"paused": 7}', b'{"paused": true, "until": "\xff"}', b"[" * 2000):
        (tmp_path / "mode.json").write_bytes(broken)
        desk.mode.restore()
        assert desk.now is NodeMode.RUNNING


async def test_a_disk_that_is_full_keeps_nobody_from_pausing_and_resuming(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(mode, "write_private", full)
    desk.mode.pause(None)
    assert desk.now is NodeMode.PAUSED
    desk.mode.resume()
    assert (desk.now, desk.changes) == (NodeMode.RUNNING, 2)


async def test_a_pause_ends_in_time_though_the_computer_slept(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mode, "LOOK_S", 0.01)
    desk.mode.pause(3600)
    desk.resumed.clear()
    desk.world.clock.advance(3601)
    await happens(desk.resumed, 1.0)
    assert desk.now is NodeMode.RUNNING
