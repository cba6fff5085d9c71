"""Fixtures of the desktop tests. Each part starts on free numbers and is ended by its own process id."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest
import pytest_asyncio

from tests.app.rig import Desk, Screen, SessionBus, environment
from tests.app.statusnotifier import FakeTray

RUNNING = "Running · 2 models"
SHOWN = "title token right"
PROGRAMS = ("Xvfb", "openbox", "dbus-daemon", "import", "xdotool")


@pytest.fixture(scope="session")
def desktop_parts() -> None:
    """Skips by name where a desktop test can't run."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    missing += [name for name in ("webview", "PySide6", "dbus_fast") if importlib.util.find_spec(name) is None]
    if sys.platform != "linux" or missing:
        pytest.skip(f"desktop tests need Linux and {', '.join(missing) or 'its desktop'}")


@pytest.fixture(scope="session")
def screen(desktop_parts: None) -> Iterator[Screen]:
    """An X server with a window manager."""
    made = Screen()
    yield made
    made.close()


@pytest.fixture
def bus(desktop_parts: None) -> Iterator[SessionBus]:
    """A session bus without a tray."""
    made = SessionBus()
    yield made
    made.close()


@pytest_asyncio.fixture
async def tray(bus: SessionBus) -> AsyncIterator[FakeTray]:
    """A tray on ``bus``."""
    made = await FakeTray.on(bus.address)
    yield made
    await made.close()


class StartDesk(Protocol):
    """Starts desktops on one data folder and home; all are ended with the test."""

    home: Path
    data_dir: Path

    async def __call__(
        self,
        *,
        screen: Screen | None = None,
        bus: SessionBus | None = None,
        hidden: bool = False,
        fake: dict[str, Any] | None = None,
        real: bool = False,
        **environ: str,
    ) -> Desk: ...


@pytest_asyncio.fixture
async def start_desk(tmp_path: Path) -> AsyncIterator[StartDesk]:
    """``await start_desk(screen=..., bus=...)`` gives a running desktop."""
    async with AsyncExitStack() as stack:

        class Start:
            home = tmp_path / "home"
            data_dir = tmp_path / "data"

            async def __call__(
                self,
                *,
                screen: Screen | None = None,
                bus: SessionBus | None = None,
                hidden: bool = False,
                fake: dict[str, Any] | None = None,
                real: bool = False,
                **environ: str,
            ) -> Desk:
                self.home.mkdir(exist_ok=True)
                env = environment(self.home, screen, bus) | environ
                desk = await Desk.start(env, self.data_dir, hidden=hidden, fake=None if real else fake or {})
                stack.push_async_callback(desk.close)
                return desk

        yield Start()


@pytest_asyncio.fixture
async def desk(start_desk: StartDesk, screen: Screen, bus: SessionBus, tray: FakeTray) -> AsyncIterator[Desk]:
    """A desktop whose window shows its page and whose icon sits in the tray."""
    desk = await start_desk(screen=screen, bus=bus)
    await desk.event(SHOWN)
    await tray.icon()
    yield desk


@pytest.fixture
def out() -> Path:
    """Where pictures of the tests go: ``QUORUM_TEST_OUT``, else ``tests/out``."""
    folder = Path(os.environ.get("QUORUM_TEST_OUT", Path(__file__).resolve().parent.parent / "out"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
