"""What Windows shows of quorum.exe, as the text that PyInstaller's ``EXE(version=...)`` reads.

The spec of PyInstaller calls ``write``; the installer uses the same names and numbers.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PUBLISHER = "The Quorum contributors"
COPYRIGHT = "Apache License 2.0"
DESCRIPTION = "Quorum"
COMMENT = "The models on all your computers behind one address"
ENGLISH = "040904B0"  # US English, Unicode

PROGRAMS = {"quorum": "quorum.exe", "quorum-cli": "quorum-cli.exe"}
"""``quorum.exe`` has no console, so that no black window comes with the desktop; ``quorum-cli.exe`` is the same program
with one, for terminals. Both lie in one folder and share everything else."""


def project_version() -> str:
    """The version in pyproject.toml."""
    project: str = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    return project


def numbers(version: str) -> tuple[int, int, int, int]:
    """``1.2.3`` as Windows counts: four numbers; what follows the numbers (``1.2.3rc1``) is left out."""
    found = re.match(r"(\d+)(?:\.(\d+))?(?:\.(\d+))?", version)
    if found is None or any(int(part or 0) > 65_535 for part in found.groups()):
        raise ValueError(f"'{version}' is no version that Windows can show")
    major, minor, patch = (int(part or 0) for part in found.groups())
    return major, minor, patch, 0


def text(version: str, program: str = "quorum") -> str:
    """The version resource of ``program``."""
    file = PROGRAMS.get(program, f"{program}.exe")
    strings = {
        "CompanyName": PUBLISHER,
        "FileDescription": DESCRIPTION,
        "FileVersion": version,
        "InternalName": program,
        "LegalCopyright": COPYRIGHT,
        "OriginalFilename": file,
        "ProductName": "Quorum",
        "ProductVersion": version,
        "Comments": COMMENT,
    }
    table = ",\n          ".join(f"StringStruct({name!r}, {value!r})" for name, value in strings.items())
    return f"""VSVersionInfo(
  ffi=FixedFileInfo(
    filevers={numbers(version)},
    prodvers={numbers(version)},
    mask=0x3F,
    flags=0x0,
    OS=0x40004,
    fileType=0x1,
    subtype=0x0,
    date=(0, 0),
  ),
  kids=[
    StringFileInfo([
      StringTable({ENGLISH!r}, [
          {table},
      ]),
    ]),
    VarFileInfo([VarStruct('Translation', [0x0409, 0x04B0])]),
  ],
)
"""


def write(folder: Path, version: str, program: str = "quorum") -> Path:
    """Write the text into ``folder`` and return its path, for ``EXE(version=...)``."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{program}-version.txt"
    target.write_text(text(version, program), "utf-8")
    return target
