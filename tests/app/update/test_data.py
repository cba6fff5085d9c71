"""A new version that migrates and then does not start leaves the old one its database."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from app.update.data import restore
from app.update.journal import Journal
from router import migrations
from router.database import close_database, open_database
from router.errors import StartError

PLAN = Journal("/a/q", "/a/q/quorum", "0.2.0", "0.1.0", "/a/.q.update/staged", old_inode=7)


def version(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "quorum.db")) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


def test_the_old_version_reads_its_database_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "quorum.db"
    db, _ = open_database(path)
    db.execute_sql(
        "INSERT INTO chats (id, title, model, options_json, created_at, updated_at) VALUES ('c', 't', 'm', '{}', 1, 1)"
    )
    close_database(db)
    before = version(tmp_path)
    plan = PLAN.now(data_dir=str(tmp_path), prepared_at=path.stat().st_mtime - 1)

    with monkeypatch.context() as newer:  # the new version: one migration more
        newer.setattr(
            migrations, "MIGRATIONS", [*migrations.MIGRATIONS, lambda db: db.execute_sql("CREATE TABLE n (x)")]
        )
        close_database(open_database(path)[0])
    assert version(tmp_path) == before + 1
    with pytest.raises(StartError, match="newer version"):
        open_database(path)

    assert restore(plan)
    db, report = open_database(path)
    assert db.execute_sql("SELECT title FROM chats").fetchall() == [("t",)]
    close_database(db)
    assert report.notice == ""
    assert (tmp_path / "quorum.db.newer-0.2.0").exists()
    assert path.stat().st_mode & 0o777 == 0o600


def test_without_a_migration_nothing_is_touched(tmp_path: Path) -> None:
    close_database(open_database(tmp_path / "quorum.db")[0])
    old = tmp_path / "quorum.db.version-1-20200101-000000-ab"
    old.write_text("of an update long ago")
    os.utime(old, (1000, 1000))
    before = (tmp_path / "quorum.db").read_bytes()

    assert not restore(PLAN.now(data_dir=str(tmp_path), prepared_at=2000.0))
    assert not restore(PLAN)
    assert (tmp_path / "quorum.db").read_bytes() == before
