"""What the data folder takes, by kind."""

from __future__ import annotations

from pathlib import Path

from router.database import close_database, open_database
from router.disk_use import disk_use


def test_every_file_counts_once_and_bodies_are_known(tmp_path: Path) -> None:
    db, _ = open_database(tmp_path / "quorum.db")
    db.execute_sql("PRAGMA foreign_keys = 0")
    db.execute_sql("INSERT INTO bodies (job, request, answer, created_at) VALUES (1, x'0102', x'030405', 0)")
    close_database(db)
    for name, size in {
        "models/a.gguf": 1000,
        "models/more/b.gguf": 500,
        "quorum.db.version-1-x": 70,
        "quorum.db.damaged-x-wal": 7,
        "quorum.log": 40,
        "quorum.log.1": 2,
        "files/f": 3,
        "settings.json": 1,
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(bytes(size))

    use = disk_use(tmp_path)

    assert (use.models_bytes, use.backups_bytes, use.logs_bytes, use.other_bytes) == (1500, 77, 42, 4)
    assert use.database_bytes == (tmp_path / "quorum.db").stat().st_size
    assert use.bodies_bytes == 5
    assert use.free_bytes > 0


def test_a_folder_without_a_database_is_fine(tmp_path: Path) -> None:
    assert disk_use(tmp_path).database_bytes == 0
    (tmp_path / "quorum.db").write_bytes(b"no database at all")
    assert disk_use(tmp_path).bodies_bytes == 0
