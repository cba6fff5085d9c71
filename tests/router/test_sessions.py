"""Sessions outlive a restart; digests are good while the file is the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.errors import BadRequestError
from router.sessions import ModelFiles, Sessions
from tests.router.store_kit import Clock, opened, rows


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "quorum.db"


async def test_a_session_outlives_a_restart(path: Path) -> None:
    async with opened(path) as store:
        sessions = Sessions(store, Clock())
        await sessions.open()
        assert not sessions.known("hash")
        await sessions.add("hash")
        await sessions.add("hash")
        assert sessions.known("hash")
    async with opened(path) as store:
        sessions = Sessions(store, Clock())
        await sessions.open()
        assert sessions.known("hash")
        sessions.remove("hash")
        assert not sessions.known("hash")
    assert rows(path, "SELECT * FROM sessions") == []


async def test_a_sessions_use_is_noted_once_an_hour(path: Path) -> None:
    clock = Clock(1000.0)
    async with opened(path) as store:
        sessions = Sessions(store, clock)
        await sessions.open()
        await sessions.add("hash")
        for clock.now in (1010.0, 5000.0, 5010.0):
            assert sessions.known("hash")
    assert rows(path, "SELECT created_at, used_at FROM sessions") == [(1000.0, 5000.0)]


async def test_sessions_are_bounded_and_the_one_used_longest_ago_leaves(path: Path) -> None:
    clock = Clock()
    async with opened(path) as store:
        sessions = Sessions(store, clock)
        await sessions.open()
        for number in range(Sessions.MOST + 3):
            clock.now += 1
            await sessions.add(f"hash{number}")
        assert not sessions.known("hash2")
        assert sessions.known("hash3")
    assert rows(path, "SELECT count(*) FROM sessions") == [(Sessions.MOST,)]


async def test_a_digest_is_good_for_the_same_size_and_time_only(path: Path) -> None:
    async with opened(path) as store:
        files = ModelFiles(store, Clock())
        await files.open()
        files.put_digest("/m.gguf", 10, 20, "old")
        files.put_digest("/m.gguf", 10, 30, "new")
    async with opened(path) as store:
        files = ModelFiles(store, Clock())
        await files.open()
        assert files.digest("/m.gguf", 10, 30) == "new"
        assert files.digest("/m.gguf", 10, 20) is None
        assert files.digest("/other.gguf", 10, 30) is None


async def test_added_paths_stay_in_order_until_they_are_removed(path: Path) -> None:
    clock = Clock()
    async with opened(path) as store:
        files = ModelFiles(store, clock)
        await files.open()
        for name in ("/z", "/a", "/z", "/k"):
            clock.now += 1
            await files.add_path(name)
        await files.remove_path("/a")
    async with opened(path) as store:
        files = ModelFiles(store, clock)
        await files.open()
        assert files.added_paths() == ["/z", "/k"]


async def test_a_file_name_that_is_no_text_is_refused_or_kept_in_memory_only(path: Path) -> None:
    name = "/caf\udce9.gguf"
    async with opened(path) as store:
        files = ModelFiles(store, Clock())
        await files.open()
        files.put_digest(name, 1, 2, "digest")
        assert files.digest(name, 1, 2) == "digest"
        with pytest.raises(BadRequestError, match="UTF-8"):
            await files.add_path(name)
    assert rows(path, "SELECT * FROM model_files") == []
