"""``quorum --licences``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from app.__main__ import main


def test_a_clone_says_that_it_brings_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--licences"]) == 1

    assert "runs from a clone" in capsys.readouterr().err


def test_the_frozen_program_shows_its_list_and_where_the_texts_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "LICENSES").mkdir()
    (tmp_path / "LICENSES" / "THIRD_PARTY.md").write_text("| part | licence |")
    monkeypatch.setattr(sys, "_MEIPASS", str(tmp_path), raising=False)

    assert main(["--licences"]) == 0

    assert capsys.readouterr().out == f"| part | licence |\n\nThe texts lie in {tmp_path / 'LICENSES'}.\n"
