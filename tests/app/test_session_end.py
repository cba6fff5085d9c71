"""Log-out, shutdown and sleep of the computer, as a real node in its own process lives through them.

logind is a scripted one on a private bus; the signals are the system's own.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import aiohttp
import pytest

from tests.fakes import BOUND_S, HANG, ScriptedEngine, Wait, chunk, head, stream
from tests.router.logind import Logind, SessionBus, need_a_bus
from tests.router.node_process import NodeProcess, answer

ASK = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "stream": True}

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the session's signals are those of POSIX systems")


@pytest.fixture
def bus() -> Iterator[SessionBus]:
    need_a_bus()
    made = SessionBus()
    yield made
    made.close()


@pytest.fixture
async def logind(bus: SessionBus) -> AsyncIterator[Logind]:
    made = await Logind.on(bus.address)
    yield made
    await made.close()


@pytest.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    async with ScriptedEngine("m") as scripted:
        yield scripted


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(trust_env=False) as session:
        yield session


@pytest.fixture
async def node(tmp_path: Path, engine: ScriptedEngine, bus: SessionBus, logind: Logind) -> AsyncIterator[NodeProcess]:
    """A node whose system bus is ``bus``."""
    async with NodeProcess(tmp_path, engine.url, DBUS_SYSTEM_BUS_ADDRESS=bus.address) as made:
        await logind.until(lambda: len(logind.held("delay")) == 1)
        yield made


async def ended(node: NodeProcess) -> int:
    assert node._process is not None
    async with asyncio.timeout(BOUND_S + 10):
        return await node._process.wait()


def rows(node: NodeProcess) -> list[tuple[str, int, int]]:
    """(state, attempt, crashes) of each job that is on the disk, in a database that is whole."""
    with closing(sqlite3.connect(node.data_dir / "quorum.db")) as database:
        assert database.execute("pragma integrity_check").fetchall() == [("ok",)]
        return database.execute("select state, attempt, crashes from jobs order by rowid").fetchall()


async def said(reply: aiohttp.ClientResponse) -> str:
    """What still comes, whole or not."""
    parts = bytearray()
    try:
        while piece := await reply.content.readany():
            parts += piece
    except aiohttp.ClientError:
        parts += b"(broken off)"
    return parts.decode()


async def test_a_shutdown_lets_the_running_answer_end_and_waits_for_it(
    node: NodeProcess, engine: ScriptedEngine, logind: Logind, http: aiohttp.ClientSession
) -> None:
    go = asyncio.Event()
    engine.play(head(), chunk("half "), Wait(go), stream("whole"))
    async with http.post(f"{node.address}/v1/chat/completions", json=ASK) as reply:
        await reply.content.readuntil(b"half ")
        (delay,) = logind.held("delay")
        logind.shut_down()
        refused = 0
        while refused != 503:  # from now on nothing new is taken
            async with http.post(f"{node.address}/v1/chat/completions", json=ASK | {"model": "m"}) as other:
                refused = other.status
        assert delay.held, "the system waits"
        go.set()
        assert (await said(reply)).endswith("data: [DONE]\n\n")
    assert await ended(node) == 0
    await logind.until(lambda: not delay.held)
    assert not (node.data_dir / "node.json").exists()
    assert not list(node.data_dir.glob("quorum.db-wal")), "the database was closed"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_a_log_out_lets_the_running_answer_end(
    node: NodeProcess, engine: ScriptedEngine, http: aiohttp.ClientSession, number: signal.Signals
) -> None:
    go = asyncio.Event()
    engine.play(head(), chunk("half "), Wait(go), stream("whole"))
    async with http.post(f"{node.address}/v1/chat/completions", json=ASK) as reply:
        await reply.content.readuntil(b"half ")
        assert node._process is not None
        node._process.send_signal(number)
        go.set()
        assert (await said(reply)).endswith("data: [DONE]\n\n")
    assert await ended(node) == 0


async def test_what_does_not_end_in_ten_seconds_waits_uncharged_for_the_next_start(
    node: NodeProcess, engine: ScriptedEngine, logind: Logind, http: aiohttp.ClientSession
) -> None:
    engine.play(head(), HANG)
    made = await answer(http, "POST", f"{node.address}/jobs", json={k: v for k, v in ASK.items() if k != "stream"})
    await engine.request()
    logind.shut_down()
    began = asyncio.get_running_loop().time()
    assert await ended(node) == 0
    assert 9 < asyncio.get_running_loop().time() - began < 14
    assert rows(node) == [("queued", 0, 0)]
    engine.scripts.clear()
    engine.play(head(), stream("late"))
    await node.start()
    async with http.get(f"{node.address}/jobs/{made['job_id']}/events") as events:
        assert '"state":"done"' in await said(events)
    assert (await answer(http, "GET", f"{node.address}/jobs/{made['job_id']}"))["attempt"] == 0


async def test_the_computer_is_kept_awake_only_while_a_job_runs_here(
    node: NodeProcess, engine: ScriptedEngine, logind: Logind, http: aiohttp.ClientSession
) -> None:
    assert not logind.held("block")
    go = asyncio.Event()
    engine.play(head(), chunk("half "), Wait(go), stream("whole"))
    async with http.post(f"{node.address}/v1/chat/completions", json=ASK) as reply:
        await reply.content.readuntil(b"half ")
        await logind.until(lambda: len(logind.held("block")) == 1)
        headers = {"Authorization": f"Bearer {(node.data_dir / 'control.token').read_text()}"}
        now = await answer(http, "GET", f"{node.address}/local/v1/status", headers=headers)
        assert now["node"]["sleep"] == "logind waits for goodbyes; kept awake now"
        go.set()
        await said(reply)
    await logind.until(lambda: not logind.held("block"))
    assert node._process is not None
    assert node._process.returncode is None


async def test_who_wants_it_to_sleep_all_the_same_switches_that_off(
    tmp_path: Path, engine: ScriptedEngine, bus: SessionBus, logind: Logind, http: aiohttp.ClientSession
) -> None:
    engine.play(head(), stream("whole"))
    environ = {"DBUS_SYSTEM_BUS_ADDRESS": bus.address, "QUORUM_STAY_AWAKE": "0"}
    async with NodeProcess(tmp_path, engine.url, **environ) as node:
        await logind.until(lambda: len(logind.held("delay")) == 1)
        async with http.post(f"{node.address}/v1/chat/completions", json=ASK) as reply:
            assert "whole" in await reply.text()
    assert [lock.mode for lock in logind.locks] == ["delay"]


async def test_a_sleep_waits_for_goodbyes_and_the_node_goes_on_afterwards(
    node: NodeProcess, engine: ScriptedEngine, logind: Logind, http: aiohttp.ClientSession
) -> None:
    (delay,) = logind.held("delay")
    logind.suspend(True)
    await logind.until(lambda: not delay.held)
    logind.suspend(False)
    await logind.until(lambda: len(logind.held("delay")) == 1)
    engine.play(head(), stream("whole"))
    async with http.post(f"{node.address}/v1/chat/completions", json=ASK) as reply:
        assert "whole" in await reply.text()
