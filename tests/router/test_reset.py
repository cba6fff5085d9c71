"""After a reset the folder is as on the first day; nothing of others is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.database import close_database, open_database
from router.identity import load_identity
from router.reset import own, reset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    load_identity(tmp_path)
    db, _ = open_database(tmp_path / "quorum.db")
    db.execute_sql(
        "INSERT INTO nodes (id, name, stance, addresses_json, grants_json, overrides_json, record_json, created_at, "
        "paired_at) VALUES ('abc', 'studio', 'paired', '[]', '[]', '{}', '{}', 1, 2)"
    )
    db.execute_sql(
        "INSERT INTO chats (id, title, model, options_json, created_at, updated_at) VALUES ('c', 't', 'm', '{}', 1, 1)"
    )
    close_database(db)
    for name in ("settings.json", "models/a.gguf", "files/f", "quorum.log.1", "peers.secrets", "mine.txt", "photos/p"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    return tmp_path


def rows(folder: Path, table: str) -> int:
    db, _ = open_database(folder / "quorum.db")
    try:
        return int(db.execute_sql(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608 # names of this test
    finally:
        close_database(db)


def test_everything_of_quorum_goes_and_nothing_else(folder: Path) -> None:
    assert reset(folder, keep_models=False, keep_identity=False) == ["mine.txt", "photos"]


def test_models_can_stay(folder: Path) -> None:
    assert reset(folder, keep_models=True, keep_identity=False) == ["mine.txt", "models", "photos"]
    assert (folder / "models" / "a.gguf").exists()


def test_it_can_stay_the_same_computer_with_the_same_friends(folder: Path) -> None:
    before = load_identity(folder).node_id

    reset(folder, keep_models=False, keep_identity=True)

    assert load_identity(folder).node_id == before
    assert (folder / "peers.secrets").exists()
    assert rows(folder, "nodes") == 1
    assert rows(folder, "chats") == 0
    assert not (folder / "settings.json").exists()


def test_links_are_removed_and_not_what_they_lead_to(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "big.gguf").write_text("x")
    (folder / "files" / "f").unlink()
    (folder / "files").rmdir()
    (folder / "files").symlink_to(elsewhere)

    reset(folder, keep_models=False, keep_identity=False)
    assert (elsewhere / "big.gguf").exists()
    assert not (folder / "files").exists()


def test_what_would_go_is_told_before(folder: Path) -> None:
    names = {path.name for path in own(folder, keep_models=True, keep_identity=True)}

    assert {"quorum.db", "settings.json", "files"} <= names
    assert not names & {"models", "node.key", "node.crt", "peers.secrets", "mine.txt"}


def test_a_second_time_and_an_empty_folder_are_fine(folder: Path) -> None:
    reset(folder, keep_models=False, keep_identity=False)
    assert own(folder, keep_models=False, keep_identity=False) == []
    assert reset(folder, keep_models=False, keep_identity=True) == ["mine.txt", "photos"]
