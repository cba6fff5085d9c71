"""Start at login on three systems, and who wins when the user has said something else elsewhere."""

from __future__ import annotations

import plistlib
from pathlib import Path

import pytest

from app.autostart import (
    APPROVED_KEY,
    RUN_KEY,
    Autostart,
    DesktopEntry,
    LaunchAgent,
    RunKey,
    Status,
    command,
    reconcile,
    usual_data_dir,
)

ARGV = ["/opt/quorum/quorum", "--hidden", "--data-dir", "/home/ann/My data"]


class FakeRegistry:
    def __init__(self) -> None:
        self.values: dict[tuple[str, str], object] = {}

    def read(self, key: str, name: str) -> object:
        return self.values.get((key, name))

    def write(self, key: str, name: str, text: str) -> None:
        self.values[key, name] = text

    def delete(self, key: str, name: str) -> None:
        self.values.pop((key, name), None)


@pytest.fixture
def registry() -> FakeRegistry:
    return FakeRegistry()


def on_linux(tmp_path: Path, argv: list[str] = ARGV) -> DesktopEntry:
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_CONFIG_DIRS": str(tmp_path / "xdg")}
    return DesktopEntry(argv, environ)


def on_system(name: str, tmp_path: Path, registry: FakeRegistry, argv: list[str] = ARGV) -> Autostart:
    match name:
        case "linux":
            return on_linux(tmp_path, argv)
        case "mac":
            return LaunchAgent(argv, tmp_path / "LaunchAgents")
        case _:
            return RunKey(argv, registry)


@pytest.mark.parametrize("name", ["linux", "mac", "windows"])
def test_on_and_off_and_on_again(name: str, tmp_path: Path, registry: FakeRegistry) -> None:
    autostart = on_system(name, tmp_path, registry)
    assert autostart.status() is Status.ABSENT

    for _ in range(2):
        autostart.on()
        assert autostart.status() is Status.ON
        autostart.off()
        assert autostart.status() is Status.ABSENT
        autostart.off()


@pytest.mark.parametrize("name", ["linux", "mac", "windows"])
def test_a_program_that_moved_is_entered_anew(name: str, tmp_path: Path, registry: FakeRegistry) -> None:
    on_system(name, tmp_path, registry, ["/old/quorum"]).on()
    autostart = on_system(name, tmp_path, registry)
    assert autostart.status() is Status.ELSE

    assert reconcile(autostart, wanted=True)

    assert autostart.status() is Status.ON


@pytest.mark.parametrize("name", ["linux", "mac", "windows"])
def test_the_entry_of_another_data_folder_is_left_alone(name: str, tmp_path: Path, registry: FakeRegistry) -> None:
    other = on_system(name, tmp_path, registry, [*ARGV[:-1], "/elsewhere"])
    other.on()

    assert not reconcile(on_system(name, tmp_path, registry), wanted=False)

    assert other.status() is Status.ON


def test_the_desktop_entry_is_one_that_desktops_read(tmp_path: Path) -> None:
    autostart = on_linux(tmp_path)
    autostart.on()

    lines = autostart.path.read_text().splitlines()

    assert autostart.path == tmp_path / "config" / "autostart" / "quorum.desktop"
    assert lines[0] == "[Desktop Entry]"
    assert 'Exec=/opt/quorum/quorum --hidden --data-dir "/home/ann/My data"' in lines
    assert "Terminal=false" in lines


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("/a b", '"/a b"'),
        ("/100%", "/100%%"),
        ('/a"b c', '"/a\\\\"b c"'),
        ("/a\\b", '"/a\\\\\\\\b"'),
        ("/$x", '"/\\\\$x"'),
    ],
)
def test_words_of_the_exec_line_are_quoted_as_its_rules_say(tmp_path: Path, word: str, written: str) -> None:
    autostart = on_linux(tmp_path, ["quorum", word])
    autostart.on()

    assert f"Exec=quorum {written}\n" in autostart.path.read_text()
    assert autostart.status() is Status.ON


@pytest.mark.parametrize("line", ["Hidden=true", "X-GNOME-Autostart-enabled=false"])
def test_a_refusal_in_the_desktops_own_settings_wins(tmp_path: Path, line: str) -> None:
    autostart = on_linux(tmp_path)
    autostart.on()
    text = autostart.path.read_text().replace("X-GNOME-Autostart-enabled=true\n", "")
    autostart.path.write_text(f"{text}{line}\n")

    assert autostart.status() is Status.REFUSED
    assert reconcile(autostart, wanted=True) is False


def test_off_only_removes_the_users_entry_where_the_systems_asks_the_setting(tmp_path: Path) -> None:
    system = tmp_path / "xdg" / "autostart" / "quorum.desktop"
    system.parent.mkdir(parents=True)
    system.write_text("[Desktop Entry]\nExec=quorum --at-login\n")
    environ = {"HOME": str(tmp_path), "XDG_CONFIG_DIRS": str(tmp_path / "xdg")}
    entry = DesktopEntry(ARGV, environ)

    assert reconcile(entry, wanted=True)
    assert not reconcile(entry, wanted=False)

    assert not entry.path.exists()
    assert reconcile(entry, wanted=True)
    assert entry.path.is_file()


def test_off_overrules_an_entry_of_the_whole_system(tmp_path: Path) -> None:
    system = tmp_path / "xdg" / "autostart" / "quorum.desktop"
    system.parent.mkdir(parents=True)
    system.write_text("[Desktop Entry]\nType=Application\nName=Quorum\nExec=quorum --hidden\n")
    autostart = on_linux(tmp_path)
    assert autostart.status() is Status.ELSE

    autostart.off()

    assert "Hidden=true" in autostart.path.read_text()
    assert system.exists()


def test_task_managers_refusal_wins_and_switching_on_takes_it_back(registry: FakeRegistry) -> None:
    autostart = RunKey(ARGV, registry)
    autostart.on()
    assert registry.read(RUN_KEY, "Quorum") == '"/opt/quorum/quorum" --hidden --data-dir "/home/ann/My data"'
    registry.values[APPROVED_KEY, "Quorum"] = b"\x03\x00\x00\x00"

    assert reconcile(autostart, wanted=True) is False
    autostart.on()
    assert autostart.status() is Status.ON


def test_the_launch_agent_is_what_launchd_reads(tmp_path: Path) -> None:
    agent = LaunchAgent(ARGV, tmp_path)
    agent.on()

    told = plistlib.loads((tmp_path / "io.github.quorum.plist").read_bytes())

    assert told["ProgramArguments"] == ARGV
    assert told["RunAtLoad"] is True
    agent.path.write_bytes(plistlib.dumps(told | {"Disabled": True}))
    assert agent.status() is Status.REFUSED


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[Desktop Entry", b"nothing"])
def test_a_broken_entry_is_replaced(tmp_path: Path, content: bytes) -> None:
    linux, mac = on_linux(tmp_path), LaunchAgent(ARGV, tmp_path)
    for autostart in (linux, mac):
        autostart.path.parent.mkdir(parents=True, exist_ok=True)
        autostart.path.write_bytes(content)

        assert reconcile(autostart, wanted=True)
        assert autostart.status() is Status.ON


def test_the_command_starts_this_program_hidden_on_its_folder(tmp_path: Path) -> None:
    words = command(tmp_path)

    assert words[-3:] == ["--hidden", "--data-dir", str(tmp_path)]
    assert Path(words[0]).is_file()


def test_the_usual_data_folder_is_not_named_so_that_the_installers_entry_is_ours(
    monkeypatch: pytest.MonkeyPatch, registry: FakeRegistry
) -> None:
    monkeypatch.setattr("sys.frozen", True, raising=False)
    monkeypatch.setattr("sys.executable", "C:\\Programs\\Quorum\\app\\quorum.exe")
    registry.write(RUN_KEY, "Quorum", '"C:\\Programs\\Quorum\\app\\quorum.exe" --hidden')  # as quorum.nsi does
    autostart = RunKey(command(usual_data_dir()), registry)

    assert autostart.status() is Status.ON
    assert reconcile(autostart, wanted=None) is True  # nobody has made the setting: the installer's word counts
    assert reconcile(autostart, wanted=False) is False
    assert autostart.status() is Status.ABSENT
    assert reconcile(autostart, wanted=None) is False


def test_the_command_of_a_frozen_program_is_the_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.frozen", True, raising=False)
    monkeypatch.setattr("sys.executable", "/opt/quorum/quorum")

    assert command(tmp_path)[:2] == ["/opt/quorum/quorum", "--hidden"]
    monkeypatch.setenv("APPIMAGE", "/home/ann/Quorum.AppImage")
    assert command(tmp_path)[:2] == ["/home/ann/Quorum.AppImage", "--hidden"]
