"""The node is killed in the middle and started again: nothing accepted is lost, nothing is done twice."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from router.node import Node
from router.settings import NodeOptions
from tests.fakes import HANG, ScriptedEngine, Wait, chunk, head, stream, whole
from tests.router.loading_engine import LoadingEngine, words
from tests.router.node_process import NodeProcess
from tests.router.web.test_jobs import Client

pytestmark = pytest.mark.timeout(180)

FROZEN_S = float(os.environ.get("QUORUM_TEST_FROZEN_S", "2"))
BODY = b'{"object":"chat.completion","choices":[{"message":{"role":"assistant","content":"hi"}}]}'


def ask(model: str, text: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}]} | more


def client(http: aiohttp.ClientSession, node: NodeProcess) -> Client:
    return Client(http, node)  # type: ignore[arg-type]


def counted(node: NodeProcess, sql: str = "SELECT count(*) FROM jobs") -> int:
    with sqlite3.connect(f"file:{node.data_dir}/quorum.db?mode=ro", uri=True) as db:
        return int(db.execute(sql).fetchone()[0])


async def test_two_models_killed_mid_queue_every_acknowledged_job_ends_once_with_two_loads(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with LoadingEngine("a", "b") as engine, NodeProcess(tmp_path, engine.url) as node:
        engine.hang_at = 3
        engine.load_gate.clear()
        call = client(http, node)
        jobs = {}
        for number in range(12):
            model = "ab"[number % 2]
            _, told, _ = await call.call("POST", "/jobs", ask(model, f"{model}{number}"))
            jobs[told["job_id"]] = f"{model}{number}"
        engine.load_gate.set()
        await engine.until(lambda: len(engine.chats) == 3)
        _, listed, _ = await call.call("GET", "/jobs?state=done")
        assert [jobs[job["job_id"]] for job in listed["jobs"]] == ["a2", "a0"]
        await node.kill()
        await engine.until(lambda: engine.cut)
        await node.start()
        ended = {job_id: await call.ended(job_id) for job_id in jobs}
        assert {job["state"] for job in ended.values()} == {"done"}
        assert {job_id: words(job["result"]) for job_id, job in ended.items()} == jobs
        assert engine.loads == ["a", "b"]
        assert sorted(engine.finished) == sorted(jobs.values()), "each was answered once"
        assert engine.cut == ["a4"]
        _, listed, _ = await call.call("GET", "/jobs?state=done")
        assert [job["job_id"] for job in listed["jobs"]] == list(reversed(jobs))
        assert counted(node) == 12


async def test_what_was_acknowledged_when_the_power_went_is_there(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    async with LoadingEngine("a") as engine, NodeProcess(tmp_path, engine.url) as node:
        call = client(http, node)
        acknowledged: dict[str, str] = {}

        async def submit(worker: int) -> None:
            for number in range(100):
                try:
                    _, told, _ = await call.call("POST", "/jobs", ask("a", f"{worker}-{number}"))
                except aiohttp.ClientError:
                    return
                acknowledged[told["job_id"]] = f"{worker}-{number}"
                if len(acknowledged) == 60:
                    await node.kill()

        await asyncio.gather(*(submit(worker) for worker in range(8)))
        assert len(acknowledged) >= 60
        await node.start()
        for job_id, said in acknowledged.items():
            job = await call.ended(job_id)
            assert (job["state"], words(job["result"])) == ("done", said)
        assert counted(node, "SELECT count(*) FROM jobs WHERE state IN ('failed', 'cancelled')") == 0


async def test_a_reader_that_comes_back_after_the_restart_is_reset_and_gets_the_whole_new_answer(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    go = asyncio.Event()
    new = stream("new", " answer")
    async with ScriptedEngine("m") as engine, NodeProcess(tmp_path, engine.url) as node:
        engine.play(head(), chunk(role=True), chunk("old"), HANG)
        engine.play(Wait(go), head(), new)
        call = client(http, node)
        _, told, _ = await call.call("POST", "/jobs", ask("m", "a"))
        url = f"{node.address}/jobs/{told['job_id']}/events"
        async with http.get(url) as reply:
            seen = b""
            while b'"old"' not in seen:
                seen += await reply.content.readany()
            await node.kill()
        last_id = seen.decode().rpartition("id: ")[2].split("\n")[0]
        assert last_id == "1.1"
        await node.start()
        following = asyncio.ensure_future(call.events(told["job_id"], last_id))
        await engine.request(1)
        late = asyncio.ensure_future(call.events(told["job_id"], last_id))
        go.set()
        for events in (await following, await late):
            resets = [at for at, (name, _, _) in enumerate(events) if name == "reset"]
            after = events[resets[-1] :]
            said = [data for name, _, data in after if name == "message"]
            assert b"".join(b"data: %b\n\n" % data.encode() for data in said) == new
            assert "old" not in "".join(said)
            assert events[-1][0] == "ended"
        assert words((await call.get(told["job_id"]))["result"]) == "new answer"


async def test_one_key_is_one_job_over_a_kill(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    async with ScriptedEngine("m") as engine, NodeProcess(tmp_path, engine.url) as node:
        engine.play(HANG)
        engine.play(whole(BODY))

        async def post() -> tuple[str, bytes]:
            url, headers = f"{node.address}/v1/chat/completions", {"Idempotency-Key": "k"}
            async with http.post(url, json=ask("m", "a"), headers=headers) as reply:
                return reply.headers["X-Quorum-Job"], await reply.read()

        first = [asyncio.ensure_future(post()) for _ in range(100)]
        await engine.request()
        await node.kill()
        assert all(isinstance(end, aiohttp.ClientError) for end in await asyncio.gather(*first, return_exceptions=True))
        await node.start()
        second = await asyncio.gather(*(post() for _ in range(100)))
        assert len(set(second)) == 1
        assert second[0][1] == BODY
        assert counted(node) == 1
        assert len(engine.asked) == 2


async def test_a_job_that_waits_for_the_engines_of_a_new_start_can_be_found_and_cancelled(
    tmp_path: Path, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.node.GRACE_S", 0.0)
    async with LoadingEngine("a") as engine:
        engine.hang_at = 1
        overrides = {"port": 0, "builtin_engine": False, "find_models": False, "engines": engine.url}
        options = NodeOptions(tmp_path / "data", overrides, discovery=False, log_level="warning")
        node = Node(options)
        await node.start()
        await node.ready()
        jobs = [await Client(http, node).submit(**ask("a", str(number))) for number in range(2)]
        await engine.until(lambda: engine.chats)
        await node.stop()
        engine.look_gate.clear()
        node = Node(options)
        await node.start()
        try:
            call = Client(http, node)
            assert (await call.get(jobs[0]))["state"] == "queued"
            for job_id in jobs:
                first = await call.cancel(job_id)
                assert first["state"] == "cancelled"
                assert await call.cancel(job_id) == first
            engine.look_gate.set()
            await node.ready()
            assert (await call.get(jobs[1]))["state"] == "cancelled"
        finally:
            await node.stop()
        assert len(engine.chats) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="nothing stops a process there")
async def test_a_node_that_was_frozen_goes_on_and_says_everything_once(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    said = asyncio.Event()
    async with ScriptedEngine("m") as engine, NodeProcess(tmp_path, engine.url) as node:
        engine.play(head(), chunk(role=True), chunk("one"), Wait(said), stream(" two"))
        engine.play(head(), stream("next"))
        call = client(http, node)
        first, second = await call.submit(), await call.submit()
        await engine.request()
        async with http.get(f"{node.address}/jobs/{first}/events") as reply:
            while b"one" not in await reply.content.readline():
                continue
            node.signal(signal.SIGSTOP)
            said.set()  # the engine ends while nobody looks
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.Event().wait(), FROZEN_S)
            node.signal(signal.SIGCONT)
            rest = await reply.read()
        assert b"event: reset" not in rest
        assert b"event: ended" in rest
        assert words((await call.ended(first))["result"]) == "one two"
        assert words((await call.ended(second))["result"]) == "next"
        assert len(engine.asked) == 2
