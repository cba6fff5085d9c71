"""The Windows installer: compiled by makensis, and run for real under Wine where that is there.

Wine is no Windows: what it shows is that the script does what it says with files, registry and programs. The installer
of a test runs on 64 bits, because Wine without 32 bits is half as large; nothing else in it differs.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "packaging" / "windows"
WINE = Path("/usr/lib/wine/wine64")
MINGW = "x86_64-w64-mingw32-gcc"
UNINSTALL = r"HKCU\Software\Microsoft\Windows\CurrentVersion\Uninstall\Quorum"
RUN = r"HKCU\Software\Microsoft\Windows\CurrentVersion\Run"


def load(name: str) -> ModuleType:
    """A tool of packaging/windows, which is no import package."""
    sys.path.insert(0, str(FOLDER.parent))
    try:
        return importlib.import_module(f"windows.{name}")
    finally:
        sys.path.remove(str(FOLDER.parent))


installer = load("installer")
version_info = load("version_info")


# The version resource


@pytest.mark.parametrize(
    ("version", "four"),
    [("1.2.3", (1, 2, 3, 0)), ("0.1.0rc2", (0, 1, 0, 0)), ("2.5", (2, 5, 0, 0)), ("7", (7, 0, 0, 0))],
)
def test_a_version_is_four_numbers_for_windows(version: str, four: tuple[int, ...]) -> None:
    assert version_info.numbers(version) == four


@pytest.mark.parametrize("version", ["", "next", "1.70000.0"])
def test_a_version_that_windows_cannot_show_is_refused(version: str) -> None:
    with pytest.raises(ValueError, match="version"):
        version_info.numbers(version)


@pytest.mark.parametrize("program", version_info.PROGRAMS)
def test_the_version_resource_is_what_pyinstaller_evaluates(program: str, tmp_path: Path) -> None:
    written = version_info.write(tmp_path, "1.2.3", program)

    def node(*parts: Any, **named: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return parts, named

    names = ("VSVersionInfo", "FixedFileInfo", "StringFileInfo", "StringTable", "VarFileInfo", "VarStruct")
    known: dict[str, Any] = dict.fromkeys(names, node) | {"StringStruct": lambda name, value: (name, value)}
    _, info = eval(written.read_text("utf-8"), {"__builtins__": {}}, known)  # noqa: S307 # as PyInstaller does
    assert info["ffi"][1]["filevers"] == info["ffi"][1]["prodvers"] == (1, 2, 3, 0)
    ((tables,), _), (((translation,),), _) = info["kids"]
    (language, strings), _ = tables[0]
    assert language == "040904B0"
    assert translation == (("Translation", [0x409, 0x4B0]), {})
    assert dict(strings) | {"Comments": ""} == {
        "CompanyName": "The Quorum contributors", "FileDescription": "Quorum", "FileVersion": "1.2.3",
        "InternalName": program, "LegalCopyright": "Apache License 2.0", "OriginalFilename": f"{program}.exe",
        "ProductName": "Quorum", "ProductVersion": "1.2.3", "Comments": "",
    }  # fmt: skip


# The installer, compiled


@pytest.fixture(scope="module")
def makensis() -> None:
    if shutil.which("makensis") is None:
        pytest.skip("there is no makensis")


def stand_in(folder: Path, program: bytes = b"MZ") -> Path:
    """The layout of a frozen program."""
    (folder / "_internal" / "models").mkdir(parents=True)
    (folder / "quorum.exe").write_bytes(program)
    (folder / "_internal" / "models" / "räksmörgås.gguf").write_text("a model")
    return folder


def test_the_installer_compiles_without_a_warning_and_holds_the_program(makensis: None, tmp_path: Path) -> None:
    frozen = ROOT / "dist" / "quorum"
    whole = (frozen / "quorum.exe").is_file()
    setup = installer.make(frozen if whole else stand_in(tmp_path / "quorum"), tmp_path / "out", "1.2.3")

    assert setup.name == "quorum-1.2.3-windows-x86_64-setup.exe"
    content = setup.read_bytes()
    assert content[:2] == b"MZ"
    assert 'level="asInvoker"' in content.decode("latin-1") or "asInvoker" in content.decode("latin-1")
    for text in ("Quorum Setup", "The Quorum contributors", "1.2.3"):
        assert text.encode("utf-16-le") in content, text
    if shutil.which("7z") is None:
        return
    listed = subprocess.run(["7z", "l", "-slt", str(setup)], capture_output=True, text=True, check=True).stdout
    files = {line.removeprefix("Path = ").replace("\\", "/") for line in listed.splitlines() if line.startswith("Path")}
    assert {name for name in files if name.endswith("app.new/quorum.exe")}
    assert {name for name in files if name.endswith("app.new/_internal/models/räksmörgås.gguf")} or whole


def test_every_text_of_the_installer_fits_into_its_message() -> None:
    script = (FOLDER / "quorum.nsi").read_text("utf-8")

    texts = [line for line in script.splitlines() if line.startswith("LangString ")]
    assert len(texts) > 10
    assert not [text for text in texts if len(text) > 1000]  # NSIS cuts at 1,024
    for line in texts:
        assert script.count(f"$({line.split()[1]})") >= 1, line.split()[1]


def test_a_folder_without_the_program_is_no_installer(tmp_path: Path) -> None:
    with pytest.raises(installer.NsisError, match="there is no quorum"):
        installer.make(tmp_path, tmp_path / "out", "1.2.3")


def test_an_error_of_nsis_is_shown(makensis: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installer, "SCRIPT", tmp_path / "broken.nsi")
    (tmp_path / "broken.nsi").write_text("Section\nNoSuchCommand\n")

    with pytest.raises(installer.NsisError, match="NoSuchCommand"):
        installer.make(stand_in(tmp_path / "quorum"), tmp_path / "out", "1.2.3")


def test_a_signing_command_gets_installer_and_uninstaller(
    makensis: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signer = tmp_path / "sign"
    signer.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/signed\n')
    signer.chmod(0o700)
    monkeypatch.setenv("QUORUM_SIGN_COMMAND", f"{signer} /fd sha256")

    setup = installer.make(stand_in(tmp_path / "quorum"), tmp_path / "out", "1.2.3")

    signed = (tmp_path / "signed").read_text().splitlines()
    assert len(signed) == 2
    assert all(line.startswith("/fd sha256 ") for line in signed)
    assert signed[1] == f"/fd sha256 {setup}"


# The installer, run

STUB = r"""
#include <windows.h>
#include <stdio.h>
#include <wchar.h>
/* A quorum.exe: notes its first argument in %STUB%\calls; started, it stays until 'quit' tells it to end, which it
   doesn't when %STUB%\stubborn is there. A netsh.exe: rules are files; %STUB%\refused is an administrator's no. */
static wchar_t path[4096];
static wchar_t *in(const wchar_t *start, const wchar_t *name) {
  wchar_t folder[2048];
  GetEnvironmentVariableW(L"STUB", folder, 2048);
  swprintf(path, 4096, L"%ls\\%ls%ls", folder, start, name);
  return path;
}
static int there(const wchar_t *name) { return GetFileAttributesW(in(L"", name)) != INVALID_FILE_ATTRIBUTES; }
static int netsh(int argc, wchar_t **argv) {
  const wchar_t *verb = argv[3], *rule = argv[5] + 5;
  if (!wcscmp(verb, L"show")) return GetFileAttributesW(in(L"rule ", rule)) == INVALID_FILE_ATTRIBUTES;
  FILE *log = _wfopen(in(L"", L"netsh"), L"ab");
  for (int i = 3; i < argc; i++) fprintf(log, "%ls%s", argv[i], i + 1 < argc ? "|" : "\n");
  fclose(log);
  if (there(L"refused")) return 1;
  if (!wcscmp(verb, L"delete")) return !DeleteFileW(in(L"rule ", rule));
  return fclose(_wfopen(in(L"rule ", rule), L"ab"));
}
int wmain(int argc, wchar_t **argv) {
  if (argc > 5 && !wcscmp(argv[1], L"advfirewall")) return netsh(argc, argv);
  const wchar_t *word = argc > 1 ? argv[1] : L"window";
  FILE *log = _wfopen(in(L"", L"calls"), L"ab");
  fprintf(log, "%d %ls\n", VERSION, word);
  fclose(log);
  HANDLE running;
  if (!wcscmp(word, L"quit")) {
    running = OpenEventW(EVENT_MODIFY_STATE, FALSE, L"QuorumStub");
    if (!running) return 3;
    return there(L"stubborn") ? 1 : !SetEvent(running);
  }
  running = CreateEventW(NULL, TRUE, FALSE, L"QuorumStub");
  HANDLE started = OpenEventW(EVENT_MODIFY_STATE, FALSE, L"QuorumStubStarted");
  if (started) SetEvent(started);
  printf("up\n");
  fflush(stdout);
  return WaitForSingleObject(running, 60000) != WAIT_OBJECT_0;
}
"""


class Machine:
    """A Windows of its own in a folder, on which the stand-in of netsh is the only one."""

    def __init__(self, folder: Path, setups: dict[str, Path], netsh: Path) -> None:
        self.folder, self.setups = folder, setups
        self.notes = folder / "notes"
        self.prefix = folder / "wine"
        self.env = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")} | {
            "LC_ALL": "C.UTF-8",
            "WINEPREFIX": str(self.prefix),
            "WINEDEBUG": "-all",
            "WINEARCH": "win64",
            "WINEDLLOVERRIDES": "mscoree,mshtml=;netsh.exe=n",
            "STUB": "Z:" + str(self.notes).replace("/", "\\"),
        }
        self.windows("wineboot", "-i")
        shutil.copy(netsh, self.prefix / "drive_c" / "windows" / "system32" / "netsh.exe")

    def clean(self) -> None:
        """As before any test."""
        for key in (UNINSTALL, RUN):
            self.windows("reg", "delete", key, "/f")
        self.windows("reg", "add", r"HKCU\Software\Wine", "/v", "Version", "/d", "win10", "/f")
        for folder in (self.notes, self.program, self.local / "quorum"):
            shutil.rmtree(folder, ignore_errors=True)
        self.notes.mkdir()

    @property
    def local(self) -> Path:
        """``%LOCALAPPDATA%``."""
        return next((self.prefix / "drive_c" / "users").glob("*/AppData/Local"))

    @property
    def program(self) -> Path:
        return self.local / "Programs" / "Quorum"

    def windows(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(WINE), *map(str, command)],
            env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=100, check=False,
        )  # fmt: skip

    @contextlib.contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """The installed stand-in of Quorum, once it runs."""
        program = str(self.program / "app" / "quorum.exe")
        with subprocess.Popen([str(WINE), program, *arguments], env=self.env, stdout=subprocess.PIPE, text=True) as one:
            assert one.stdout is not None
            assert one.stdout.readline().strip() == "up"
            yield one

    def set_up(self, version: str, *arguments: str) -> int:
        return self._quietly(self.setups[version], *arguments)

    def _quietly(self, *command: str | Path) -> int:
        """Without a pipe that a program started by it would hold open."""
        words = [str(WINE), str(command[0]), "/S", *map(str, command[1:])]
        return subprocess.run(
            words, env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=100, check=False
        ).returncode

    def uninstall(self, *arguments: str) -> None:
        """An uninstaller copies itself away and returns; with ``_?=`` it stays and is waited for."""
        copy = self.folder / "uninstall.exe"
        shutil.copy(self.program / "uninstall.exe", copy)
        folder = self.registry(UNINSTALL)["InstallLocation"]
        assert self._quietly(copy, *arguments, f"_?={folder}") == 0

    def registry(self, key: str) -> dict[str, str]:
        lines = [line.split(None, 2) for line in self.windows("reg", "query", key).stdout.splitlines()]
        return {line[0]: line[2] for line in lines if len(line) == 3 and line[1].startswith("REG_")}

    def note(self, name: str) -> list[str]:
        file = self.notes / name
        return file.read_text().splitlines() if file.exists() else []

    def close(self) -> None:
        server = next(path for path in (WINE.with_name("wineserver64"), WINE.with_name("wineserver")) if path.is_file())
        subprocess.run([server, "-k"], env=self.env, check=False)


@pytest.fixture(scope="module")
def kit(makensis: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], Path]:
    """Installers of two versions, and the stand-in of netsh."""
    missing = [name for name, found in (("wine64", WINE.is_file()), (MINGW, shutil.which(MINGW))) if not found]
    if missing:
        pytest.skip(f"running the Windows installer needs {', '.join(missing)}")
    folder = tmp_path_factory.mktemp("kit")
    (folder / "stub.c").write_text(STUB)
    setups = {}
    for number in (1, 2):
        program = folder / f"stub-{number}.exe"
        command = [MINGW, "-municode", "-O1", "-s", f"-DVERSION={number}", "-o", str(program), str(folder / "stub.c")]
        subprocess.run(command, check=True)
        dist = stand_in(folder / f"dist-{number}", program.read_bytes())
        (dist / "_internal" / f"only-in-{number}").write_text("old files must go")
        version = f"0.{number}.0"
        setups[version] = installer.make(dist, folder / "out", version, target="amd64-unicode")
    return setups, folder / "stub-1.exe"


@pytest.fixture(scope="module")
def wine(kit: tuple[dict[str, Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    made = Machine(tmp_path_factory.mktemp("machine"), *kit)
    yield made
    made.close()


@pytest.fixture
def machine(wine: Machine) -> Machine:
    wine.clean()
    return wine


@pytest.mark.package
@pytest.mark.timeout(180)
def test_it_installs_for_one_user_upgrades_and_leaves_only_what_the_user_made(machine: Machine) -> None:
    (machine.local / "quorum").mkdir()
    (machine.local / "quorum" / "quorum.db").write_text("conversations")
    assert machine.set_up("0.1.0") == 0

    entry, run = machine.registry(UNINSTALL), machine.registry(RUN)
    program = entry["InstallLocation"]
    assert program.endswith(r"\AppData\Local\Programs\Quorum")
    assert (entry["DisplayName"], entry["DisplayVersion"]) == ("Quorum", "0.1.0")
    assert entry["Publisher"] == "The Quorum contributors"
    assert entry["UninstallString"] == f'"{program}\\uninstall.exe"'
    assert entry["QuietUninstallString"] == f'"{program}\\uninstall.exe" /S'
    assert int(entry["EstimatedSize"], 16) > 10
    assert run == {"Quorum": f'"{program}\\app\\quorum.exe" --hidden'}
    assert (machine.program / "app" / "_internal" / "models" / "räksmörgås.gguf").read_text() == "a model"
    link = machine.local.parent / "Roaming/Microsoft/Windows/Start Menu/Programs/Quorum.lnk"
    assert link.is_file()
    assert machine.note("calls") == machine.note("netsh") == []  # nothing ran, nobody was asked to open ports

    (machine.program / ".app.update").mkdir()  # as a self-update leaves it
    with machine.running("--hidden") as running:
        assert machine.set_up("0.2.0") == 0
        assert running.wait(20) == 0  # it was told to end and did
    calls = machine.note("calls")
    assert calls[:2] == ["1 --hidden", "1 quit"]
    assert machine.registry(UNINSTALL)["DisplayVersion"] == "0.2.0"
    assert sorted(path.name for path in machine.program.iterdir()) == ["app", "uninstall.exe"]
    assert sorted(path.name for path in (machine.program / "app" / "_internal").iterdir()) == ["models", "only-in-2"]

    machine.uninstall()
    assert machine.note("calls") == [*calls[:2], "2 --hidden", "2 quit"]  # what ran before the upgrade ran after it
    assert not (machine.program / "app").exists()
    assert machine.registry(UNINSTALL) == machine.registry(RUN) == {}
    assert not link.exists()
    assert (machine.local / "quorum" / "quorum.db").read_text() == "conversations"


@pytest.mark.package
@pytest.mark.timeout(180)
def test_what_the_user_made_goes_when_asked(machine: Machine) -> None:
    (machine.local / "quorum").mkdir()
    (machine.local / "quorum" / "quorum.db").write_text("conversations")
    assert machine.set_up("0.1.0", "/NOLOGIN") == 0
    assert machine.registry(RUN) == {}

    machine.uninstall("/REMOVEDATA")

    assert not (machine.local / "quorum").exists()
    assert machine.local.is_dir()


@pytest.mark.package
@pytest.mark.timeout(180)
def test_a_quorum_that_does_not_end_keeps_its_files(machine: Machine) -> None:
    assert machine.set_up("0.1.0") == 0
    with machine.running() as running:
        (machine.notes / "stubborn").touch()
        assert machine.set_up("0.2.0") == 6
        assert running.poll() is None
        (machine.notes / "stubborn").unlink()
        machine.windows(machine.program / "app" / "quorum.exe", "quit")
        assert running.wait(20) == 0

    assert machine.registry(UNINSTALL)["DisplayVersion"] == "0.1.0"
    assert sorted(path.name for path in machine.program.iterdir()) == ["app", "uninstall.exe"]
    assert (machine.program / "app" / "_internal" / "only-in-1").exists()


@pytest.mark.package
@pytest.mark.timeout(180)
def test_the_firewall_is_opened_for_two_ports_once_and_a_refusal_is_no_failure(machine: Machine) -> None:
    (machine.notes / "refused").touch()
    assert machine.set_up("0.1.0", "/FIREWALL") == 0
    assert (machine.program / "app" / "quorum.exe").exists()
    (machine.notes / "refused").unlink()
    (machine.notes / "netsh").unlink()

    assert machine.set_up("0.1.0", "/FIREWALL") == 0
    program = machine.registry(UNINSTALL)["InstallLocation"]
    added = [line.split("|") for line in machine.note("netsh") if line.startswith("add")]
    where = ["profile=private,domain", f"program={program}\\app\\quorum.exe"]
    rule = ["dir=in", "action=allow"]
    assert added == [
        ["add", "rule", "name=Quorum (paired computers)", *rule, "protocol=TCP", "localport=7412", *where],
        ["add", "rule", "name=Quorum (finding computers)", *rule, "protocol=UDP", "localport=5353", *where],
    ]
    (machine.notes / "netsh").unlink()

    assert machine.set_up("0.2.0", "/FIREWALL") == 0
    assert machine.note("netsh") == []  # they are there: no second question


@pytest.mark.package
@pytest.mark.timeout(180)
def test_a_folder_with_a_name_of_any_script_and_a_foreign_app_inside(machine: Machine) -> None:
    foreign = machine.prefix / "drive_c" / "Träume☃夢"
    (foreign / "app").mkdir(parents=True)
    (foreign / "app" / "mine.txt").write_text("not Quorum's")

    assert machine.set_up("0.1.0", "/D=C:\\Träume☃夢") == 0

    assert (foreign / "app" / "mine.txt").read_text() == "not Quorum's"
    assert (foreign / "Quorum" / "app" / "quorum.exe").is_file()
    assert machine.registry(UNINSTALL)["DisplayName"] == "Quorum"
    assert machine.set_up("0.2.0") == 0  # an upgrade finds the place by itself
    assert (foreign / "Quorum" / "app" / "_internal" / "only-in-2").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk with room for one version and little more."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=False)
    if mounted.returncode != 0:
        pytest.skip("this machine mounts no small disk")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.package
@pytest.mark.timeout(180)
def test_a_disk_that_fills_up_during_an_upgrade_leaves_the_old_version(machine: Machine, small_disk: Path) -> None:
    place = small_disk / "Quorum"
    assert machine.set_up("0.1.0", "/D=Z:" + str(place).replace("/", "\\")) == 0
    with (small_disk / "filler").open("wb", buffering=0) as filler:
        with contextlib.suppress(OSError):
            while True:
                filler.write(bytes(4096))
        filler.truncate(filler.tell() - 8192)

    assert machine.set_up("0.2.0") != 0

    assert machine.registry(UNINSTALL)["DisplayVersion"] == "0.1.0"
    assert sorted(path.name for path in place.iterdir()) == ["app", "uninstall.exe"]
    assert (place / "app" / "_internal" / "only-in-1").read_text() == "old files must go"
    (small_disk / "filler").unlink()
    assert machine.set_up("0.2.0") == 0
    assert (place / "app" / "_internal" / "only-in-2").exists()


@pytest.mark.package
@pytest.mark.timeout(180)
def test_a_windows_too_old_is_left_as_it_was(machine: Machine) -> None:
    machine.windows("reg", "add", r"HKCU\Software\Wine", "/v", "Version", "/d", "win7", "/f")

    assert machine.set_up("0.1.0") == 3

    assert not machine.program.exists()
