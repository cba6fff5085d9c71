"""The Debian package: lays the frozen program out below ``/opt/quorum`` and calls dpkg-deb. Standard library only."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from steps import call, clean_environment, output_of

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "packaging" / "deb"
HOME = "opt/quorum"
ICON_PIXELS = (16, 24, 32, 48, 64, 128, 256, 512)

DEPENDS = (
    "libasound2 | libasound2t64", "libbrotli1", "libdbus-1-3", "libegl1", "libexpat1", "libffi8", "libfontconfig1",
    "libfreetype6", "libgbm1", "libgcc-s1", "libgl1", "libglib2.0-0 | libglib2.0-0t64", "libgssapi-krb5-2", "liblzma5",
    "libnspr4", "libnss3", "libstdc++6", "libudev1", "libuuid1", "libwayland-client0", "libwayland-cursor0",
    "libwayland-egl1", "libx11-6", "libx11-xcb1", "libxcb-dri3-0", "libxcb1", "libxcomposite1", "libxdamage1",
    "libxext6", "libxfixes3", "libxrandr2", "libxtst6", "libzstd1", "zlib1g",
)  # fmt: skip
"""What the program links and does not bring; newer releases name two of them anew. libc6 comes with its version."""


def architecture() -> str:
    """As dpkg names this computer's."""
    return output_of("dpkg", "--print-architecture").strip() or "amd64"


def file_name(version: str) -> str:
    """The package's, as Debian wants it."""
    return f"quorum_{version}_{architecture()}.deb"


def elf_files(folder: Path) -> Iterable[Path]:
    """The programs and libraries below ``folder``."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if file.read(4) == b"\x7fELF":
                    yield path


def libc_floor(folder: Path) -> str:
    """The lowest version of the C library that has what the program calls."""
    found: set[tuple[int, ...]] = {(2, 34)}
    for path in elf_files(folder):
        done = subprocess.run(["readelf", "-V", path], capture_output=True, text=True, check=True)
        found |= {tuple(map(int, name.split("."))) for name in re.findall(r"\bGLIBC_(\d+\.\d+)", done.stdout)}
    return ".".join(map(str, max(found)))


def make(frozen: Path, version: str, root: Path, target: Path, log: IO[str], epoch: str) -> None:
    """Build ``target`` from the frozen program, laid out in ``root``. Raises StepError."""
    lay_out(frozen, version, root)
    for path in (root, *root.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    part = target.with_suffix(".part")
    command: list[str | Path] = [
        "dpkg-deb",
        "--root-owner-group",
        "-Zzstd",
        "-z10",
        "--threads-max=2",
        "--build",
        root,
        part,
    ]
    call(command, log, "See the log.", env=clean_environment(SOURCE_DATE_EPOCH=epoch))
    part.replace(target)


def lay_out(frozen: Path, version: str, root: Path) -> None:
    """Every file of the package below ``root``."""
    program = root / HOME
    program.parent.mkdir(parents=True)
    shutil.copytree(frozen, program, symlinks=True, copy_function=_link)
    # Chromium makes this folder where it may, which is where root starts it; dpkg removes only what it knows.
    (program / "_internal/PySide6/Qt/resources/locales").mkdir(exist_ok=True)
    _link_to(root / "usr/bin/quorum", f"/{HOME}/quorum")
    _copy(HERE / "quorum.desktop", root / "usr/share/applications/quorum.desktop")
    _copy(HERE / "autostart.desktop", root / "etc/xdg/autostart/quorum.desktop")
    _copy(HERE / "apparmor", program / "apparmor")
    _write(root / "usr/share/metainfo/io.github.quorum.metainfo.xml", _filled("metainfo.xml.in", version=version))
    for pixels in ICON_PIXELS:
        _copy(
            ROOT / "assets" / f"icon-{pixels}.png",
            root / f"usr/share/icons/hicolor/{pixels}x{pixels}/apps/quorum.png",
        )
    _copy(ROOT / "assets" / "icon.svg", root / "usr/share/icons/hicolor/scalable/apps/quorum.svg")
    _copy(HERE / "copyright", root / "usr/share/doc/quorum/copyright")
    _copy(ROOT / "CHANGELOG.md", root / "usr/share/doc/quorum/CHANGELOG.md")
    _link_to(root / "usr/share/doc/quorum/THIRD_PARTY.md", f"/{HOME}/_internal/LICENSES/THIRD_PARTY.md")
    size = sum(-(-path.lstat().st_size // 1024) for path in root.rglob("*") if not path.is_dir())
    _write(
        root / "DEBIAN/control",
        _filled(
            "control.in",
            version=version,
            architecture=architecture(),
            installed_kib=str(size),
            depends=", ".join([f"libc6 (>= {libc_floor(frozen)})", *DEPENDS]),
        ),
    )
    _write(root / "DEBIAN/conffiles", "/etc/xdg/autostart/quorum.desktop\n")
    for script in ("postinst", "prerm"):
        _copy(HERE / script, root / "DEBIAN" / script)
        (root / "DEBIAN" / script).chmod(0o755)


def _filled(template: str, **values: str) -> str:
    text = (HERE / template).read_text("utf-8")
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def _link(source: str, target: str) -> str:
    """Half a gigabyte is linked, not copied, where the file system can."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def _link_to(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
