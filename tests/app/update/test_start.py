"""A start asks the disk once, and knows where an update may have left it."""

from __future__ import annotations

import os
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
        (["--version"], False),
        (["--data-dir", "/d", "--help"], False),
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
    work.mkdir(mode=0o700)
    (work / journal.FILE).write_text("{}")
    begin(words, tmp_path / "quorum" / "quorum")

    asked.assert_called_once_with(work, counts=counts)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="owners of POSIX")
@pytest.mark.parametrize("theirs", ["writable by others", "a link", "another owner"])
def test_a_journal_that_somebody_else_may_have_put_there_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: str
) -> None:
    asked = Mock()
    monkeypatch.setattr(finish, "begin", asked)
    work = tmp_path / ".quorum.update"
    place = tmp_path / "elsewhere" if theirs == "a link" else work
    place.mkdir(mode=0o700)
    (place / journal.FILE).write_text("{}")
    if theirs == "a link":
        work.symlink_to(place)
    elif theirs == "writable by others":
        work.chmod(0o777)
    else:
        monkeypatch.setattr("os.geteuid", lambda: 12345)

    begin([], tmp_path / "quorum" / "quorum")
    asked.assert_not_called()
