"""Freeze Quorum and pack it: what ``python3 dev.py build`` does after the set-up. Standard library only.

The frozen program is made in an environment of its own, which holds the locked packages of the desktop and PyInstaller
and nothing else, so that what else a developer installed never gets into it. Everything ends up in ``dist``.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

import debian
import system_packages
from steps import StepError, Steps, call, clean_environment, digest_of, output_of
from windows import installer

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
LOCKS = ROOT / "packaging" / "requirements"
FROZEN = DIST / "quorum"
PROGRAM = FROZEN / ("quorum.exe" if os.name == "nt" else "quorum")
LOG = "See the log."
NETWORK = "Check the network, then start again: it goes on from here."
PAGE = Path("router/web/page")
PATIENCE_S = 60.0
FALLBACK_EPOCH = "1764000000"
"""The time of every file where git does not tell that of the last change."""


def version() -> str:
    """As ``router`` says it, without importing it."""
    line = next(
        line for line in (ROOT / "router" / "__init__.py").read_text("utf-8").splitlines() if "__version__" in line
    )
    return line.partition('"')[2].rstrip('"')


class Builder:
    """The steps of one build; each is passed over while nothing that it is made from has changed."""

    def __init__(self, steps: Steps, model: Path, *, portable: bool) -> None:
        self.steps = steps
        self.model = model
        self.portable = portable
        self.folder = steps.folder / "freeze"
        self.source = self.folder / "source"
        self.venv = self.folder / "venv"
        self.python = self.venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    def make(self) -> list[Path]:
        """Everything for this system; what there is to hand out."""
        if sys.platform == "linux":
            wanted = (*system_packages.WINDOW, *system_packages.BUILD)
            system_packages.have(self.steps, "libraries-build", "libraries and programs of the build", wanted)
        locks = digest_of(
            *(LOCKS / f"{name}.txt" for name in ("build", "desktop", "freeze")), sys.version, str(self.venv)
        )
        self.steps.do("freeze-packages", "packages of the build", locks, self._packages, self.python.exists)
        self._snapshot()
        inputs = digest_of(locks, self.source, self.model.name, str(self.model.stat().st_size), str(self.portable))
        self.steps.do("frozen", "frozen program", inputs, self._freeze, PROGRAM.is_file)
        made = [path for path in DIST.glob("quorum-portable*") if self.portable]
        if sys.platform == "linux" and shutil.which("dpkg-deb"):
            package = DIST / debian.file_name(version())
            self.steps.do("deb", package.name, inputs, lambda log: self._deb(package, log), package.is_file)
            made.append(package)
        if sys.platform == "win32":
            setup = installer.setup_path(DIST, version())
            recipe = digest_of(inputs, ROOT / "packaging" / "windows")
            self.steps.do("setup", setup.name, recipe, self._setup, setup.is_file)
            made.append(setup)
        if sys.platform == "darwin":
            image = DIST / f"quorum-{version()}-macos-{platform.machine()}.dmg"
            command: list[str | Path] = ["sh", ROOT / "packaging" / "macos" / "dmg.sh", DIST / "Quorum.app", image]
            recipe = digest_of(inputs, ROOT / "packaging" / "macos", *keys_of_macos())
            self.steps.do("dmg", image.name, recipe, lambda log: call(command, log, LOG), image.is_file)
            made.append(image)
        return made

    def _snapshot(self) -> None:
        """Copy what is frozen, so that nothing changes under PyInstaller. Raises SystemExit for a page half built."""
        shutil.rmtree(self.source, ignore_errors=True)
        made = shutil.ignore_patterns("__pycache__", "requirements", "screenshots", "page")
        for name in ("app", "router", "assets", "packaging"):
            shutil.copytree(ROOT / name, self.source / name, ignore=made)
        for name in ("LICENSE", "CHANGELOG.md", "pyproject.toml", "ui/package-lock.json"):
            (self.source / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(ROOT / name, self.source / name)
        until = time.monotonic() + PATIENCE_S
        while not page_is_whole(self.source / PAGE):
            if time.monotonic() > until:
                raise SystemExit("the page is not whole: somebody else builds it. Start again.")
            time.sleep(1)
            shutil.rmtree(self.source / PAGE, ignore_errors=True)
            with contextlib.suppress(OSError):  # shutil.Error is one: files went away under it
                shutil.copytree(ROOT / PAGE, self.source / PAGE)

    def _packages(self, log: IO[str]) -> None:
        call([sys.executable, "-m", "venv", "--clear", self.venv], log, f"Remove {self.venv}, then start again.")
        pip: list[str | Path] = [self.python, "-m", "pip", "install", "--require-hashes", "--no-deps"]
        call([*pip, "-r", LOCKS / "build.txt", "-r", LOCKS / "freeze.txt"], log, NETWORK)
        call([*pip, "--no-build-isolation", "-r", LOCKS / "desktop.txt"], log, NETWORK)

    def _freeze(self, log: IO[str]) -> None:
        """PyInstaller, into a folder beside ``dist``; what is there is replaced only by a whole new one."""
        made = self.folder / "dist"
        shutil.rmtree(made, ignore_errors=True)
        environment = clean_environment(
            PYTHONHASHSEED="1",
            SOURCE_DATE_EPOCH=epoch(),
            PYTHONDONTWRITEBYTECODE="1",
            QUORUM_BUILD_MODEL=str(self.model),
            QUORUM_BUILD_MODULES=str(ROOT / "ui" / "node_modules"),
        )
        places = ("--distpath", made, "--workpath", self.folder / "work", "--log-level", "WARN")
        spec = self.source / "packaging" / "quorum.spec"
        extra = ["--", "--portable"] if self.portable else []
        command: list[str | Path] = [self.python, "-m", "PyInstaller", "--noconfirm", "--clean", *places, spec, *extra]
        call(command, log, LOG, env=environment, cwd=self.folder)
        DIST.mkdir(exist_ok=True)
        for path in made.iterdir():
            _replace(DIST / path.name, path)

    def _setup(self, log: IO[str]) -> None:
        try:
            installer.make(FROZEN, DIST, version())
        except installer.NsisError as error:
            raise StepError(str(error), "Install NSIS, then start again.") from error

    def _deb(self, package: Path, log: IO[str]) -> None:
        for old in DIST.glob("*.deb"):
            old.unlink()
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            debian.make(FROZEN, version(), Path(folder) / "root", package, log, epoch())


def page_is_whole(page: Path) -> bool:
    """Whether everything that the built page names is there; its tool empties the folder before it fills it."""
    try:
        text = (page / "index.html").read_text("utf-8")
    except OSError:
        return False
    return all((page / name).is_file() for name in re.findall(r'(?:src|href)="\./([^"]+)"', text))


def _replace(target: Path, source: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    source.rename(target)


def keys_of_macos() -> list[str]:
    """Names of the keys that are there: an image made without them is made anew once they are."""
    return [name for name in ("QUORUM_SIGN_IDENTITY", "QUORUM_NOTARY_KEY") if os.environ.get(name)]


def epoch() -> str:
    """Seconds of the last commit, so that the same source gives the same files."""
    return output_of("git", "-C", ROOT, "log", "-1", "--format=%ct").strip() or FALLBACK_EPOCH


def write_sums(files: list[Path]) -> Path:
    """``SHA256SUMS`` of what is handed out, as ``sha256sum --check`` reads it."""
    target = DIST / "SHA256SUMS"
    lines = []
    for path in sorted(files):
        with path.open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}\n")
    target.write_text("".join(lines), "utf-8")
    return target


def build(steps: Steps, model: Path, arguments: list[str]) -> int:
    """The verb of dev.py: freeze, pack, and say where it lies."""
    parser = argparse.ArgumentParser(prog="dev.py build")
    parser.add_argument("--portable", action="store_true", help="also one file that starts without being installed")
    chosen = parser.parse_args(arguments)
    if sys.base_prefix == "/usr" and not any(Path("/usr/lib").glob(f"**/libpython3.{sys.version_info.minor}.so*")):
        system_packages.have(steps, "libpython", "Python's library", (f"libpython3.{sys.version_info.minor}",))
    made = Builder(steps, model, portable=chosen.portable).make()
    sums = write_sums(made)
    for path in (FROZEN, *made, sums):
        size = (
            sum(p.stat().st_size for p in path.rglob("*") if not p.is_symlink())
            if path.is_dir()
            else path.stat().st_size
        )
        print(f"{path.relative_to(ROOT)}  {size / 1e6:.1f} MB")
    return 0


__all__ = ["DIST", "FROZEN", "PROGRAM", "Builder", "StepError", "build", "version", "write_sums"]
