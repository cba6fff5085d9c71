"""A start asks the disk once, and knows where an update may have left it."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest

from app.update import finish, journal
from app.update.start import begin, work_of


def test_the_place_of_updates_is_found_from_everywhere(tmp_path: Path) -> None:
    work = tmp_path / ".quorum.update"

    assert work_of(tmp_path / "quorum" / "quorum") == work
    assert work_of(work / "previous" / "quorum") == work
    assert work_of(Path("/A/Quorum.app/Contents/MacOS/quorum")) == Path("/A/.Quorum.app.update")


@pytest.mark.parametrize(
    ("words", "counts"),
    [
        ([], True),
        (["--hidden"], True),
        (["--data-dir", "/d", "serve"], True),
        (["serve"], True),
        (["status"], False),
        (["selftest", "--json"], False),
    ],
)
def test_only_starts_of_a_node_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], counts: bool
) -> None:
    asked = Mock()
    monkeypatch.setattr(finish, "begin", asked)
    begin(words, tmp_path / "quorum" / "quorum")
    asked.assert_not_called()

    work = tmp_path / ".quorum.update"
    work.mkdir()
    (work / journal.FILE).write_text("{}")
    begin(words, tmp_path / "quorum" / "quorum")

    asked.assert_called_once_with(work, counts=counts)
