"""The .deb as people meet it: installed, driven by a normal user, upgraded with its data kept, removed, purged."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from router import __version__
from tests.app.rig import Screen
from tests.app.statusnotifier import FakeTray
from tests.packaging.program import Bus, Frozen, User

pytestmark = [pytest.mark.package, pytest.mark.timeout(600)]

INSTALLED = Frozen(Path("/usr/bin/quorum"))
QUESTION = "Say hello in one short sentence."
OURS = ("/opt/quorum", "/usr/bin/quorum", "/etc/xdg/autostart/quorum.desktop", "/usr/share/doc/quorum",
        "/usr/share/applications/quorum.desktop", "/usr/share/metainfo/io.github.quorum.metainfo.xml",
        "/usr/share/icons/hicolor/256x256/apps/quorum.png", "/etc/apparmor.d/quorum")  # fmt: skip


def command(*words: str | Path) -> str:
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def field(package: Path, name: str) -> str:
    return command("dpkg-deb", "--field", package, name).strip()


def status() -> str:
    done = subprocess.run(
        ["dpkg-query", "-W", "-f", "${db:Status-Abbrev}${Version}", "quorum"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.strip()


def left() -> list[str]:
    """What of the package is still on this machine."""
    return [place for place in OURS if Path(place).exists()]


def answered(chat: Any) -> bool:
    """Whether the last message of a conversation is an answer that has ended."""
    last = chat["messages"][-1] if chat["messages"] else {}
    return bool(last.get("role") == "assistant" and last["state"] == "ended" and last["receipt"])


@pytest.fixture(scope="module")
def unpacked(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's files and its control folder, without the frozen program's own."""
    folder = tmp_path_factory.mktemp("deb")
    command("dpkg-deb", "--control", package, folder / "DEBIAN")
    tar = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], capture_output=True, check=True)
    subprocess.run(["tar", "-x", "-C", folder, "--exclude=./opt/quorum/_internal"], input=tar.stdout, check=True)
    return folder


@pytest.fixture(scope="module")
def older(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same package with an older number."""
    folder = tmp_path_factory.mktemp("older")
    command("dpkg-deb", "--raw-extract", package, folder / "root")
    control = folder / "root" / "DEBIAN" / "control"
    control.write_text(re.sub(r"(?m)^Version: .*$", "Version: 0.0.9", control.read_text()))
    command("dpkg-deb", "--root-owner-group", "-Znone", "--build", folder / "root", folder / "older.deb")
    shutil.rmtree(folder / "root")
    return folder / "older.deb"


@pytest.fixture
def clean_machine(root_only: None) -> Iterator[None]:
    """A machine without Quorum, and one again after the test."""
    if status().startswith("ii"):
        pytest.skip("Quorum is installed here; the test would remove it")
    yield
    subprocess.run(["dpkg", "--purge", "quorum"], capture_output=True, check=False)


def test_its_size_is_bounded(package: Path) -> None:
    assert package.stat().st_size <= 330e6
    assert int(field(package, "Installed-Size")) * 1024 <= 700e6
    assert field(package, "Version") == __version__


def test_the_desktop_finds_it(unpacked: Path) -> None:
    share = unpacked / "usr/share"
    entries = [share / "applications/quorum.desktop", unpacked / "etc/xdg/autostart/quorum.desktop"]
    assert command("desktop-file-validate", *entries) == ""
    assert "Exec=quorum --at-login" in entries[1].read_text()
    for pixels in (16, 24, 32, 48, 64, 128, 256, 512):
        picture = (share / f"icons/hicolor/{pixels}x{pixels}/apps/quorum.png").read_bytes()
        assert picture[:8] == b"\x89PNG\r\n\x1a\n"
        assert int.from_bytes(picture[16:20]) == pixels
    assert (share / "icons/hicolor/scalable/apps/quorum.svg").is_file()
    if not shutil.which("appstreamcli"):
        pytest.skip("the metadata can't be checked without appstreamcli")
    command("appstreamcli", "validate", "--no-net", share / "metainfo/io.github.quorum.metainfo.xml")


def test_its_scripts_are_shell_and_touch_no_data(unpacked: Path) -> None:
    scripts = [
        path for path in (unpacked / "DEBIAN").iterdir() if path.name in ("preinst", "postinst", "prerm", "postrm")
    ]
    assert {path.name for path in scripts} == {"postinst", "prerm"}
    for script in scripts:
        command("sh", "-n", script)
        assert not re.search(r"/home|\.local|rm -r", script.read_text())


def test_every_library_it_links_is_in_it_or_in_what_it_depends_on(frozen: Frozen, package: Path) -> None:
    folder = frozen.program.parent
    inside = {path.name for path in folder.rglob("*")}
    wanted: set[str] = set()
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and (path.suffix == ".so" or ".so." in path.name):
            wanted |= set(re.findall(r"NEEDED.*\[(.*)\]", command("readelf", "-d", path)))
    known = dict(re.findall(r"^\s+(\S+) \(libc6,x86-64.*\) => (\S+)$", command("ldconfig", "-p"), re.MULTILINE))
    depends = {re.split(r"[ :]", name.strip())[0] for name in re.split(r"[,|]", field(package, "Depends"))}

    for library in sorted(wanted - inside):
        place = Path(known[library])
        names = [str(p) for p in {place, place.resolve(), Path("/usr") / place.relative_to("/")}]
        done = subprocess.run(["dpkg", "-S", *names], capture_output=True, text=True, check=False)
        owners = {line.partition(":")[0] for line in done.stdout.splitlines()}
        assert owners & depends, f"{library} of {owners}"


async def test_a_person_installs_uses_upgrades_and_removes_it(
    clean_machine: None, package: Path, older: Path, user: User, bus: Bus, tray: FakeTray, screen: Screen, out: Path
) -> None:
    await asyncio.to_thread(command, "apt-get", "install", "-y", "--no-install-recommends", older)
    assert status() == "ii 0.0.9"
    environ = {"DISPLAY": screen.display, "DBUS_SESSION_BUS_ADDRESS": bus.address, "PATH": "/usr/bin:/bin"}

    async with INSTALLED.started(home=user.home, user=user, **environ) as run:
        await run.window_is_usable()
        await tray.icon()
        await tray.entry("Running · 1 model")
        await asyncio.to_thread(
            screen.click, 640, 700
        )  # the box at the lower edge, which has the cursor by itself soon
        await asyncio.to_thread(screen.type, QUESTION)
        chats = await run.until("/local/v1/chats", lambda chats: len(chats) == 1)
        path = f"/local/v1/chats/{chats[0]['id']}"
        chat = await run.until(path, answered)
        assert chat["messages"][-1]["content"]
        assert chat["messages"][0]["content"] == QUESTION
        await asyncio.to_thread(screen.picture, out / "installed-window.png")

        await tray.click("Pause")
        await tray.entry("Paused · 1 model")
        assert (await asyncio.to_thread(run.call, "GET", "/local/v1/status"))["node"]["mode"] == "paused"
        await asyncio.to_thread(screen.picture, out / "installed-paused.png")

        # It runs while it is upgraded: it is ended in order first, and nothing of it is lost.
        await asyncio.to_thread(command, "apt-get", "install", "-y", "--no-install-recommends", package)
        assert await asyncio.wait_for(run.process.wait(), 30) == 0
    assert status() == f"ii {__version__}"

    async with INSTALLED.started(home=user.home, user=user, **environ) as run:
        await run.window_is_usable()
        assert (await asyncio.to_thread(run.call, "GET", path))["messages"] == chat["messages"]
        assert (await asyncio.to_thread(run.call, "GET", "/local/v1/status"))["node"]["mode"] == "paused"

    await asyncio.to_thread(command, "apt-get", "remove", "-y", "quorum")
    assert "/opt/quorum" not in left()
    await asyncio.to_thread(command, "apt-get", "purge", "-y", "quorum")
    assert left() == []
    assert "quorum.db" in command("ls", run.data_dir)
