"""The writer thread under SIGKILL and under a system whose syncs fail: what was acknowledged is there."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import peewee
import pytest

from router.database import tidy
from router.work import Put
from router.writer import Faults, Writer
from tests.router.store_kit import opened, rows

ROOT = Path(__file__).resolve().parents[2]
CHILD = Path(__file__).with_name("store_child.py")
ROUNDS = int(os.environ.get("QUORUM_TEST_KILL_ROUNDS", "200"))
NO_FSYNC = Path(__file__).parents[1] / "fixtures" / "no_fsync.c"


def child(path: Path, prefix: str, *options: str, **environ: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, str(CHILD), str(path), prefix, *options],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
    )


def heard(process: subprocess.Popen[bytes], kill_after: int | None = None) -> list[str]:
    """The whole lines a child wrote until its death, which comes by SIGKILL after ``kill_after`` of them."""
    assert process.stdout is not None
    lines = []
    with process, process.stdout as out:
        while line := out.readline():
            if line.endswith(b"\n"):
                lines.append(line.decode().strip())
            if len(lines) == kill_after:
                process.kill()
    assert process.returncode == -signal.SIGKILL
    assert lines[0] == "started"
    return lines[1:]


def check(path: Path, acknowledged: list[str]) -> None:
    """Every acknowledged job is there once, with its body where one is kept, and the file is whole."""
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]
    assert rows(path, "PRAGMA foreign_key_check") == []
    found = {
        job_id: (state, body)
        for job_id, state, body in rows(path, "SELECT id, state, request FROM jobs LEFT JOIN bodies ON job = row_id")
    }
    assert set(acknowledged) <= set(found)
    for job_id in acknowledged:
        state, body = found[job_id]
        kept = int(job_id.rsplit("-", 1)[1]) % 2 == 0
        assert body == (job_id.encode() if kept or state != "done" else None), (job_id, state)


@pytest.mark.timeout(600)
def test_no_acknowledged_job_is_lost_when_the_process_is_killed_at_random_moments(tmp_path: Path) -> None:
    path, acknowledged = tmp_path / "quorum.db", []
    for number in range(ROUNDS):
        lines = heard(child(path, f"r{number}"), kill_after=1 + secrets.randbelow(400))
        acknowledged += lines
        check(path, acknowledged)

    assert len(acknowledged) >= ROUNDS / 2


@pytest.mark.parametrize("point", ["begin", "before_commit", "after_commit"])
@pytest.mark.parametrize("number", [1, 2, 7, 40])
@pytest.mark.timeout(600)
def test_no_acknowledged_job_is_lost_when_the_process_dies_at_a_named_point(
    tmp_path: Path, point: str, number: int
) -> None:
    path = tmp_path / "quorum.db"
    process = child(path, "p", point, str(number + 1))  # the first transaction is the opening of the rows
    check(path, heard(process))


@pytest.fixture(scope="module")
def no_fsync(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that makes every sync fail while the file named by NO_FSYNC_WHILE exists."""
    if sys.platform != "linux" or shutil.which("cc") is None:
        pytest.skip("needs Linux and a C compiler")
    library = tmp_path_factory.mktemp("no_fsync") / "no_fsync.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(NO_FSYNC), "-ldl"], check=True)
    return library


PROGRAM = """
import asyncio, sys
from pathlib import Path
from router.errors import StoreError
from router.store import Store

async def main(path, switch):
    store = Store(path)
    await store.open()
    recovered = asyncio.Event()
    store.on_recovery = recovered.set
    await store.commit("INSERT INTO added_paths VALUES ('/before', 1)")
    switch.touch()
    store.put("INSERT INTO added_paths VALUES ('/put', 2)")
    for _ in range(3):
        try:
            await store.commit("INSERT INTO added_paths VALUES ('/refused', 3)")
        except StoreError as error:
            print("refused", store.healthy, error.message)
    switch.unlink()
    await asyncio.wait_for(recovered.wait(), 10)
    await store.commit("INSERT INTO added_paths VALUES ('/after', 4)")
    print("recovered", store.healthy)
    await store.close()

asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
"""


def test_when_the_system_cannot_sync_nothing_is_acknowledged_until_it_can(tmp_path: Path, no_fsync: Path) -> None:
    path, switch = tmp_path / "quorum.db", tmp_path / "fail"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), str(switch)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "LD_PRELOAD": str(no_fsync), "NO_FSYNC_WHILE": str(switch)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert [line.split()[:2] for line in said] == [["refused", "False"]] * 3 + [["recovered", "True"]]
    assert "SQLITE_IOERR" in said[0]
    assert rows(path, "SELECT path FROM added_paths ORDER BY added_at") == [("/before",), ("/put",), ("/after",)]
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


async def test_an_idle_writer_empties_the_log_so_that_deleted_text_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tidied = threading.Event()

    def noted(db: peewee.SqliteDatabase) -> None:
        tidy(db)
        tidied.set()

    monkeypatch.setattr("router.writer.IDLE_S", 0.01)
    monkeypatch.setattr("router.writer.tidy", noted)
    path = tmp_path / "quorum.db"
    async with opened(path) as store:
        await store.commit("INSERT INTO added_paths VALUES (?, 1)", ("/secret prompt",))
        await store.commit("DELETE FROM added_paths")
        tidied.clear()
        assert await asyncio.to_thread(tidied.wait, 5)

        assert path.with_name("quorum.db-wal").stat().st_size == 0
        assert b"secret prompt" not in path.read_bytes()


def test_a_loop_that_ended_first_leaves_a_thread_that_still_ends(tmp_path: Path) -> None:
    async def start() -> Writer:
        writer = Writer(tmp_path / "quorum.db", lambda units, errors: None, Faults())
        await writer.start()
        return writer

    writer = asyncio.run(start())
    thread = next(thread for thread in threading.enumerate() if thread.name == "store")
    writer.batches.put([Put("INSERT INTO added_paths VALUES ('/late', 1)")])
    writer.batches.put(None)
    thread.join(5)

    assert not thread.is_alive()
    assert rows(tmp_path / "quorum.db", "SELECT path FROM added_paths") == [("/late",)]
