"""What paired computers held outlives their absence and this node's restarts."""

from __future__ import annotations

from pathlib import Path

from router.holders import Holders
from router.wire_snapshot import PeerModel
from tests.fakes import FakeClock
from tests.router.store_kit import opened, rows

LLAMA = PeerModel(name="llama", digest="ab" * 32, size_bytes=7, resident=True, tokens_per_s=50.0, problem="")
QWEN = PeerModel(name="qwen")


async def test_what_was_told_is_known_after_a_restart_and_none_of_it_as_loaded(tmp_path: Path) -> None:
    async with opened(tmp_path / "quorum.db") as store:
        holders = Holders(store, FakeClock())
        await holders.open()
        assert holders.models("p") == []
        holders.told("p", [LLAMA, QWEN])
        holders.told("q", [QWEN])
    async with opened(tmp_path / "quorum.db") as store:
        holders = Holders(store, FakeClock())
        await holders.open()
        [llama, qwen] = holders.models("p")
        assert (llama.name, llama.digest, llama.size_bytes, llama.resident) == ("llama", "ab" * 32, 7, False)
        assert (qwen, holders.models("q")) == (QWEN, [QWEN])


async def test_a_model_that_went_and_a_computer_that_is_paired_no_more_leave_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path / "quorum.db") as store:
        holders = Holders(store, FakeClock())
        await holders.open()
        holders.told("p", [LLAMA, QWEN])
        holders.told("q", [QWEN])
        holders.told("p", [QWEN])
        holders.forget("q")
        holders.forget("never seen")
    assert rows(store.path, "SELECT node, model FROM holders") == [("p", "qwen")]


async def test_speeds_and_loads_alone_write_nothing(tmp_path: Path) -> None:
    clock = FakeClock()
    async with opened(tmp_path / "quorum.db") as store:
        holders = Holders(store, clock)
        await holders.open()
        holders.told("p", [LLAMA])
        clock.advance(100)
        holders.told("p", [PeerModel(name="llama", digest="ab" * 32, size_bytes=7, tokens_per_s=60.0, load_s=2.0)])
    [(at,)] = rows(store.path, "SELECT updated_at FROM holders")
    assert at == clock.wall() - 100


async def test_a_row_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    async with opened(tmp_path / "quorum.db") as store:
        holders = Holders(store, FakeClock())
        await holders.open()
        holders.told("p", [LLAMA, QWEN])
        await store.commit("UPDATE holders SET record_json = '[' WHERE model = 'llama'")
        again = Holders(store, FakeClock())
        await again.open()
        assert again.models("p") == [QWEN]
