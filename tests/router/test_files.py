"""Files are whole on the disk or not there at all, for their owner only, and leave when their time is over."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from router.errors import BadRequestError, StartError, StoreError
from router.files import KEPT_S, MIB, FileRow, Files
from router.store import Store
from tests.router.store_kit import Broken, Clock, disk_full, fill, opened, small_disk


class Kit:
    """Files over a store in a folder of its own."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.clock = Clock()
        self.room = 10 * MIB
        self.folder = folder
        self.files = Files(store, folder, self.clock, lambda: self.room)

    async def add(self, content: bytes = b"line\n", key_id: str | None = None, keep_s: float = KEPT_S) -> FileRow:
        draft = self.files.draft(MIB * 5)
        await draft.write(content)
        return await self.files.keep(draft, filename="f.jsonl", purpose="batch", key_id=key_id, keep_s=keep_s)

    def names(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()}


@pytest.fixture
async def kit(tmp_path: Path) -> AsyncIterator[Kit]:
    async with opened(tmp_path / "quorum.db") as store:
        made = Kit(store, tmp_path / "files")
        await made.files.open()
        yield made


async def test_a_file_is_kept_with_what_was_written_for_its_owner_alone(kit: Kit) -> None:
    row = await kit.add(b"a" * (2 * MIB) + b"end")

    path = kit.files.place_of(row.id)
    assert path.read_bytes() == b"a" * (2 * MIB) + b"end"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(kit.folder.stat().st_mode) == 0o700
    assert (row.size, row.expires_at) == (2 * MIB + 3, kit.clock.now + KEPT_S)
    assert await kit.files.get(row.id, None) == row


async def test_an_empty_file_is_a_file(kit: Kit) -> None:
    assert (await kit.add(b"")).size == 0


async def test_a_discarded_draft_leaves_nothing(kit: Kit) -> None:
    draft = kit.files.draft()
    await draft.write(b"x" * (2 * MIB))
    assert kit.names()

    await draft.discard()

    assert kit.names() == set()


async def test_a_draft_stops_at_its_bound(kit: Kit) -> None:
    draft = kit.files.draft(10)

    with pytest.raises(BadRequestError) as refused:
        await draft.write(b"x" * 11)

    assert (refused.value.code, refused.value.status) == ("payload_too_large", 413)


async def test_a_full_room_takes_no_more_until_something_is_deleted(kit: Kit) -> None:
    kit.room = 8
    row = await kit.add(b"12345")
    with pytest.raises(BadRequestError):
        await kit.add(b"12345")

    await kit.files.delete(row)

    assert (await kit.add(b"12345")).size == 5
    assert len(kit.names()) == 1


async def test_a_key_sees_its_own_files_only(kit: Kit) -> None:
    row = await kit.add(key_id="a")

    assert await kit.files.get(row.id, "a") == row
    assert await kit.files.get(row.id, None) == row
    assert await kit.files.get(row.id, "b") is None
    assert await kit.files.page("b", purpose=None, after=None, limit=9, ascending=False) == []


@pytest.mark.parametrize("file_id", ["", "x", "../quorum.db", "file-1", "file-" + "A" * 27])
async def test_what_is_no_id_finds_nothing(kit: Kit, file_id: str) -> None:
    assert await kit.files.get(file_id, None) is None


async def test_pages_go_on_in_both_directions(kit: Kit) -> None:
    rows = []
    for _ in range(3):
        kit.clock.now += 1
        rows.append(await kit.add())

    newest = await kit.files.page(None, purpose="batch", after=rows[2].id, limit=1, ascending=False)
    oldest = await kit.files.page(None, purpose=None, after=rows[0].id, limit=9, ascending=True)

    assert newest == [rows[1]]
    assert oldest == rows[1:]
    assert await kit.files.page(None, purpose="other", after=None, limit=9, ascending=True) == []


async def test_what_has_expired_goes_except_what_is_used(kit: Kit) -> None:
    old, used, young = await kit.add(keep_s=10), await kit.add(keep_s=10), await kit.add(keep_s=1000)
    kit.clock.now += 11

    await kit.files.prune(frozenset({used.id}))

    assert kit.names() == {used.id, young.id}
    assert await kit.files.get(old.id, None) is None


async def test_a_start_tidies_what_a_crash_left(kit: Kit) -> None:
    kept, lost = await kit.add(), await kit.add()
    kit.files.place_of(lost.id).unlink()
    (kit.folder / ".01HALF").write_bytes(b"half")
    (kit.folder / "file-01STRAY").write_bytes(b"stray")

    again = Files(kit.store, kit.folder, kit.clock, lambda: kit.room)
    await again.open()

    assert kit.names() == {kept.id}
    assert await again.get(lost.id, None) is None
    assert await again.get(kept.id, None) == kept


async def test_a_new_database_deletes_no_files_of_the_one_before(kit: Kit, tmp_path: Path) -> None:
    kept = await kit.add()
    (kit.folder / ".01HALF").write_bytes(b"half")

    async with opened(tmp_path / "new.db") as store:
        await Files(store, kit.folder, kit.clock, lambda: kit.room).open()

    assert kit.names() == {kept.id}


async def test_a_file_whose_row_can_not_be_written_is_not_there(tmp_path: Path) -> None:
    faults = Broken()
    async with opened(tmp_path / "quorum.db", faults) as store:
        kit = Kit(store, tmp_path / "files")
        await kit.files.open()
        faults.error = disk_full()
        with pytest.raises(StoreError):
            await kit.add()
        assert kit.names() == set()
        faults.error = None
        assert await kit.add()


async def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path / "quorum.db") as store:
        with small_disk(tmp_path, 256) as place:
            kit = Kit(store, place / "files")
            await kit.files.open()
            ballast = fill(place)
            draft = kit.files.draft()
            with pytest.raises(StoreError) as full:
                await draft.write(b"x" * 2 * MIB)
            await draft.discard()
            assert kit.names() == set()
            assert "could not be stored" in full.value.message
            ballast.unlink()
            assert await kit.add()


async def test_a_folder_that_can_not_be_made_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "files").write_bytes(b"a file in its place")
    async with opened(tmp_path / "quorum.db") as store:
        with pytest.raises(StartError):
            await Files(store, tmp_path / "files", Clock(), lambda: MIB).open()
