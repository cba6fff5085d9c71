"""What ``dev.py build`` makes, and what it refuses to freeze."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import router
from tests.app.rig import ROOT

sys.path.insert(0, str(ROOT / "packaging"))

import build  # type: ignore[import-not-found] # lies in packaging, which is no import package
import debian  # type: ignore[import-not-found] # the same


def test_the_version_is_the_routers() -> None:
    assert build.version() == router.__version__


def test_a_page_is_whole_when_everything_it_names_is_there(tmp_path: Path) -> None:
    assert not build.page_is_whole(tmp_path)
    (tmp_path / "index.html").write_text('<link href="./a.css"><script src="./assets/b.js"></script>')
    (tmp_path / "a.css").touch()
    assert not build.page_is_whole(tmp_path)
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "b.js").touch()

    assert build.page_is_whole(tmp_path)


def test_the_sums_are_what_sha256sum_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "DIST", tmp_path)
    (tmp_path / "b.deb").write_bytes(b"b")
    (tmp_path / "a.deb").write_bytes(b"a")

    build.write_sums([tmp_path / "b.deb", tmp_path / "a.deb"])

    done = subprocess.run(
        ["sha256sum", "--check", "SHA256SUMS"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "a.deb: OK\nb.deb: OK\n"


@pytest.mark.skipif(sys.platform != "linux", reason="ELF files are Linux's")
def test_the_package_asks_for_the_c_library_that_its_program_needs(tmp_path: Path) -> None:
    (tmp_path / "program").write_bytes(Path("/bin/true").read_bytes())
    (tmp_path / "text").write_text("no program")

    assert [path.name for path in debian.elf_files(tmp_path)] == ["program"]
    major, minor = debian.libc_floor(tmp_path).split(".")
    assert (int(major), int(minor)) >= (2, 34)


def test_an_appimage_is_made_only_where_its_tool_is() -> None:
    script = ROOT / "packaging" / "appimage" / "make.sh"
    done = subprocess.run(
        ["/bin/sh", script], env={"PATH": "/usr/bin:/bin", "QUORUM_APPIMAGETOOL": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    assert "no appimagetool" in done.stderr
