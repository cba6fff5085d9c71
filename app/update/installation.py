"""What this program was started from, and whether it may replace itself there."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SYSTEM: Final = ("/usr", "/opt", "/nix", "/snap", "/app", "/gnu")
"""Folders that a package manager owns, also where root runs us."""


@dataclass(frozen=True, slots=True)
class Installation:
    """``root`` is the folder that an update replaces as a whole, ``program`` what to start, inside it.

    ``refusal`` says why it can't be updated by us, with ``advice``; empty when it can.
    """

    root: Path
    program: Path
    refusal: str = ""
    advice: str = ""

    @property
    def work(self) -> Path:
        """Where updates are prepared: beside the program, so that a rename can put them in place."""
        return self.root.with_name(f".{self.root.name}.update")


def platform_name() -> str:
    """This platform as manifests name it, e.g. ``linux-x86_64``, ``macos-arm64``."""
    system = {"win32": "windows", "darwin": "macos"}.get(sys.platform, "linux")
    machine = platform.machine().lower()
    return f"{system}-{ {'amd64': 'x86_64', 'aarch64': 'arm64'}.get(machine, machine) }"


def this_installation() -> Installation:
    """The installation that this process runs from."""
    program = Path(sys.executable).resolve()
    inside = getattr(sys, "_MEIPASS", None)
    return describe(
        program,
        frozen=bool(getattr(sys, "frozen", False)),
        inside=None if inside is None else Path(inside).resolve(),
        environ=os.environ,
    )


def describe(
    program: Path, *, frozen: bool, inside: Path | None = None, environ: Mapping[str, str] | None = None
) -> Installation:
    """The installation of ``program``; ``inside`` is where the frozen program's parts were unpacked."""
    root = root_of(program)
    refusal, advice = _refusal(root, frozen, inside, environ or {})
    return Installation(root, program, refusal, advice)


def root_of(program: Path) -> Path:
    """The folder that holds ``program``; of a bundle of macOS the bundle itself."""
    for parent in program.parents:
        if parent.suffix == ".app" and program.is_relative_to(parent / "Contents" / "MacOS"):
            return parent
    return program.parent


def _refusal(root: Path, frozen: bool, inside: Path | None, environ: Mapping[str, str]) -> tuple[str, str]:
    if not frozen:
        return "Quorum runs from a clone.", "Update it with 'git pull', then 'python3 dev.py setup'."
    if environ.get("APPIMAGE"):
        return "Quorum runs as an AppImage.", "Replace that file with a newer one."
    if inside is not None and not inside.is_relative_to(root):
        return "This is the portable single file.", "Replace it with a newer one."
    if any(root.is_relative_to(folder) for folder in _SYSTEM):
        return "Quorum was installed as a package.", "Update it with your package manager."
    if not (os.access(root, os.W_OK) and os.access(root.parent, os.W_OK)):
        return "You may not change the folder Quorum was installed into.", "Ask who installed it to update it."
    if hasattr(os, "geteuid") and os.geteuid() != root.stat().st_uid:
        return "Another user installed Quorum here.", "Ask who installed it to update it."
    return "", ""
