"""What stays in the frozen program."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "packaging"))

import trim  # type: ignore[import-not-found] # lies in packaging, which is no import package


@pytest.mark.parametrize(
    ("destination", "stays"),
    [
        ("PySide6/Qt/qml/QtQuick/qmldir", False),
        ("PySide6/Qt/resources/qtwebengine_devtools_resources.pak", False),
        ("PySide6/Qt/resources/icudtl.dat", True),
        ("PySide6/Qt/translations/qtbase_de.qm", False),
        ("PySide6/Qt/translations/qtwebengine_locales/en-US.pak", True),
        ("PySide6/Qt/plugins/platforms/libqxcb.so", True),
        ("PySide6/Qt/plugins/platforms/libqvnc.so", False),
        ("keyring-25.7.0.dist-info/entry_points.txt", True),
        ("keyring-25.7.0.dist-info/RECORD", False),
        ("app/window.py", True),
    ],
)
def test_only_what_is_used_stays(destination: str, stays: bool) -> None:
    assert trim.wanted((destination, "/source", "DATA")) is stays


def test_a_library_stays_while_something_links_it() -> None:
    needs = {"/a.so": ["libb.so.1"], "/b": ["libc.so.1"], "/c": [], "/d": []}
    entries = [
        ("a.so", "/a.so", "EXTENSION"),
        ("libb.so.1", "/b", "BINARY"),
        ("libc.so.1", "/c", "BINARY"),
        ("libd.so.1", "/d", "BINARY"),
        ("libpython3.11.so.1.0", "/d", "BINARY"),
    ]

    kept = trim.closure(entries, lambda source: needs[source])

    assert [entry[0] for entry in kept] == ["a.so", "libb.so.1", "libc.so.1", "libpython3.11.so.1.0"]


def test_links_to_what_is_gone_go_too() -> None:
    entries = [("liba.so", "Qt/lib/liba.so", "SYMLINK"), ("libb.so", "Qt/lib/libb.so", "SYMLINK")]

    assert trim.without_dead_links(entries, [("Qt/lib/liba.so", "/a", "BINARY")]) == entries[:1]


def test_the_hosts_c_runtime_is_never_taken_along() -> None:
    entries = [("libstdc++.so.6", "/s", "BINARY"), ("libssl.so.3", "/t", "BINARY")]

    assert trim.without_host(entries) == entries[1:]


def search_paths(path: Path) -> list[str]:
    done = subprocess.run(["readelf", "-d", path], capture_output=True, text=True, check=True)
    return re.findall(r"\((?:RPATH|RUNPATH)\).*\[(.*)\]", done.stdout)


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("gcc"), reason="a library is made with gcc")
def test_places_of_the_building_computer_are_taken_out(tmp_path: Path) -> None:
    (tmp_path / "one.c").write_text("int one(void) { return 1; }")
    libraries = {}
    for name, path in (("own", "$ORIGIN:$ORIGIN/../lib"), ("foreign", "/root/somewhere/lib:$ORIGIN"), ("none", "")):
        libraries[name] = tmp_path / f"lib{name}.so"
        flags = [f"-Wl,-rpath,{path}"] if path else []
        subprocess.run(["gcc", "-shared", "-o", libraries[name], tmp_path / "one.c", *flags], check=True)
    entries = [(path.name, str(path), "BINARY") for path in libraries.values()]
    entries.append(("libagain.so", "libown.so", "SYMLINK"))

    found = trim.without_build_paths(entries, tmp_path / "clean")

    assert [source for _, source, _ in found] == [
        str(libraries["own"]), str(tmp_path / "clean" / "libforeign.so"), str(libraries["none"]), "libown.so",
    ]  # fmt: skip
    assert search_paths(libraries["foreign"])
    assert search_paths(tmp_path / "clean" / "libforeign.so") == []
    asked = f"import ctypes; print(ctypes.CDLL({str(tmp_path / 'clean' / 'libforeign.so')!r}).one())"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_what_is_no_library_stays_as_it_is() -> None:
    assert trim.without_search_paths(b"") is None
    assert trim.without_search_paths(b"MZ\x90\x00") is None
