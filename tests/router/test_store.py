"""The store keeps what it promised, in order, and says so when it can't."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import blockbuster
import peewee
import pytest

from router.errors import QuorumError, StoreError
from router.store import KEPT_UNITS, Store
from tests.router.store_kit import Broken, disk_full, fill, fsync_failed, opened, rows, small_disk

PUT = "INSERT INTO added_paths (path, added_at) VALUES (?, ?)"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "quorum.db"


def paths(db: peewee.SqliteDatabase) -> list[str]:
    return [name for (name,) in db.execute_sql("SELECT path FROM added_paths ORDER BY added_at")]


class Told:
    """What a store reports about its health, and waiting for it."""

    def __init__(self, store: Store) -> None:
        self.failures: list[str] = []
        self.failed = asyncio.Event()
        self.recovered = asyncio.Event()
        store.on_failure = self._on_failure
        store.on_recovery = self.recovered.set

    def _on_failure(self, message: str) -> None:
        self.failures.append(message)
        self.failed.set()


async def test_whatever_waits_is_committed_as_one_transaction(path: Path) -> None:
    faults = Broken()
    async with opened(path, faults) as store:
        await asyncio.gather(*(store.commit(PUT, (f"/{number}", number)) for number in range(200)))

        assert faults.commits == 1
    assert len(rows(path, "SELECT * FROM added_paths")) == 200


async def test_what_comes_during_a_commit_shares_the_next_one(path: Path) -> None:
    faults = Broken()
    async with opened(path, faults) as store:

        async def submit(name: int) -> None:
            for number in range(20):
                await store.commit(PUT, (f"/{name}-{number}", number))

        await asyncio.gather(*(submit(name) for name in range(16)))

        assert faults.commits <= 2 * 20


async def test_everything_is_done_in_the_order_it_was_asked(path: Path) -> None:
    async with opened(path) as store:
        for number in range(50):
            store.put(PUT, (f"/{number}", 0.0))
            store.put("UPDATE added_paths SET added_at = added_at + 1")
        seen = await store.run(paths)
        store.put("DELETE FROM added_paths")

        assert seen == [f"/{number}" for number in reversed(range(50))]
        assert await store.run(paths) == []


async def test_what_nobody_waits_for_is_written_within_milliseconds(path: Path) -> None:
    faults = Broken()
    async with opened(path, faults) as store:
        store.put(PUT, ("/a", 1.0))

        assert await asyncio.to_thread(faults.committed.wait, 2)
        assert rows(path, "SELECT path FROM added_paths") == [("/a",)]


async def test_closing_writes_what_waits(path: Path) -> None:
    async with opened(path) as store:
        for number in range(500):
            store.put(PUT, (f"/{number}", number))

    assert len(rows(path, "SELECT * FROM added_paths")) == 500


async def test_only_the_statement_that_is_wrong_fails(path: Path) -> None:
    async with opened(path) as store:
        ends = await asyncio.gather(
            *(store.commit(PUT, (None if number == 7 else f"/{number}", number)) for number in range(20)),
            return_exceptions=True,
        )

        assert [number for number, end in enumerate(ends) if end is not None] == [7]
        assert isinstance(ends[7], StoreError)
        assert ends[7].code == "store_failed"
        assert not ends[7].duplicate
        assert len(await store.run(paths)) == 19


async def test_a_broken_unique_rule_is_told_apart(path: Path) -> None:
    async with opened(path) as store:
        await store.commit(PUT, ("/a", 1.0))

        with pytest.raises(StoreError) as failed:
            await store.commit(PUT, ("/a", 2.0))

        assert failed.value.duplicate


async def test_a_function_that_raises_undoes_only_itself_and_its_caller_gets_the_error(path: Path) -> None:
    def half(db: peewee.SqliteDatabase) -> None:
        db.execute_sql(PUT, ("/half", 1.0))
        raise QuorumError("not_found", "There is no such thing.")

    async with opened(path) as store:
        before, ended, after = await asyncio.gather(
            store.commit(PUT, ("/before", 1.0)),
            store.run(half),
            store.commit(PUT, ("/after", 2.0)),
            return_exceptions=True,
        )

        assert (before, after) == (None, None)
        assert isinstance(ended, QuorumError)
        assert ended.code == "not_found"
        assert await store.run(paths) == ["/before", "/after"]
        assert store.healthy


async def test_a_failed_put_is_reported_without_its_values_and_the_writer_goes_on(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with opened(path) as store:
        told = Told(store)
        store.put("INSERT INTO added_paths (path, added_at) VALUES (?, 'secret prompt')", ("/secret",))
        store.put("INSERT INTO no_such_table VALUES (?)", ("secret answer",))
        store.put(PUT, ("/kept", 1.0))

        assert await store.run(paths) == ["/kept"]
        assert len(told.failures) == 2
        assert store.healthy
    assert "secret" not in caplog.text
    assert "secret" not in "".join(told.failures)


@pytest.mark.parametrize("fault", [disk_full, fsync_failed])
@pytest.mark.parametrize("point", ["begin", "before_commit"])
async def test_a_failing_disk_acknowledges_nobody_and_recovers_without_a_restart(
    path: Path, fault: Any, point: str
) -> None:
    faults = Broken()
    async with opened(path, faults) as store:
        told = Told(store)
        faults.point, faults.error = point, fault()
        store.put(PUT, ("/nobody waits", 1.0))
        ends = await asyncio.gather(
            *(store.commit(PUT, (f"/{number}", 2.0)) for number in range(5)), return_exceptions=True
        )

        assert all(isinstance(end, StoreError) and end.status == 503 for end in ends)
        assert not store.healthy
        assert len(told.failures) == 1
        faults.error = None
        async with asyncio.timeout(5):
            await told.recovered.wait()
        assert store.healthy
        assert await store.run(paths) == ["/nobody waits"]


async def test_what_only_reads_works_while_the_disk_is_full_and_is_no_sign_of_recovery(path: Path) -> None:
    faults = Broken()
    async with opened(path, faults) as store:
        await store.commit(PUT, ("/kept", 1.0))
        faults.error = disk_full()
        lost = store.commit(PUT, ("/lost", 2.0))
        read = asyncio.ensure_future(store.read(paths))
        async with asyncio.timeout(5):
            with pytest.raises(StoreError, match="full"):
                await lost
            assert await read == ["/kept"]
            assert await store.read(paths) == ["/kept"]
        assert not store.healthy


async def test_a_full_disk_that_has_room_again_is_noticed_though_nobody_writes(path: Path) -> None:
    faults = Broken()
    async with opened(path, faults) as store:
        told = Told(store)
        faults.error = disk_full()
        with pytest.raises(StoreError, match="full"):
            await store.commit(PUT, ("/a", 1.0))
        faults.error = None

        async with asyncio.timeout(5):
            await told.recovered.wait()
        assert store.healthy


async def test_a_real_full_database_refuses_and_recovers(path: Path) -> None:
    async with opened(path) as store:
        pages = await store.run(lambda db: db.execute_sql("PRAGMA page_count").fetchone()[0])
        await store.run(lambda db: db.execute_sql(f"PRAGMA max_page_count = {pages + 4}").fetchone())
        told = Told(store)
        with pytest.raises(StoreError, match="full"):
            await store.commit(PUT, ("/" + "x" * 100_000, 1.0))
        assert not store.healthy
        store.put(PUT, ("/small", 2.0))
        async with asyncio.timeout(5):
            await told.recovered.wait()

        assert await store.run(paths) == ["/small"]
        await store.run(lambda db: db.execute_sql("PRAGMA max_page_count = 1000000").fetchone())
        await store.commit(PUT, ("/" + "x" * 100_000, 3.0))


async def test_a_disk_that_is_really_full_refuses_and_recovers_when_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path, 2048) as place:
        async with opened(place / "quorum.db") as store:
            told = Told(store)
            await store.commit(PUT, ("/before", 1.0))
            ballast = fill(place)
            with pytest.raises(StoreError, match="full") as failed:
                await store.commit(PUT, ("/" + "x" * 100_000, 2.0))
            assert "space" in failed.value.hint
            store.put(PUT, ("/put", 3.0))
            ballast.unlink()
            async with asyncio.timeout(5):
                await told.recovered.wait()

            await store.commit(PUT, ("/after", 4.0))
        assert rows(place / "quorum.db", "PRAGMA integrity_check") == [("ok",)]
        found = rows(place / "quorum.db", "SELECT path FROM added_paths ORDER BY added_at")
        assert found == [("/before",), ("/put",), ("/after",)]


async def test_while_the_disk_fails_memory_is_bounded_and_the_newest_is_kept(path: Path) -> None:
    faults = Broken()
    async with opened(path, faults) as store:
        told = Told(store)
        faults.error = disk_full()
        for number in range(KEPT_UNITS + 10):
            store.put(PUT, (f"/{number}", number))
        with pytest.raises(StoreError):
            await store.run(paths)
        faults.error = None
        async with asyncio.timeout(10):
            await told.recovered.wait()

        kept = await store.run(paths)
        assert len(kept) == KEPT_UNITS
        assert kept[-1] == f"/{KEPT_UNITS + 9}"
        assert any("dropped" in message for message in told.failures)


async def test_closing_on_a_failing_disk_ends_and_tells_who_waits(path: Path) -> None:
    faults = Broken()
    async with asyncio.timeout(5):
        async with opened(path, faults) as store:
            faults.error = disk_full()
            store.put(PUT, ("/a", 1.0))
            with pytest.raises(StoreError):
                await store.commit(PUT, ("/b", 1.0))
            late = store.commit(PUT, ("/c", 1.0))
        with pytest.raises(StoreError):
            await late


async def test_a_closed_store_refuses_what_somebody_waits_for(path: Path) -> None:
    async with opened(path) as store:
        pass
    store.put(PUT, ("/late", 1.0))

    with pytest.raises(StoreError, match="closed"):
        await store.run(paths)
    await store.close()
    assert rows(path, "SELECT * FROM added_paths") == []


async def test_a_caller_that_gave_up_harms_nobody(path: Path) -> None:
    async with opened(path) as store:
        left = store.commit(PUT, ("/left", 1.0))
        left.cancel()

        await store.commit(PUT, ("/stayed", 2.0))
        assert await store.run(paths) == ["/left", "/stayed"]


async def test_the_loop_never_touches_the_database_or_the_disk(path: Path) -> None:
    with blockbuster.blockbuster_ctx():
        async with opened(path) as store:
            store.put(PUT, ("/a", 1.0))
            await store.commit(PUT, ("/b", 2.0))

            assert await store.run(paths) == ["/a", "/b"]
