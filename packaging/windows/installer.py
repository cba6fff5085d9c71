"""Make the Windows installer of a frozen program: ``python packaging/windows/installer.py [--dist D] [--out DIR]``.

Needs NSIS 3.08 or newer (``makensis``), on Windows or anywhere else: it only packs. With ``QUORUM_SIGN_COMMAND`` set
(``signtool sign /fd sha256 ...``) NSIS calls that for the installer and for the uninstaller inside it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from windows.version_info import COPYRIGHT, PUBLISHER, numbers, project_version

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = Path(__file__).resolve().parent / "quorum.nsi"


class NsisError(Exception):
    """The installer can't be made; says why."""


def find_makensis() -> str:
    """The program; on Windows also where its own installer puts it. Raises NsisError."""
    if found := shutil.which("makensis"):
        return found
    for variable in ("ProgramFiles(x86)", "ProgramFiles"):
        program = Path(os.environ.get(variable, "/nowhere")) / "NSIS" / "makensis.exe"
        if program.is_file():
            return str(program)
    raise NsisError("there is no makensis; install NSIS (Debian and Ubuntu: apt-get install nsis)")


def setup_path(out: Path, version: str) -> Path:
    """Where ``make`` writes."""
    return out / f"quorum-{version}-windows-x86_64-setup.exe"


def make(dist: Path, out: Path, version: str, target: str = "") -> Path:
    """Pack ``dist`` (the folder with quorum.exe) into the ``setup_path`` of ``out``.

    ``target`` is NSIS's name of the processor the installer itself runs on. Raises NsisError with NSIS's own words.
    """
    if not (dist / "quorum.exe").is_file():
        raise NsisError(f"there is no quorum.exe in {dist}: 'python3 dev.py build' on Windows makes it")
    out.mkdir(parents=True, exist_ok=True)
    setup = setup_path(out.resolve(), version)
    defines = {
        "VERSION": version,
        "NUMBER": ".".join(map(str, numbers(version))),
        "PUBLISHER": PUBLISHER,
        "COPYRIGHT": COPYRIGHT,
        "DIST": dist.resolve(),
        "ICON": ROOT / "assets" / "icon.ico",
        "SIDEBAR": SCRIPT.with_name("sidebar.bmp"),
        "OUT": setup,
    }
    if target:
        defines["TARGET"] = target
    if sign := os.environ.get("QUORUM_SIGN_COMMAND"):
        defines["SIGN"] = sign
    command = [find_makensis(), "-V2", "-WX", "-INPUTCHARSET", "UTF8"]
    command += [f"-D{name}={value}" for name, value in defines.items()]
    done = subprocess.run([*command, str(SCRIPT)], capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0 or not setup.is_file():
        raise NsisError(f"makensis ended with code {done.returncode}:\n{done.stdout}{done.stderr}".rstrip())
    return setup


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="installer.py", description="Make the Windows installer.")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist" / "quorum", help="the frozen program (%(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="where the installer goes (%(default)s)")
    chosen = parser.parse_args(arguments)
    try:
        print(make(chosen.dist, chosen.out, project_version()))
    except NsisError as error:
        print(f"The installer was not made: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
