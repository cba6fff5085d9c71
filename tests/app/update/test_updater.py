"""An update from the look at the feed to the hand-over: every step can fail, and then nothing has changed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from app.update import journal, updater
from app.update.installation import describe
from app.update.journal import Step
from app.update.updater import Program, Updater
from router.aio import Tasks
from router.errors import QuorumError
from router.settings import Settings
from router.states import NodeMode
from router.wire_care import UpdateState
from tests.app.update.kit import Feed, Signer, archive, envelope, install, release_archive, told

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the installed programs here are scripts")


class World:
    """One installed program 0.1.0 in ``root`` with its updater, and a node of which it needs little."""

    def __init__(self, folder: Path, feed: Feed, signer: Signer, tasks: Tasks) -> None:
        self.root, self.work, self.log = folder / "quorum", folder / ".quorum.update", folder / "log"
        self.program = install(self.root, "0.1.0")
        self.feed, self.signer, self.tasks = feed, signer, tasks
        self.settings = Settings(folder / "settings.json", environ={})
        self.settings.update({"update_feed": feed.address})
        self.mode, self.running, self.can_quit = NodeMode.RUNNING, 0, True
        self.calls: list[str] = []
        self.seen: list[UpdateState] = []
        self.changed = asyncio.Event()
        self._updater: Updater | None = None

    @property
    def updater(self) -> Updater:
        return self._updater or self.make()

    def make(self, **changes: Any) -> Updater:
        told: dict[str, Any] = {
            "installation": describe(self.program, frozen=True),
            "version": "0.1.0",
            "words": [str(self.log)],
            "keys": lambda: [self.signer.key],
            "service": False,
            "first_look_s": 3600.0,
        }
        self._updater = Updater(Program(**told | changes))
        self._updater.begin(self, self.tasks)  # type: ignore[arg-type] # what it needs of a service is here
        return self._updater

    @property
    def view(self) -> Any:
        return SimpleNamespace(changed=self._changed)

    def _changed(self, part: str) -> None:
        assert part == "node"
        if not self.seen or self.seen[-1] is not self.updater.info.state:
            self.seen.append(self.updater.info.state)
        self.changed.set()

    def info(self) -> Any:
        return SimpleNamespace(mode=self.mode, running=self.running, data_dir=str(self.root.parent))

    def drain(self) -> None:
        self.calls.append("drain")
        self.mode = NodeMode.DRAINING

    def resume(self) -> None:
        self.calls.append("resume")
        self.mode = NodeMode.RUNNING

    def quit(self) -> bool:
        self.calls.append("quit")
        self.changed.set()
        return self.can_quit

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not done():
                self.changed.clear()
                await self.changed.wait()

    async def ends(self, *states: UpdateState) -> None:
        await self.until(lambda: self.updater.info.state in (states or (UpdateState.FAILED,)))

    async def fails(self, match: str) -> None:
        """The install ends with a sentence, the program is as it was, and the node takes work."""
        await self.ends()
        assert match in self.updater.info.message
        await self.nothing_left()
        assert (self.root / "VERSION").read_text() == "0.1.0"
        assert self.mode is NodeMode.RUNNING

    async def nothing_left(self) -> None:
        async with asyncio.timeout(20):
            while await asyncio.to_thread(self.work.exists):
                continue


@pytest_asyncio.fixture
async def world(tmp_path: Path, feed: Feed, signer: Signer) -> AsyncIterator[World]:
    tasks = Tasks()
    yield World(tmp_path, feed, signer, tasks)
    await tasks.close()


async def test_without_a_feed_it_looks_nowhere(world: World) -> None:
    world.settings.update({"update_feed": ""})

    assert world.updater.info.state is UpdateState.OFF
    for act in (world.updater.check, world.updater.install):
        with pytest.raises(QuorumError, match="No address of updates"):
            act()
    assert world.feed.asked == []


async def test_a_newer_version_is_told_and_nothing_is_fetched(world: World) -> None:
    world.feed.release("0.2.0", world.signer, notes="Faster.")
    world.updater.check()
    await world.ends(UpdateState.AVAILABLE)

    assert (world.updater.info.version, world.updater.info.notes) == ("0.2.0", "Faster.")
    assert world.feed.asked == ["manifest.json"]


async def test_a_feed_that_is_set_is_looked_at_at_once(world: World) -> None:
    world.feed.release("0.2.0", world.signer)
    world.settings.update({"update_feed": ""})
    assert world.updater.info.state is UpdateState.OFF
    world.settings.update({"update_feed": world.feed.address})

    await world.ends(UpdateState.AVAILABLE)


@pytest.mark.parametrize("version", ["0.1.0", "0.0.9"])
async def test_an_older_release_is_never_installed(world: World, version: str) -> None:
    world.feed.release(version, world.signer, minimum_version="0.0.1")
    world.updater.install()
    await world.ends(UpdateState.CURRENT)

    assert world.feed.asked == ["manifest.json"]
    assert (world.root / "VERSION").read_text() == "0.1.0"


async def test_everything_is_prepared_and_tried_before_the_helper_takes_over(world: World) -> None:
    world.feed.release("0.2.0", world.signer)
    world.make(service=True)
    world.updater.install()
    await world.until(lambda: "quit" in world.calls)

    assert world.updater.successor == [str(world.work / "staged" / "quorum"), "--finish-update", str(world.work)]
    plan = journal.read(world.work)
    assert plan is not None
    assert (plan.step, plan.pid, plan.version, plan.argv) == (Step.READY, os.getpid(), "0.2.0", [str(world.log)])
    assert [state for state in world.seen if state is not UpdateState.CHECKING] == [
        UpdateState.AVAILABLE,
        UpdateState.DOWNLOADING,
        UpdateState.TESTING,
        UpdateState.INSTALLING,
    ]
    assert world.calls == ["drain", "quit"]
    assert sorted(path.name for path in world.work.iterdir()) == [journal.FILE, "staged"]


async def test_running_jobs_finish_first(world: World) -> None:
    world.feed.release("0.2.0", world.signer)
    world.running = 2
    world.make(service=True)
    world.updater.install()
    await world.ends(UpdateState.WAITING)

    assert (world.mode, "quit" in world.calls) == (NodeMode.DRAINING, False)
    world.running = 0
    await world.until(lambda: "quit" in world.calls)


async def test_resuming_while_it_waits_puts_the_update_off(world: World) -> None:
    world.feed.release("0.2.0", world.signer)
    world.running = 1
    world.updater.install()
    await world.ends(UpdateState.WAITING)
    world.mode = NodeMode.RUNNING
    await world.ends(UpdateState.AVAILABLE)

    assert "the update waits" in world.updater.info.message
    assert "quit" not in world.calls
    await world.nothing_left()


async def test_only_one_thing_is_done_at_a_time(world: World) -> None:
    world.feed.release("0.2.0", world.signer)
    world.updater.check()
    with pytest.raises(QuorumError, match="worked on already"):
        world.updater.install()
    await world.ends(UpdateState.AVAILABLE)


# Every step's failure.


async def test_a_feed_that_is_down(world: World) -> None:
    world.settings.update({"update_feed": "http://127.0.0.1:9/manifest.json"})
    world.updater.install()
    await world.fails("can't be reached")


async def test_a_manifest_of_garbage(world: World) -> None:
    world.feed.files["manifest.json"] = b"<html>"
    world.updater.install()
    await world.fails("not a manifest")


async def test_a_wrong_key(world: World) -> None:
    world.feed.release("0.2.0", Signer())
    world.updater.install()
    await world.fails("not signed by those")
    assert world.feed.asked == ["manifest.json"]


async def test_a_manifest_that_expired(world: World) -> None:
    world.feed.release("0.2.0", world.signer, expires_at=1)
    world.updater.install()
    await world.fails("out of date")


async def test_a_wrong_digest(world: World) -> None:
    world.feed.release("0.2.0", world.signer)
    content = world.feed.files["quorum-0.2.0.tar.gz"]
    assert isinstance(content, bytes)
    world.feed.files["quorum-0.2.0.tar.gz"] = content[:-1] + bytes([content[-1] ^ 1])
    world.updater.install()
    await world.fails("not what those who release Quorum signed")
    assert "drain" not in world.calls


async def test_a_download_that_is_cut(world: World) -> None:
    world.feed.release("0.2.0", world.signer)
    content = world.feed.files["quorum-0.2.0.tar.gz"]
    assert isinstance(content, bytes)
    world.feed.files["quorum-0.2.0.tar.gz"] = content[:-100]
    world.updater.install()
    await world.fails("broke off")


async def test_a_disk_without_room(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.feed.release("0.2.0", world.signer)
    monkeypatch.setattr(updater.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    world.updater.install()
    await world.fails("disk is too full")
    assert world.feed.asked == ["manifest.json"]


async def test_a_disk_that_fills_while_it_is_unpacked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    world.feed.release("0.2.0", world.signer)
    monkeypatch.setattr("app.update.unpack._write", full)
    world.updater.install()
    await world.fails("disk is too full")


async def test_an_archive_that_attacks(world: World) -> None:
    content = archive({"quorum/quorum": b"#!", "quorum/../../evil": b"x"})
    world.feed.files["manifest.json"] = envelope(told("0.2.0", content), world.signer)
    world.feed.files["quorum-0.2.0.tar.gz"] = content
    world.updater.install()
    await world.fails("was refused")


async def test_a_new_program_whose_selftest_fails(world: World) -> None:
    world.feed.release("0.2.0", world.signer, manner="sick")
    world.updater.install()
    await world.fails("failed its own test")
    assert "drain" not in world.calls


async def test_a_new_program_of_another_version(world: World) -> None:
    content = release_archive("0.1.5")
    world.feed.files["manifest.json"] = envelope(told("0.2.0", content), world.signer)
    world.feed.files["quorum-0.2.0.tar.gz"] = content
    world.updater.install()
    await world.fails("not the version it was announced as")


async def test_a_new_program_that_can_not_run_here(world: World) -> None:
    content = archive({"quorum/quorum": b"\x7fELF of another processor"})
    world.feed.files["manifest.json"] = envelope(told("0.2.0", content), world.signer)
    world.feed.files["quorum-0.2.0.tar.gz"] = content
    world.updater.install()
    await world.fails("can't be started on this computer")


async def test_a_host_that_can_not_end(world: World) -> None:
    world.feed.release("0.2.0", world.signer)
    world.can_quit = False
    world.make(service=True)
    world.updater.install()
    await world.fails("can't end itself")
    assert world.updater.successor == []


async def test_after_a_failure_it_can_be_tried_again(world: World) -> None:
    world.feed.release("0.2.0", world.signer)
    good = world.feed.files["quorum-0.2.0.tar.gz"]
    world.feed.files["quorum-0.2.0.tar.gz"] = web.Response(status=503)
    world.make(service=True)
    world.updater.install()
    await world.fails("answers 503")
    world.feed.files["quorum-0.2.0.tar.gz"] = good
    world.updater.install()
    await world.until(lambda: "quit" in world.calls)


# Where it may not, and what the start after an update tells.


async def test_a_clone_and_a_package_are_only_told_of_newer_versions(world: World) -> None:
    world.feed.release("0.2.0", world.signer)
    one = world.make(installation=describe(Path("/opt/quorum/quorum"), frozen=True))
    assert "package manager" in one.info.refusal
    one.check()
    await world.ends(UpdateState.AVAILABLE)
    with pytest.raises(QuorumError, match="installed as a package"):
        one.install()


async def test_the_start_after_a_failed_update_says_why_and_tidies_up(world: World) -> None:
    plan = journal.Journal(
        str(world.root), str(world.program), "0.2.0", "0.1.0", str(world.work / "staged"), old_inode=1
    )
    (world.work / "refused").mkdir(parents=True)
    journal.write(world.work, plan.now(step=Step.FAILED, reason="The new program did not start."))
    world.make()
    await world.ends()

    assert world.updater.info.message == (
        "Updating to version 0.2.0 failed: The new program did not start. Version 0.1.0 runs."
    )
    await world.nothing_left()


async def test_the_first_start_of_a_new_program_confirms_it_and_keeps_the_old_one(world: World) -> None:
    plan = journal.Journal(
        str(world.root), str(world.program), "0.2.0", "0.1.0", str(world.work / "staged"), old_inode=1
    )
    (world.work / "previous").mkdir(parents=True)
    journal.write(world.work, plan.now(step=Step.TRIAL))
    world.make()
    async with asyncio.timeout(20):
        while await asyncio.to_thread(lambda: json.loads((world.work / journal.FILE).read_text())["step"]) != "done":
            continue
    assert (world.work / "previous").is_dir()

    world.make()
    await world.nothing_left()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)], check=False)
    if mounted.returncode != 0:
        pytest.skip("no disk can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


async def test_a_real_disk_that_fills_during_the_update_loses_nothing(
    small_disk: Path, feed: Feed, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(updater, "MARGIN_BYTES", 0)
    tasks = Tasks()
    world = World(small_disk, feed, signer, tasks)
    content = archive({"quorum/quorum": b"#!", "quorum/pad": os.urandom(2_000_000)})
    one = told("0.2.0", content)
    next(iter(one["files"].values()))["unpacked_bytes"] = 3_000_000
    world.feed.files["manifest.json"] = envelope(one, world.signer)

    async def filling(request: web.Request) -> web.Response:
        await asyncio.to_thread(_fill, small_disk / "films")
        return web.Response(body=content)

    world.feed.files["quorum-0.2.0.tar.gz"] = filling
    world.updater.install()
    await world.fails("disk is too full")
    await asyncio.to_thread((small_disk / "films").unlink)
    world.settings.update({"theme": "dark"})  # everything else goes on
    await tasks.close()


def _fill(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(100_000)):
            continue
