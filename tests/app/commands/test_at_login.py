"""``quorum --at-login``: the entry of the whole system starts Quorum only for those who asked for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.__main__ import main
from app.commands.at_login import wanted
from router.settings import NodeOptions


@pytest.mark.parametrize(
    ("settings", "expected"),
    [(None, False), ("{}", False), ('{"start_at_login": true}', True), ("{broken", False)],
)
def test_the_setting_decides_and_one_that_cannot_be_read_is_off(
    tmp_path: Path, settings: str | None, expected: bool
) -> None:
    if settings is not None:
        (tmp_path / "settings.json").write_text(settings)

    assert wanted(NodeOptions(data_dir=tmp_path)) is expected


def test_an_administrator_can_ask_for_everybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUORUM_START_AT_LOGIN", "1")

    assert wanted(NodeOptions(data_dir=tmp_path))


def test_who_did_not_ask_gets_nothing_not_even_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--at-login", "--data-dir", str(tmp_path / "data")]) == 0

    assert not (tmp_path / "data").exists()
    assert capsys.readouterr() == ("", "")
