"""The journal is whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.update import journal
from app.update.journal import Journal, Step

PLAN = Journal("/a/q", "/a/q/quorum", "0.2.0", "0.1.0", "/a/.q.update/staged", 7, ["--data-dir", "/d"], pid=3)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    journal.write(tmp_path, PLAN.now(step=Step.TRIAL, starts=1))

    assert journal.read(tmp_path) == PLAN.now(step=Step.TRIAL, starts=1)
    assert [file.name for file in tmp_path.iterdir()] == [journal.FILE]
    assert PLAN.previous == Path("/a/.q.update/previous")


def test_no_journal_and_a_broken_one_are_none(tmp_path: Path) -> None:
    assert journal.read(tmp_path) is None
    for text in ("", "{}", "[]", '{"step": "elsewhere"}', '{"step": "ready", "unknown": 1}'):
        (tmp_path / journal.FILE).write_text(text)
        assert journal.read(tmp_path) is None


def test_one_that_was_removed_is_gone(tmp_path: Path) -> None:
    journal.write(tmp_path, PLAN)
    journal.remove(tmp_path)
    journal.remove(tmp_path)

    assert journal.read(tmp_path) is None


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({}, True),
        ({"root": "/b/q"}, False),
        ({"program": "/usr/bin/evil"}, False),
        ({"program": "/a/q/../evil"}, False),
        ({"staged": "/a/elsewhere/staged"}, False),
    ],
)
def test_it_counts_only_for_the_program_it_lies_beside(changes: dict[str, str], fits: bool) -> None:
    assert PLAN.now(**changes).fits(Path("/a/.q.update")) is fits
