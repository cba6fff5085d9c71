"""The frozen program proves itself, and meets bad surroundings with a clear message and nothing lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from router import __version__
from tests.app.rig import Screen
from tests.packaging.program import Frozen, User

pytestmark = [pytest.mark.package, pytest.mark.timeout(600)]


def test_selftest_passes_in_an_empty_environment(frozen: Frozen, user: User) -> None:
    done = frozen.run("selftest", "--json", user=user, timeout_s=120)

    told = json.loads(done.stdout)
    assert {part["name"]: part["state"] for part in told["parts"]} == {
        "node": "ok", "page": "ok", "store": "ok", "mdns": "ok", "model": "ok", "window": "ok", "tray": "absent",
        "stop": "ok",
    }, done.stdout + done.stderr  # fmt: skip
    assert (done.returncode, told["ok"], told["version"]) == (0, True, __version__)


def test_selftest_passes_for_root_and_leaves_nothing_behind(frozen: Frozen, tmp_path: Path) -> None:
    done = frozen.run("selftest", timeout_s=120, HOME=str(tmp_path / "home"), TMPDIR=str(tmp_path))

    assert done.returncode == 0, done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


def test_it_lists_the_licences_of_what_it_brings(frozen: Frozen) -> None:
    done = frozen.run("--licences")

    assert done.returncode == 0
    assert "| PySide6_WebEngine |" in done.stdout


def test_at_login_it_starts_only_for_who_asked(frozen: Frozen, tmp_path: Path) -> None:
    done = frozen.run("--at-login", HOME=str(tmp_path))

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


async def test_without_a_display_it_serves_and_says_so(frozen: Frozen, user: User) -> None:
    async with frozen.started(home=user.home, user=user) as run:
        await run.says("There is no display here. Quorum serves without its window.")
        await run.says("http://127.0.0.1:")


@pytest.mark.parametrize("glx", [True, False], ids=["no bus", "no bus and broken OpenGL"])
async def test_the_window_opens_without_a_bus_and_with_broken_graphics(
    frozen: Frozen, user: User, desktop_parts: None, glx: bool
) -> None:
    made = Screen(glx=glx)
    try:
        environ = {"DISPLAY": made.display, "DBUS_SESSION_BUS_ADDRESS": "disabled:"}
        async with frozen.started(home=user.empty_home(), user=user, **environ) as run:
            await run.node()
            await run.window_is_usable()
            run.process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(run.process.wait(), 30) == 0
    finally:
        made.close()


def newer(data_dir: Path) -> None:
    data_dir.mkdir(parents=True)
    with sqlite3.connect(data_dir / "quorum.db") as database:
        database.execute("PRAGMA user_version = 9999")
    database.close()


def test_a_data_folder_of_a_newer_version_is_left_alone(frozen: Frozen, tmp_path: Path) -> None:
    newer(tmp_path / "data")
    before = (tmp_path / "data" / "quorum.db").read_bytes()

    done = frozen.run("serve", "--port", "0", "--data-dir", str(tmp_path / "data"), HOME=str(tmp_path))

    assert done.returncode == 1
    assert "newer" in done.stderr
    assert (tmp_path / "data" / "quorum.db").read_bytes() == before


def test_a_home_that_cannot_be_written_is_named(frozen: Frozen, user: User, tmp_path: Path) -> None:
    home = Path("/home") / "quorum-read-only"
    home.mkdir()  # root's, and the user may only look
    try:
        done = frozen.run("serve", "--port", "0", user=user, HOME=str(home))
    finally:
        shutil.rmtree(home)

    assert done.returncode == 1
    assert str(home) in done.stderr
    assert "--data-dir" in done.stderr


def test_a_second_user_hears_that_the_port_is_taken_and_what_to_do(frozen: Frozen, user: User) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = frozen.run("serve", "--port", port, user=user, HOME=str(user.home))

    assert done.returncode == 1
    assert port in done.stderr
    assert "Traceback" not in done.stderr
    assert "--port" in done.stderr


def test_a_full_disk_is_named_and_nothing_that_was_there_is_lost(
    frozen: Frozen, root_only: None, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], check=True)
    try:
        (disk / "kept.txt").write_text("mine")
        with contextlib.suppress(OSError):
            (disk / "filler").write_bytes(bytes(4 << 20))
        done = frozen.run("serve", "--port", "0", "--data-dir", str(disk / "data"), HOME=str(tmp_path))
        assert done.returncode == 1
        assert "space" in done.stderr.lower() or "full" in done.stderr.lower()
        assert "Traceback" not in done.stderr
        assert (disk / "kept.txt").read_text() == "mine"
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_no_part_of_qt_that_is_under_the_gpl_is_in_it(frozen: Frozen) -> None:
    gpl = ("DataVisualization", "Charts", "VirtualKeyboard", "Graphs", "Lottie", "Quick3D", "NetworkAuth", "readline")
    found = [p.name for p in frozen.program.parent.rglob("*") if any(name in p.name for name in gpl)]
    assert not found


def test_every_link_in_it_leads_somewhere(frozen: Frozen) -> None:
    assert [path for path in frozen.program.parent.rglob("*") if path.is_symlink() and not path.exists()] == []


@pytest.mark.skipif(sys.platform != "linux", reason="libraries are told apart by readelf here")
def test_no_library_in_it_looks_elsewhere_for_others(frozen: Frozen) -> None:
    files = [path for path in frozen.program.parent.rglob("*") if path.is_file() and not path.is_symlink()]
    done = subprocess.run(["readelf", "-d", *files], capture_output=True, text=True, check=False)
    paths = set(re.findall(r"\((?:RPATH|RUNPATH)\).*\[(.*)\]", done.stdout))

    assert paths
    assert not [path for path in paths if not all(part.startswith("$ORIGIN") for part in path.split(":"))]


@pytest.mark.skipif(sys.platform != "linux", reason="libraries are told apart by readelf here")
def test_the_hosts_c_runtime_is_not_in_it(frozen: Frozen) -> None:
    names = {path.name for path in frozen.program.parent.rglob("lib*")}
    assert not names & {"libstdc++.so.6", "libgcc_s.so.1", "libgbm.so.1", "libX11.so.6", "libGL.so.1"}
