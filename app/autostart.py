"""Start at login: an XDG autostart entry, a Run key on Windows, a LaunchAgent on macOS.

What the user switched off in the system's own tools is respected: ``status`` then says so and the setting follows.
"""

from __future__ import annotations

import configparser
import os
import plistlib
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from enum import Enum, auto
from pathlib import Path
from typing import Any, Final, Protocol

NAME: Final = "Quorum"
ENTRY: Final = "quorum.desktop"
ASKS: Final = "--at-login"
"""In the entry that the .deb brings: it starts nothing for those whose setting is off."""
LABEL: Final = "io.github.quorum"
RUN_KEY: Final = r"Software\Microsoft\Windows\CurrentVersion\Run"
APPROVED_KEY: Final = r"Software\Microsoft\Windows\CurrentVersion\Explorer\StartupApproved\Run"


class Status(Enum):
    """Whether the system starts us: ``ELSE`` starts another command, ``REFUSED`` was switched off by the user."""

    ABSENT = auto()
    ON = auto()
    ELSE = auto()
    REFUSED = auto()


class Autostart(Protocol):
    """One system's way to start a program at login. All methods may raise OSError."""

    def status(self) -> Status: ...
    def on(self) -> None: ...
    def off(self) -> None: ...


def command(data_dir: Path) -> list[str]:
    """The command that starts this very program, hidden, on ``data_dir``; the usual folder is not named, as installers
    don't know it."""
    where = [] if data_dir == usual_data_dir() else ["--data-dir", str(data_dir)]
    return [*program(), "--hidden", *where]


def program() -> list[str]:
    """What starts this very program again, without any arguments of its own."""
    if getattr(sys, "frozen", False):
        return [os.environ.get("APPIMAGE") or sys.executable]
    script = Path(sys.executable).with_name("quorum.exe" if sys.platform == "win32" else "quorum")
    return [str(script)] if script.is_file() else [sys.executable, "-m", "app"]


def usual_data_dir() -> Path:
    """Where a start without ``--data-dir`` and ``QUORUM_DATA_DIR`` keeps its data."""
    import platformdirs

    return Path(platformdirs.user_data_dir("quorum", appauthor=False))


def for_this_system(argv: Sequence[str]) -> Autostart:
    """The way of the system this runs on, for the command ``argv``."""
    if sys.platform == "win32":
        return RunKey(argv, WindowsRegistry())
    if sys.platform == "darwin":
        return LaunchAgent(argv, Path.home() / "Library" / "LaunchAgents")
    return DesktopEntry(argv, os.environ)


def reconcile(autostart: Autostart, wanted: bool | None) -> bool:
    """Make the system agree with the setting; returns what the setting must become. Raises OSError.

    ``wanted`` None, a setting that nobody has made yet, takes what the installer was told.

    A user's refusal in the system's own tools wins; an entry of another command (another data folder, a moved
    program) is replaced only when ours is wanted.
    """
    status = autostart.status()
    if wanted is None:
        return status is Status.ON
    if wanted and status is Status.REFUSED:
        return False
    if wanted and status is not Status.ON:
        autostart.on()
    if not wanted and status is Status.ON:
        autostart.off()
    return wanted


class DesktopEntry:
    """``~/.config/autostart/quorum.desktop``; hides an entry of the whole system when that one exists."""

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str]) -> None:
        self._argv = list(argv)
        home = Path(environ.get("HOME") or Path.home())
        config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
        self.path = config / "autostart" / ENTRY
        self._system = [
            Path(folder) / "autostart" / ENTRY
            for folder in (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")
            if folder
        ]

    def status(self) -> Status:
        """Reads the user's entry, else the system's."""
        entry = self._read()
        if entry is None:
            return Status.ABSENT
        if entry.get("Hidden") == "true" or entry.get("X-GNOME-Autostart-enabled") == "false":
            return Status.REFUSED
        return Status.ON if entry.get("Exec") == self._exec() else Status.ELSE

    def on(self) -> None:
        """Write the user's entry."""
        self._write(
            "[Desktop Entry]\nType=Application\nName=Quorum\n"
            "Comment=The models on all your computers behind one address\n"
            f"Exec={self._exec()}\nIcon=quorum\nTerminal=false\nX-GNOME-Autostart-enabled=true\n"
        )

    def off(self) -> None:
        """Remove the user's entry; overrule the system's, unless that one asks the setting itself."""
        if any(path.is_file() and ASKS not in path.read_text("utf-8", "replace") for path in self._system):
            self._write("[Desktop Entry]\nType=Application\nName=Quorum\nHidden=true\n")
        else:
            self.path.unlink(missing_ok=True)

    def _read(self) -> Mapping[str, str] | None:
        parser = configparser.RawConfigParser(delimiters=("=",), comment_prefixes=("#",), strict=False)
        parser.optionxform = str  # type: ignore[assignment,method-assign] # keys of desktop entries have their case
        for path in (self.path, *self._system):
            try:
                parser.read_string(path.read_text(encoding="utf-8"))
                return dict(parser["Desktop Entry"])
            except (OSError, ValueError, KeyError, configparser.Error):
                continue
        return None

    def _exec(self) -> str:
        return " ".join(_quoted(word) for word in self._argv)

    def _write(self, text: str) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _replace(self.path, text.encode())


def _quoted(word: str) -> str:
    """One argument of an Exec line: quoted where its rules ask for it, ``%`` doubled."""
    word = word.replace("%", "%%")
    if shlex.quote(word) == word:
        return word
    for letter in '\\"`$':
        word = word.replace(letter, f"\\{letter}")
    return f'"{word}"'.replace("\\", "\\\\")  # the value of a key is unescaped once before it is split


class LaunchAgent:
    """``~/Library/LaunchAgents/io.github.quorum.plist``, read by launchd at login."""

    def __init__(self, argv: Sequence[str], folder: Path) -> None:
        self._argv = list(argv)
        self.path = folder / f"{LABEL}.plist"

    def status(self) -> Status:
        """Reads the property list."""
        try:
            agent = plistlib.loads(self.path.read_bytes())
        except FileNotFoundError:
            return Status.ABSENT
        except (plistlib.InvalidFileException, ValueError):
            return Status.ELSE
        if agent.get("Disabled"):
            return Status.REFUSED
        return Status.ON if agent.get("ProgramArguments") == self._argv else Status.ELSE

    def on(self) -> None:
        """Write the property list; launchd reads it at the next login."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        agent = {"Label": LABEL, "ProgramArguments": self._argv, "RunAtLoad": True, "ProcessType": "Interactive"}
        _replace(self.path, plistlib.dumps(agent))

    def off(self) -> None:
        """Remove the property list."""
        self.path.unlink(missing_ok=True)


class Registry(Protocol):
    """Values under HKEY_CURRENT_USER; ``read`` gives None for what is not there."""

    def read(self, key: str, name: str) -> object: ...
    def write(self, key: str, name: str, text: str) -> None: ...
    def delete(self, key: str, name: str) -> None: ...


class RunKey:
    """A value of the user's Run key; Task Manager notes a refusal beside it."""

    def __init__(self, argv: Sequence[str], registry: Registry) -> None:
        # As the installer writes it: the program in quotes, whether it needs them or not.
        self._line = f'"{argv[0]}" {subprocess.list2cmdline(argv[1:])}'.rstrip()
        self._registry = registry

    def status(self) -> Status:
        """Reads the Run key and Task Manager's note."""
        line = self._registry.read(RUN_KEY, NAME)
        if line is None:
            return Status.ABSENT
        note = self._registry.read(APPROVED_KEY, NAME)
        if isinstance(note, bytes) and note[:1] and note[0] & 1:  # odd means off
            return Status.REFUSED
        return Status.ON if line == self._line else Status.ELSE

    def on(self) -> None:
        """Write the value and take a refusal back."""
        self._registry.write(RUN_KEY, NAME, self._line)
        self._registry.delete(APPROVED_KEY, NAME)

    def off(self) -> None:
        """Remove the value."""
        self._registry.delete(RUN_KEY, NAME)


class WindowsRegistry:
    """The real registry."""

    def __init__(self) -> None:
        import winreg

        self._winreg: Any = winreg

    def read(self, key: str, name: str) -> object:
        """The value, or None."""
        try:
            with self._winreg.OpenKey(self._winreg.HKEY_CURRENT_USER, key) as handle:
                value: object = self._winreg.QueryValueEx(handle, name)[0]
                return value
        except FileNotFoundError:
            return None

    def write(self, key: str, name: str, text: str) -> None:
        """Set a text value."""
        with self._winreg.CreateKey(self._winreg.HKEY_CURRENT_USER, key) as handle:
            self._winreg.SetValueEx(handle, name, 0, self._winreg.REG_SZ, text)

    def delete(self, key: str, name: str) -> None:
        """Remove a value; one that is not there is fine."""
        try:
            access = self._winreg.KEY_SET_VALUE
            with self._winreg.OpenKey(self._winreg.HKEY_CURRENT_USER, key, 0, access) as handle:
                self._winreg.DeleteValue(handle, name)
        except FileNotFoundError:
            return


def _replace(path: Path, content: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".quorum-")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    Path(temporary).chmod(0o644)
    Path(temporary).replace(path)
