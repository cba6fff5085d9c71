"""What programs of others get when this one starts them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from app.others import browse, environment
from app.service_units import run

ADDRESS = "https://elsewhere.test/?a=1&b=2"


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """As PyInstaller's loader leaves it."""
    told = {"LD_LIBRARY_PATH": "/ours", "_PYI_ARCHIVE_FILE": "/ours/quorum"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "frozen", True, raising=False)


def test_another_program_gets_the_environment_of_before_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"LD_LIBRARY_PATH": "/ours", "LD_LIBRARY_PATH_ORIG": "/theirs", "_PYI_ARCHIVE_FILE": "/ours/quorum"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "frozen", True, raising=False)

    found = environment()
    assert (found["LD_LIBRARY_PATH"], found["PYINSTALLER_RESET_ENVIRONMENT"]) == ("/theirs", "1")
    assert not {"LD_LIBRARY_PATH_ORIG", "_PYI_ARCHIVE_FILE"} & found.keys()
    monkeypatch.delenv("LD_LIBRARY_PATH_ORIG")
    assert "LD_LIBRARY_PATH" not in environment()


@pytest.mark.skipif(sys.platform != "linux", reason="only there libraries of ours come before those of the system")
def test_a_browser_does_not_find_our_libraries(frozen: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opener = tmp_path / "xdg-open"
    opener.write_text(f'#!/bin/sh\necho "$1 ${{LD_LIBRARY_PATH-none}}" >{tmp_path}/told\n')
    opener.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    browse(ADDRESS)

    assert (tmp_path / "told").read_text() == f"{ADDRESS} none\n"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no printenv")
def test_nor_do_the_tools_of_the_system(frozen: None) -> None:
    assert run(["printenv", "LD_LIBRARY_PATH"]) == (1, "")


def test_from_a_clone_the_usual_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)

    browse(ADDRESS)

    assert opened == [ADDRESS]
