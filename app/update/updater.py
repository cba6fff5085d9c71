"""Updates of the running node: looks at the feed, and installs when it is told to. Lives on the node's loop."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from app.others import environment
from app.update import feed, finish, journal, manifest, swap
from app.update.errors import UpdateError
from app.update.installation import Installation, platform_name, this_installation
from app.update.journal import Journal
from app.update.manifest import File, Key, Manifest
from app.update.start import work_of
from app.update.unpack import unpack
from router import __version__
from router.aio import Clock, SystemClock, Tasks
from router.errors import QuorumError
from router.states import NodeMode
from router.wire_care import UpdateInfo, UpdateState

if TYPE_CHECKING:
    from router.web.service import Service

log = logging.getLogger(__name__)

FIRST_LOOK_S: Final = 30.0
LOOK_S: Final = 24 * 3600.0
DRAIN_S: Final = 600.0
DRAIN_LOOK_S: Final = 0.5
SELFTEST_S: Final = 300.0
VERSION_S: Final = 60.0
MARGIN_BYTES: Final = 256 * 2**20
ASSETS: Final = Path(getattr(sys, "_MEIPASS", Path(__file__).resolve().parent.parent.parent)) / "assets"


@dataclass(frozen=True)
class Program:
    """What is updated: the installation, its version, the words it was started with, and whom it trusts.

    ``service``: a service manager runs it, so the same process must go on as the new program.
    """

    installation: Installation = field(default_factory=this_installation)
    version: str = __version__
    words: Sequence[str] = field(default_factory=lambda: [word for word in sys.argv[1:] if word != "--hidden"])
    keys: Callable[[], list[Key]] = lambda: manifest.known_keys(ASSETS)
    service: bool = field(default_factory=lambda: os.environ.get("QUORUM_SERVICE") == "1")
    first_look_s: float = FIRST_LOOK_S


class Updater:
    """Checks and installs, one at a time; ``info`` is what is told. Nothing is installed without ``install``.

    ``successor`` is set once this process is to become the new program after the node has ended.
    """

    def __init__(self, program: Program | None = None, clock: Clock | None = None) -> None:
        self.program = program or Program()
        self.successor: list[str] = []
        place = self.program.installation
        self.info = UpdateInfo(refusal=f"{place.refusal} {place.advice}".strip())
        self._clock = clock or SystemClock()
        self._found: tuple[Manifest, File] | None = None
        self._wake = asyncio.Event()

    def begin(self, service: Service, tasks: Tasks) -> None:
        """The node answers: a program on trial has succeeded, and the feed is looked at from now on."""
        self._service = service
        self._tasks = tasks
        service.settings.listen(self._settings_changed)
        tasks.spawn("updates", self._watch())

    def check(self) -> None:
        """Look at the feed now. Raises QuorumError while something is being done, or without a feed."""
        self._start("update check", self._check)

    def install(self) -> None:
        """Install what the feed offers. Raises QuorumError when that can't be."""
        if self.info.refusal:
            raise QuorumError("conflict", self.program.installation.refusal, self.program.installation.advice)
        self._start("update", self._install)

    def _start(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if not self._address:
            raise QuorumError("conflict", "No address of updates is set.", "Set 'Address of updates' in the settings.")
        if self.info.state.busy:
            raise QuorumError("conflict", "An update is being worked on already.", "Wait until it is done.")
        self._tell(UpdateState.CHECKING)
        self._tasks.spawn(name, work())

    @property
    def _address(self) -> str:
        return str(self._service.settings["update_feed"])

    def _settings_changed(self, names: frozenset[str]) -> None:
        if "update_feed" in names and not self.info.state.busy:
            self._found = None
            self._tell(UpdateState.OFF, version="", notes="")
            self._wake.set()

    async def _watch(self) -> None:
        """Once a day; sooner when the address changes."""
        await self._settle()
        wait_s = self.program.first_look_s
        while True:
            try:
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            except TimeoutError:
                log.debug("looking for an update")
            self._wake.clear()
            if self._address and not self.info.state.busy:
                self._tell(UpdateState.CHECKING)
                await self._check()
            wait_s = LOOK_S

    async def _settle(self) -> None:
        """What the update before this start came to; what it left is removed, but never what runs now."""
        place = self.program.installation
        work = work_of(place.program)
        if place.refusal or not await asyncio.to_thread(work.is_dir):
            return
        plan = await asyncio.to_thread(journal.read, work)
        if problem := await asyncio.to_thread(finish.confirm, work):
            log.warning("%s", problem)
            self._tell(UpdateState.FAILED, message=problem)
        if (plan is None or plan.step is not journal.Step.TRIAL) and not place.root.is_relative_to(work):
            await asyncio.to_thread(swap.tidy, work)

    async def _check(self) -> None:
        """Ends in ``current``, ``available`` or ``failed``."""
        try:
            await self._look()
        except UpdateError as error:
            self._fail(error)

    async def _look(self) -> tuple[Manifest, File] | None:
        """What the feed offers, verified. Raises UpdateError."""
        self._found = None
        content = await feed.manifest(self._address)
        found = manifest.read(content, self.program.keys(), self._clock.wall())
        file = manifest.offered(found, self.program.version, platform_name())
        if file is None:
            self._tell(UpdateState.CURRENT, version="", notes="", checked_at=self._clock.wall())
            return None
        self._found = found, file
        self._tell(
            UpdateState.AVAILABLE, version=found.version, notes=found.notes[:1000], checked_at=self._clock.wall()
        )
        return self._found

    async def _install(self) -> None:
        place = self.program.installation
        try:
            found = await self._look()
            if found is None:
                return
            release, file = found
            plan = await self._prepare(place, release, file)
            if not await self._empty():
                self._tell(UpdateState.AVAILABLE, message="Quorum was resumed: the update waits.")
                await asyncio.to_thread(swap.tidy, place.work)
                return
            self._tell(UpdateState.INSTALLING)
            await self._hand_over(place.work, plan)
        except (UpdateError, OSError) as error:
            self._fail(error if isinstance(error, UpdateError) else feed.disk_error(error))
            await asyncio.to_thread(swap.tidy, place.work)

    async def _prepare(self, place: Installation, release: Manifest, file: File) -> Journal:
        """Download, verify, unpack, try. Raises UpdateError, OSError; nothing of the program in place has changed."""
        self._tell(UpdateState.DOWNLOADING, download_pct=0)
        work = place.work
        await asyncio.to_thread(_make_room, work, file)
        archive = work / "download.tar.gz"
        await feed.download(
            self._address, file, archive, lambda percent: self._tell(UpdateState.DOWNLOADING, download_pct=percent)
        )
        self._tell(UpdateState.TESTING)
        top = await asyncio.to_thread(unpack, archive, work / "unpacked", file.unpacked_bytes)
        staged = work / "staged"
        await asyncio.to_thread(_stage, top, staged, archive)
        await asyncio.to_thread(_try, staged / place.program.relative_to(place.root), release.version)
        return Journal(
            root=str(place.root),
            program=str(place.program),
            version=release.version,
            old_version=self.program.version,
            staged=str(staged),
            old_inode=(await asyncio.to_thread(place.root.stat)).st_ino,
            argv=list(self.program.words),
            service=self.program.service,
            pid=os.getpid(),
            data_dir=self._service.info().data_dir,
            prepared_at=self._clock.wall(),
        )

    async def _empty(self) -> bool:
        """Take nothing new and wait for what runs, at most ten minutes; False when somebody resumes meanwhile.

        What still runs then gets the ten seconds of every end, and goes on after the restart.
        """
        service = self._service
        if service.info().mode is NodeMode.RUNNING:
            service.drain()
        deadline = self._clock.mono() + DRAIN_S
        while service.info().running and self._clock.mono() < deadline:
            self._tell(UpdateState.WAITING)
            await asyncio.sleep(DRAIN_LOOK_S)
            if service.info().mode is NodeMode.RUNNING:
                return False
        return True

    async def _hand_over(self, work: Path, plan: Journal) -> None:
        """Leave the rest to the helper, and end. Raises UpdateError, OSError."""
        await asyncio.to_thread(journal.write, work, plan)
        helper = [str(Path(plan.staged) / Path(plan.program).relative_to(plan.root)), finish.WORD, str(work)]
        if plan.service:
            self.successor = helper
        else:
            await asyncio.to_thread(finish.apart, helper, Path(plan.root))
        if not self._service.quit():
            self.successor = []
            raise UpdateError("Quorum can't end itself here.", "Install the update by hand.")

    def _fail(self, error: UpdateError) -> None:
        log.warning("update: %s", error.message)
        if self._service.info().mode in (NodeMode.DRAINING, NodeMode.DRAINED):
            self._service.resume()
        self._tell(UpdateState.FAILED, message=error.message, hint=error.hint, checked_at=self._clock.wall())

    def _tell(self, state: UpdateState, **changes: Any) -> None:
        changes = {"download_pct": None, "message": "", "hint": ""} | changes
        info = msgspec.structs.replace(self.info, state=state, **changes)
        if info != self.info:
            self.info = info
            self._service.view.changed("node")


def _make_room(work: Path, file: File) -> None:
    """An empty place beside the program, on a disk that holds archive and program. Raises UpdateError, OSError."""
    swap.tidy(work)
    work.mkdir(mode=0o700)
    if shutil.disk_usage(work).free < file.bytes + file.unpacked_bytes + MARGIN_BYTES:
        raise UpdateError("The disk is too full for the update.", "Free some space, then try again.")


def _stage(top: Path, staged: Path, archive: Path) -> None:
    top.rename(staged)
    top.parent.rmdir()
    archive.unlink()


def _try(program: Path, version: str) -> None:
    """The new program must say its version and pass its own test before it replaces anything. Raises UpdateError."""
    said = _run([str(program), "--version"], VERSION_S)
    if said.returncode != 0 or said.stdout.split() != [b"quorum", version.encode()]:
        raise UpdateError("The new program is not the version it was announced as; nothing was changed.")
    if _run([str(program), "selftest", "--json"], SELFTEST_S).returncode != 0:
        raise UpdateError("The new program failed its own test on this computer; nothing was changed.")


def _run(words: list[str], limit_s: float) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(  # noqa: S603 # the program that was just verified
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=limit_s,
            check=False,
            env=environment(),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UpdateError("The new program can't be started on this computer; nothing was changed.") from error
