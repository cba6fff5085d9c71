"""Each piece of somebody else's software has its licence's text in the program."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.app.rig import ROOT
from tests.packaging.program import Frozen

sys.path.insert(0, str(ROOT / "packaging"))

import licences  # type: ignore[import-not-found] # lies in packaging, which is no import package


def rows(folder: Path) -> dict[str, list[str]]:
    """The table of THIRD_PARTY.md: the name of each part with the names of its texts."""
    lines = (folder / "THIRD_PARTY.md").read_text("utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")][1:]
    return {name: texts.split(", ") for name, _, _, texts in cells}


@pytest.mark.package
@pytest.mark.timeout(900)
def test_everything_in_the_program_has_its_text(frozen: Frozen) -> None:
    inside = frozen.program.parent / "_internal"
    table = rows(inside / "LICENSES")

    for name, texts in table.items():
        for text in texts:
            assert len((inside / "LICENSES" / licences.folder_name(name) / text).read_text("utf-8", "replace")) > 150, (
                name
            )
    known = {re.sub(r"[-_.]+", "-", name).lower() for name in table}
    assert {"python", "quorum", "pyinstaller", "smollm2-135m-instruct", "svelte", "xllamacpp"} <= known
    brought = {re.sub(r"[-_.]+", "-", path.name).lower() for path in inside.iterdir() if path.is_dir()}
    ours = {"assets", "licenses", "router", "python3-11", "pyside6", "webview"}
    assert {name for name in brought if not name.endswith("-dist-info")} - ours <= known


@pytest.mark.package
@pytest.mark.timeout(900)
def test_every_debian_library_in_it_is_listed(frozen: Frozen) -> None:
    inside = frozen.program.parent / "_internal"
    listed = "\n".join(rows(inside / "LICENSES"))
    for library in inside.glob("lib*.so*"):
        if not library.is_symlink() and not library.name.startswith("libpython"):
            stem = library.name.partition(".so")[0].lower().replace("_", "-")
            assert stem in listed.lower() or stem in ("libcrypto", "libsqlite3"), library.name


def test_the_list_of_the_pages_packages_is_that_of_its_source_maps(tmp_path: Path) -> None:
    vite = ROOT / "ui" / "node_modules" / ".bin" / "vite"
    if not vite.exists():
        pytest.skip("the page's packages are not installed")
    command = [str(vite), "build", "--sourcemap", "--outDir", str(tmp_path / "page"), "--logLevel", "error"]
    done = subprocess.run(command, cwd=ROOT / "ui", capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr

    used = {
        name
        for path in (tmp_path / "page").rglob("*.map")
        for name in re.findall(r"node_modules/((?:@[^/\"]+/)?[^/\"]+)/", path.read_text("utf-8"))
    }
    assert used
    assert used <= set(licences.BUNDLED_NPM)


def test_a_part_without_a_text_stops_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(licences, "page_parts", list)
    monkeypatch.setattr(licences, "bootloader", lambda: licences.Part("bare", "1", "MIT"))

    with pytest.raises(ValueError, match="no licence text for bare"):
        licences.gather([], tmp_path / "LICENSE")
