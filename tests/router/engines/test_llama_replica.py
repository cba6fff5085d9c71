"""How a loaded copy is tuned from settings and file, when it may leave, and whether it fits."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from router import gguf
from router.aio import Tasks
from router.engines import llama_process, llama_replica
from router.engines.llama_replica import Replica, Tuning
from router.engines.transport import Transport
from router.errors import EngineFault
from router.hardware import Hardware, HardwareProbe
from router.library import LibraryModel
from tests.router.gguf_files import File, changed

GIB = 2**30


class Computer(HardwareProbe):
    """A computer of our choosing."""

    def __init__(self, **figures: int) -> None:
        super().__init__()
        self.figures = figures

    def read(self) -> Hardware:
        return Hardware(**{"ram_total_bytes": 16 * GIB, "ram_free_bytes": 8 * GIB, **self.figures})  # type: ignore[arg-type]


@pytest.fixture
def make(tmp_path: Path, settings: dict[str, Any], tasks: Tasks, transport: Transport):  # type: ignore[no-untyped-def]
    """A replica of a small file, in the loop of the test."""

    async def made(
        file: File | None = None,
        *,
        embedder: bool = False,
        width: int = 1,
        tuning: Tuning | None = None,
        **figures: int,
    ) -> Replica:
        info = gguf.read((file or File()).write(tmp_path / "tiny.gguf"))
        model = LibraryModel("tiny", info, "added", "stamp", projector=tmp_path / "mmproj.gguf")
        key = ("tiny", embedder)
        return Replica(key, model, settings, width, tasks, transport, tuning or Tuning(), Computer(**figures))

    return made


async def test_the_context_is_per_slot_and_at_most_the_models_own(make: Any, settings: dict[str, Any]) -> None:
    settings["context"] = 0
    replica = await make(width=3)
    orders = replica._orders(replica.model.info)
    assert (orders["context"], orders["slots"]) == (3 * 4096, 3)
    assert orders["http_threads"] > orders["slots"] + 8  # a question for health never waits behind generations
    settings["context"] = 1000
    assert replica._orders(replica.model.info)["context"] == 3000
    settings["context"] = 100_000
    assert replica._orders(replica.model.info)["context"] == 3 * 4096


async def test_without_a_setting_a_long_context_is_cut_to_8192(make: Any, settings: dict[str, Any]) -> None:
    settings["context"] = 0
    replica = await make(changed(**{"llama.context_length": 131_072}))
    assert replica._orders(replica.model.info)["context"] == 8192


async def test_settings_reach_the_process(make: Any, settings: dict[str, Any], tmp_path: Path) -> None:
    settings |= {"threads": 3, "gpu_layers": 7}
    replica = await make()
    orders = replica._orders(replica.model.info)
    assert (orders["threads"], orders["gpu_layers"], orders["embedding"]) == (3, 7, False)
    assert (orders["model"], orders["alias"]) == (str(tmp_path / "tiny.gguf"), "tiny")
    assert orders["projector"] == str(tmp_path / "mmproj.gguf")
    settings["threads"] = 0
    assert replica._orders(replica.model.info)["threads"] >= 1
    assert len(orders["key"]) > 30
    assert orders["key"] != replica._orders(replica.model.info)["key"]


@pytest.mark.parametrize(("pooling", "told"), [(2, "cls"), (3, "last"), (None, "mean")])
async def test_an_embedder_pools_as_its_file_says(make: Any, pooling: int | None, told: str) -> None:
    file = changed(general__architecture="bert", **{"bert.context_length": 512, "bert.pooling_type": pooling})
    replica = await make(file, embedder=True)
    orders = replica._orders(replica.model.info)
    assert (orders["embedding"], orders["pooling"], orders["projector"]) == (True, told, "")
    assert orders["batch"] == 512  # a whole text at once
    assert orders["context"] == 512 * orders["slots"]


async def test_an_embedding_model_stays_unless_a_request_says_otherwise(make: Any) -> None:
    replica = await make(changed(general__architecture="bert"), embedder=True)
    assert replica.keep_s(300.0) == -1
    replica.keep_alive_s = 5.0
    assert replica.keep_s(300.0) == 5
    assert (await make()).keep_s(300.0) == 300


async def test_only_a_loaded_unused_copy_that_is_not_fresh_is_idle(make: Any) -> None:
    replica = await make()
    assert not replica.idle(0.0)
    replica.loaded = True
    assert replica.idle(0.0)
    replica.fresh_until = 5.0
    assert not replica.idle(4.0)
    replica.in_flight = 1
    assert not replica.idle(6.0)


async def test_room_is_counted_in_models_and_in_memory(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    need = [4 * GIB]
    monkeypatch.setattr("router.gguf.GgufInfo.memory_need", lambda *_: need[0])
    replica, other = await make(), await make()
    assert await replica.fits([], 1)
    assert not await replica.fits([other], 1)
    assert await replica.fits([other], 2)
    need[0] = 12 * GIB  # more than is free, less than there is
    assert not await replica.fits([other], 2)
    assert await replica.fits([], 2)
    need[0] = 17 * GIB
    with pytest.raises(EngineFault, match=r"needs 17\.0 GiB of memory; this computer has 16\.0 GiB"):
        await replica.fits([], 2)


async def test_graphics_memory_counts_first(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.gguf.GgufInfo.memory_need", lambda *_: 6 * GIB)
    other = await make()
    full = await make(vram_total_bytes=8 * GIB, vram_free_bytes=2 * GIB)
    assert not await full.fits([other], 2)
    roomy = await make(vram_total_bytes=8 * GIB, vram_free_bytes=7 * GIB)
    assert await roomy.fits([other], 2)


async def test_a_load_that_takes_too_long_is_ended(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_process, "child_argv", lambda: ["/bin/sh", "-c", "read line; exec sleep 60"])
    replica = await make(tuning=Tuning(load_s=0.2))
    async with asyncio.timeout(5):
        with pytest.raises(EngineFault, match="did not load in time"):
            await replica.load()
    assert await replica.ended_within(0)
    assert not replica.crashed


async def test_a_load_that_is_given_up_leaves_no_fault_of_its_progress(
    make: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(llama_process, "child_argv", lambda: ["/bin/sh", "-c", "read line; trap '' TERM; sleep 1"])
    monkeypatch.setattr(llama_replica, "PROGRESS_S", 0.01)
    held = iter(range(0, 2**40, 2**13))
    monkeypatch.setattr(llama_replica, "process_bytes", lambda pid: next(held))
    replica = await make()
    told = asyncio.Event()
    replica.watchers.append(lambda percent: told.set())
    loading = asyncio.ensure_future(replica.load())
    async with asyncio.timeout(5):
        await told.wait()
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
