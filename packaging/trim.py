"""What of PyInstaller's collection stays in the frozen program: only what Quorum uses and what the host must not give.

An entry is PyInstaller's ``(destination, source, kind)``. Standard library only: the spec and the tests import this.
"""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

Entry = tuple[str, str, str]

PT_LOAD, PT_DYNAMIC = 1, 2
DT_STRTAB, DT_RPATH, DT_RUNPATH = 5, 15, 29

EXCLUDES = (
    "PyQt5", "PyQt6", "PySide2", "gi", "tkinter", "test", "unittest", "pydoc_data", "lib2to3", "distutils",
    "setuptools", "pip", "numpy", "IPython", "readline", "PySide6.QtPdf", "PySide6.QtQuick3D", "PySide6.QtQuick",
    "PySide6.QtQml", "PySide6.QtDataVisualization", "qtpy.QtDataVisualization", "webview.platforms.gtk",
    "webview.platforms.cef", "webview.platforms.android",
)  # fmt: skip
"""Never in it. GNU readline and Qt's DataVisualization are under the GPL, which nothing in the program may be."""
LINUX_EXCLUDES = ("pystray", "Xlib", "PIL", "webview.platforms.cocoa", "webview.platforms.winforms",
                  "webview.platforms.edgechromium", "webview.platforms.mshtml")  # fmt: skip

PLUGINS = (
    "platforms/libqxcb", "platforms/libqwayland", "platforms/libqoffscreen", "xcbglintegrations/",
    "wayland-decoration-client/", "wayland-graphics-integration-client/", "wayland-shell-integration/",
    "platforminputcontexts/libcompose", "platforminputcontexts/libibus", "tls/libqopenssl", "imageformats/libqjpeg",
    "imageformats/libqsvg", "iconengines/", "platformthemes/libqxdg",
)  # fmt: skip
"""Qt's plugins that are kept, by the beginning of their path below ``plugins``."""

HOST = (
    "libstdc++.so.6", "libgcc_s.so.1", "libgbm.so.1", "libGL.so.1", "libEGL.so.1", "libOpenGL.so.0", "libGLX.so.0",
    "libGLdispatch.so.0", "libdrm.so.2", "libX11.so.6", "libX11-xcb.so.1", "libXext.so.6", "libXfixes.so.3",
    "libXdamage.so.1", "libXcomposite.so.1", "libXrandr.so.2", "libXrender.so.1", "libXtst.so.6", "libXi.so.6",
    "libXau.so.6", "libXdmcp.so.6", "libxcb.so.1", "libxcb-dri3.so.0", "libexpat.so.1", "libz.so.1", "libzstd.so.1",
    "libfontconfig.so.1", "libfreetype.so.6", "libglib-2.0.so.0", "libgio-2.0.so.0", "libgobject-2.0.so.0",
    "libgmodule-2.0.so.0", "libgthread-2.0.so.0", "libmount.so.1", "libblkid.so.1", "libselinux.so.1", "libudev.so.1",
    "libsystemd.so.0", "libcap.so.2", "libgcrypt.so.20", "libgpg-error.so.0", "liblz4.so.1", "liblzma.so.5",
    "libpcre2-8.so.0", "libffi.so.8", "libuuid.so.1", "libbsd.so.0", "libmd.so.0", "libpng16.so.16",
    "libbrotlidec.so.1", "libbrotlicommon.so.1", "libasound.so.2", "libdbus-1.so.3", "libnss3.so", "libnssutil3.so",
    "libsmime3.so", "libnspr4.so", "libplc4.so", "libplds4.so", "libwayland-client.so.0", "libwayland-cursor.so.0",
    "libwayland-egl.so.1", "libwayland-server.so.0", "libgssapi_krb5.so.2", "libkrb5.so.3", "libk5crypto.so.3",
    "libkrb5support.so.0", "libcom_err.so.2", "libkeyutils.so.1",
)  # fmt: skip
"""Libraries that come from the host: its graphics drivers link them too, and older copies of ours break those."""


def below_qt(destination: str) -> str | None:
    """The part of a path below ``PySide6/Qt/``; None for what is not Qt's own."""
    _, found, rest = destination.partition("PySide6/Qt/")
    return rest if found else None


def wanted(entry: Entry) -> bool:
    """Whether an entry is used at all, as far as its path says."""
    path, name = below_qt(entry[0]), PurePosixPath(entry[0]).name
    if path is None:
        return not (
            name.endswith(".chk") or (".dist-info/" in entry[0] and name in ("RECORD", "INSTALLER", "REQUESTED"))
        )
    if path.startswith(("qml/", "metatypes/")) or "devtools_resources" in path:
        return False
    if path.startswith("translations/"):
        return path.endswith("/en-US.pak")
    if path.startswith("plugins/"):
        return path.removeprefix("plugins/").startswith(PLUGINS)
    return True


def needed_by(source: str) -> list[str]:
    """The libraries that an ELF file names as needed; none for what is no ELF file."""
    done = subprocess.run(["readelf", "-d", source], capture_output=True, text=True, check=False)
    return [line.partition("[")[2].rstrip("]") for line in done.stdout.splitlines() if "(NEEDED)" in line]


def is_library(entry: Entry) -> bool:
    """Whether an entry is there only for others to link: a library of the host, or one of Qt's."""
    path = below_qt(entry[0])
    name = PurePosixPath(entry[0]).name
    loaded = name.startswith("lib") and ".so" in name and not name.startswith("libpython")
    return loaded and (path is None or path.startswith("lib/"))


def closure(entries: Sequence[Entry], needs: Callable[[str], Iterable[str]] = needed_by) -> list[Entry]:
    """``entries`` without libraries that nothing in it links, and without links to what is not there."""
    by_name: dict[str, list[Entry]] = {}
    for entry in entries:
        by_name.setdefault(PurePosixPath(entry[0]).name, []).append(entry)
    kept = {entry for entry in entries if not is_library(entry)}
    todo = list(kept)
    while todo:
        entry = todo.pop()
        names = [PurePosixPath(entry[1]).name] if entry[2] == "SYMLINK" else list(needs(entry[1]))
        for found in (found for name in names for found in by_name.get(name, ()) if found not in kept):
            kept.add(found)
            todo.append(found)
    return [entry for entry in entries if entry in kept]


def without_dead_links(entries: Sequence[Entry], others: Iterable[Entry]) -> list[Entry]:
    """``entries`` without links to what is neither in them nor in ``others``."""
    there = {PurePosixPath(entry[0]).name for entry in (*entries, *others) if entry[2] != "SYMLINK"}
    return [entry for entry in entries if entry[2] != "SYMLINK" or PurePosixPath(entry[1]).name in there]


def without_host(entries: Iterable[Entry]) -> list[Entry]:
    """``entries`` without what the host gives."""
    return [entry for entry in entries if PurePosixPath(entry[0]).name not in HOST]


def without_build_paths(entries: Iterable[Entry], folder: Path) -> list[Entry]:
    """``entries``, those with places of the building computer in them replaced by copies in ``folder`` without them."""
    found = []
    for destination, source, kind in entries:
        clean = None if kind == "SYMLINK" else without_search_paths(Path(source).read_bytes())
        if clean is not None:
            copy = folder / destination
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(clean)
            copy.chmod(0o755)
            source = str(copy)
        found.append((destination, source, kind))
    return found


def without_search_paths(elf: bytes) -> bytes | None:
    """An ELF file without RPATH and RUNPATH that name other places than its own; None for what has none of those."""
    if elf[:6] != b"\x7fELF\x02\x01":  # 64 bits, little-endian: all that is built for
        return None
    table, size, count = struct.unpack_from("<Q14xHH", elf, 32)
    headers = [struct.unpack_from("<IIQQQQ", elf, table + size * number) for number in range(count)]
    for start, length in ((header[2], header[5]) for header in headers if header[0] == PT_DYNAMIC):
        dynamic = list(struct.iter_unpack("<QQ", elf[start : start + length - length % 16]))
        texts = next((value for tag, value in dynamic if tag == DT_STRTAB), 0)
        loaded = (h for h in headers if h[0] == PT_LOAD and h[3] <= texts < h[3] + h[5])
        place = next((texts - header[3] + header[2] for header in loaded), 0)
        kept = [
            (tag, value)
            for tag, value in dynamic
            if tag not in (DT_RPATH, DT_RUNPATH) or _is_own(elf[place + value : elf.index(b"\0", place + value)])
        ]
        if len(kept) < len(dynamic):
            made = b"".join(struct.pack("<QQ", *entry) for entry in kept).ljust(len(dynamic) * 16, b"\0")
            return elf[:start] + made + elf[start + len(made) :]
    return None


def _is_own(path: bytes) -> bool:
    return all(part.startswith((b"$ORIGIN", b"${ORIGIN}")) for part in path.split(b":") if part)
