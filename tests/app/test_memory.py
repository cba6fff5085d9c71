"""What the window remembers."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.memory import Memory, recall, save


def test_what_was_saved_is_recalled(tmp_path: Path) -> None:
    kept = Memory(x=-5, y=40, width=900, height=700, maximized=True, zoom=1.25, software=True, drawn_on="here")

    save(kept, tmp_path / "window.json")

    assert recall(tmp_path / "window.json") == kept
    assert (tmp_path / "window.json").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("text", ["", "{", "[]", '{"width": "wide"}', '{"x": 1e400}'])
def test_a_broken_memory_is_a_new_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "window.json").write_text(text)

    assert recall(tmp_path / "window.json") == Memory()


def test_absurd_sizes_and_zooms_are_brought_into_bounds(tmp_path: Path) -> None:
    (tmp_path / "window.json").write_text('{"width": 3, "height": 999999, "zoom": 90}')

    memory = recall(tmp_path / "window.json")

    assert (memory.width, memory.height, memory.zoom) == (640, 16_384, 3.0)


def test_a_folder_that_cannot_be_written_costs_nothing(tmp_path: Path) -> None:
    save(Memory(), tmp_path / "missing" / "window.json")

    assert list(tmp_path.iterdir()) == []
