"""What a node says of itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp

from router.states import NodeMode
from tests.fakes import BOUND_S, HANG, ScriptedEngine, head
from tests.router.conftest import MakeNode
from tests.router.test_node import _read


async def test_a_node_tells_its_memory_and_disk_as_soon_as_it_has_looked(
    make_node: MakeNode, engine: ScriptedEngine, tmp_path: Path
) -> None:
    node = await make_node(engine)
    async with asyncio.timeout(BOUND_S):
        with node._bus.queue() as queue:
            while not node.info().disk_free_bytes:
                await queue.get()

    info = node.info()

    assert info.ram_total_bytes > info.ram_free_bytes > 0
    assert (info.data_dir, info.notice) == (str(tmp_path / "data"), "")
    assert (info.address, info.port) == (node.address, int(node.address.rpartition(":")[2]))


async def test_a_node_tells_what_runs_and_waits_and_its_own_models(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession
) -> None:
    engine.play(head(), HANG)
    node = await make_node(engine, concurrency=1)
    first, second = (asyncio.ensure_future(_read(http, node)) for _ in range(2))
    try:
        await engine.request()
        async with asyncio.timeout(BOUND_S):
            with node._bus.queue() as queue:
                while node.info().running + node.info().waiting < 2:
                    await queue.get()
        node.pause(60)
        info = node.info()
        assert (info.running, info.waiting, info.models, info.mode) == (1, 1, 1, NodeMode.PAUSED)
        assert info.paused_until is not None
        assert 0 < info.paused_until - info.started_at < 60 + BOUND_S
    finally:
        first.cancel()
        second.cancel()


async def test_an_address_that_could_not_be_had_and_a_disk_that_fails_are_in_its_notice(
    make_node: MakeNode, engine: ScriptedEngine
) -> None:
    node = await make_node(engine, also_listen="192.0.2.1:80")
    assert "192.0.2.1" in node.info().notice
    node._store.healthy = False
    assert node.info().notice == "The disk of the data folder can't be written."
