"""The frozen program and its package, built once a session; what was built from the same files is taken again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.app.conftest import desktop_parts, out, screen
from tests.app.rig import ROOT
from tests.app.statusnotifier import FakeTray
from tests.packaging.program import Bus, Frozen, User

__all__ = ["desktop_parts", "out", "screen"]

BUILD_S = 900


@pytest.fixture(scope="session")
def dist() -> Path:
    """``dist`` with what ``dev.py build`` makes on this system; ``QUORUM_TEST_DIST`` names one made elsewhere."""
    if told := os.environ.get("QUORUM_TEST_DIST"):
        return Path(told).resolve()  # the program is started from elsewhere
    if sys.platform != "linux" or not shutil.which("dpkg-deb"):
        pytest.skip("the package is built on Debian and Ubuntu")
    command = [sys.executable, "dev.py", "build"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=BUILD_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return ROOT / "dist"


@pytest.fixture(scope="session")
def frozen(dist: Path) -> Frozen:
    """The frozen program as it was built."""
    return Frozen(dist / "quorum" / "quorum")


@pytest.fixture(scope="session")
def package(dist: Path) -> Path:
    """The .deb."""
    (package,) = dist.glob("quorum_*.deb")
    return package


@pytest.fixture(scope="session")
def root_only() -> None:
    """Skips by name without the rights of root."""
    if os.geteuid() != 0:
        pytest.skip("installing a package and becoming another user needs root")


@pytest.fixture(scope="session")
def user(root_only: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    """A normal user whose name and home are not ASCII, gone after the session."""
    made = User.make(f"quorum-zoë-{os.getpid()}")  # so that two runs on one machine do not meet
    yield made
    made.remove()


@pytest.fixture
def bus(desktop_parts: None, tmp_path: Path) -> Iterator[Bus]:
    """A session bus that every user may use."""
    made = Bus(tmp_path)
    yield made
    made.close()


@pytest_asyncio.fixture
async def tray(bus: Bus) -> AsyncIterator[FakeTray]:
    """A tray on ``bus``."""
    made = await FakeTray.on(bus.address)
    yield made
    await made.close()
