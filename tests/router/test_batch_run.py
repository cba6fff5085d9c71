"""A batch through everything that can happen to it: each line gets one result, and none is asked for twice."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from openai.types import Batch

from router.batch_lines import Reading
from router.batch_rows import BatchRows, Line
from router.batch_run import BatchRun
from router.errors import ModelNotFoundError, StoreError
from router.node import Node
from tests.fakes import BOUND_S, ScriptedEngine, Wait
from tests.router.node_process import NodeProcess
from tests.router.store_kit import change, rows
from tests.router.web.test_batches import answer, begun, client_of, ended, line, lines_of, made, questions, until

MakeNode = Callable[..., Awaitable[Node]]


def said(output: list[dict[str, Any]]) -> dict[str, str]:
    """What each line was answered."""
    return {one["custom_id"]: one["response"]["body"]["choices"][0]["message"]["content"] for one in output}


async def finished(client: openai.AsyncOpenAI, batch_id: str, count: int) -> dict[str, str]:
    """The answers of a batch that completes, of ``count`` lines."""
    done = await ended(client, batch_id)
    assert done.status == "completed"
    output = said(await lines_of(client, done.output_file_id))
    assert list(output) == [f"id-{number}" for number in range(count)]
    return output


async def test_lines_run_behind_everybody_and_no_more_at_once_than_the_window(
    make_node: MakeNode, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.batch_run.WINDOW", 2)
    go = asyncio.Event()
    engine.play(Wait(go), answer())
    node = await make_node(engine)
    async with client_of(node) as client:
        batch = await made(client, *(line(number) for number in range(6)))
        await engine.request(1)
        live = list(node._scheduler.jobs.values())
        go.set()
        await finished(client, batch.id, 6)

    assert len(live) == 2
    assert all(job.batch and not job.keep for job in live)


async def test_a_full_queue_delays_lines_and_loses_none(
    make_node: MakeNode, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.admission.BATCH_MAX", 1)
    monkeypatch.setattr("router.admission.OWN_MAX", 0)
    engine.play(answer())
    async with client_of(await make_node(engine)) as client:
        batch = await made(client, *(line(number) for number in range(5)))
        await finished(client, batch.id, 5)

    assert len(questions(engine)) == 5


async def test_after_a_restart_an_answered_job_is_not_asked_again_and_a_lost_one_is(
    make_node: MakeNode, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("router.node.GRACE_S", 0.0)
    path = tmp_path / "data" / "quorum.db"
    engine.play(Wait(asyncio.Event()))
    first = await make_node(engine)
    async with client_of(first) as client:
        batch = await made(client, line(0), line(1), line(2))
        await engine.request(2)
    await first.stop()
    running = dict(rows(path, "SELECT line, job_id FROM batch_lines"))
    kept = json.dumps({"choices": [{"message": {"content": "kept"}}]}).encode()

    def edit(db: Any) -> None:
        db.execute("UPDATE batch_lines SET job_id = 'lost' WHERE line = 1")
        db.execute("DELETE FROM jobs WHERE id = ?", (running[1],))
        db.execute("UPDATE jobs SET state = 'done', keep = 1, completed_at = ? WHERE id = ?", (time.time(), running[2]))
        job = "(SELECT row_id FROM jobs WHERE id = ?)"
        db.execute(
            f"UPDATE bodies SET answer = ?, answer_type = 'application/json' WHERE job = {job}",  # noqa: S608 - own text
            (kept, running[2]),
        )

    change(path, edit)
    engine.asked.clear()
    engine.play(answer("asked"))

    async with client_of(await make_node(engine)) as client:
        output = await finished(client, batch.id, 3)

    assert output == {"id-0": "asked", "id-1": "kept", "id-2": "asked"}
    assert sorted(questions(engine)) == ["Question 0", "Question 2"]


async def test_a_result_the_disk_refuses_is_written_later_and_counts_then(
    make_node: MakeNode, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.batch_run.WRITE_AGAIN_S", 0.0)
    record, refusals = BatchRows.record, 3

    def refuse(self: BatchRows, row_id: int, one: Line, state: str, result: bytes) -> asyncio.Future[None]:
        nonlocal refusals
        if refusals == 0:
            return record(self, row_id, one, state, result)
        refusals -= 1
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.set_exception(StoreError("The disk is full."))
        return future

    monkeypatch.setattr(BatchRows, "record", refuse)
    engine.play(answer())
    async with client_of(await make_node(engine)) as client:
        batch = await made(client, line(0), line(1))
        await finished(client, batch.id, 2)

    assert refusals == 0
    assert len(questions(engine)) == 2


@pytest.mark.parametrize("method", ["lines", "add_lines", "save", "results", "drop_lines", "counts"])
async def test_a_batch_goes_on_when_the_disk_does(
    make_node: MakeNode, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr("router.batch_run.AGAIN_S", 0.01)
    whole, failures = getattr(BatchRows, method), 2

    async def fails(self: BatchRows, *args: Any, **kwargs: Any) -> Any:
        nonlocal failures
        if failures:
            failures -= 1
            raise StoreError("The disk is full.")
        return await whole(self, *args, **kwargs)

    monkeypatch.setattr(BatchRows, method, fails)
    engine.play(answer())
    async with client_of(await make_node(engine)) as client:
        batch = await made(client, line(0), line(1), line(2))
        await finished(client, batch.id, 3)

    assert failures == 0
    assert len(questions(engine)) == 3


async def test_a_line_cancelled_by_hand_fails_alone(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession
) -> None:
    engine.play(Wait(asyncio.Event()))
    node = await make_node(engine)
    async with client_of(node) as client:
        batch = await made(client, line(0))
        await engine.request()
        (job,) = node._scheduler.jobs.values()
        async with http.delete(f"{node.address}/jobs/{job.id}") as response:
            assert response.status == 200
        done = await ended(client, batch.id)
        (failed,) = await lines_of(client, done.error_file_id)

    assert done.status == "completed"
    assert failed["response"]["body"]["error"]["code"] == "cancelled"


async def test_a_batch_cancelled_while_its_file_is_checked_runs_nothing(
    make_node: MakeNode, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, checking, block = threading.Event(), asyncio.Event(), Reading.block
    loop = asyncio.get_running_loop()

    def slow(self: Reading, file: Any) -> list[Line]:
        loop.call_soon_threadsafe(checking.set)
        assert go.wait(BOUND_S)
        return block(self, file)

    monkeypatch.setattr(Reading, "block", slow)
    async with client_of(await make_node(engine)) as client:
        batch = await made(client, line(0), line(1))
        await asyncio.wait_for(checking.wait(), BOUND_S)
        cancelling = await client.batches.cancel(batch.id)
        go.set()
        done = await ended(client, batch.id)

    assert (cancelling.status, done.status) == ("cancelling", "cancelled")
    assert not engine.asked


async def test_a_file_that_vanished_fails_the_batch(
    make_node: MakeNode, engine: ScriptedEngine, tmp_path: Path
) -> None:
    async with client_of(await make_node(engine)) as client:
        uploaded = await client.files.create(file=("f", json.dumps(line()).encode()), purpose="batch")
        (tmp_path / "data" / "files" / uploaded.id).unlink()
        batch = await client.batches.create(
            input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        failed = await ended(client, batch.id)

    assert failed.status == "failed"
    assert failed.errors is not None
    assert [error.code for error in failed.errors.data or ()] == ["invalid_file"]


async def test_a_model_that_nobody_can_run_now_is_waited_for(
    make_node: MakeNode, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.batch_run.AGAIN_S", 0.01)
    engine.play(answer())
    node = await make_node(engine)
    (snapshot,) = node._registry.snapshots.values()
    (engine_id,) = node._registry.snapshots
    away = type(snapshot)(ready=False, models=snapshot.models, detail="away")
    looks = [away]

    async def poll() -> Any:
        return looks[-1]

    monkeypatch.setattr(node._registry.engines[engine_id], "poll", poll)
    node._registry.update(engine_id, away)
    waited = asyncio.Event()
    submit = node._intake.submit

    async def refused(job: Any) -> Any:
        try:
            return await submit(job)
        except Exception:
            waited.set()
            raise

    monkeypatch.setattr(node._intake, "submit", refused)
    async with client_of(node) as client:
        batch = await made(client, line(0))
        await asyncio.wait_for(waited.wait(), BOUND_S)
        looks.append(snapshot)
        node._registry.update(engine_id, snapshot)
        await finished(client, batch.id, 1)


async def test_a_model_that_ran_lines_and_vanished_is_waited_for_and_one_that_never_was_here_is_not(
    make_node: MakeNode, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.batch_run.AGAIN_S", 0.01)
    monkeypatch.setattr("router.batch_run.WINDOW", 1)
    go, vanished = asyncio.Event(), asyncio.Event()
    engine.play(Wait(go), answer())
    node = await make_node(engine)
    find, gone = node._registry.find, False

    def found(name: str, *more: Any) -> Any:
        if gone:
            vanished.set()
            raise ModelNotFoundError(name, ())
        return find(name, *more)

    monkeypatch.setattr(node._registry, "find", found)
    never = line(3, body={"model": "never", "messages": [{"role": "user", "content": "?"}]})
    async with client_of(node) as client:
        batch = await made(client, line(0), line(1), line(2), never)
        await engine.request()
        gone = True
        go.set()
        await asyncio.wait_for(vanished.wait(), BOUND_S)
        (run,) = node._kept.batches._runs.values()
        restarted = BatchRun(run.row, run._tools)
        await restarted._take_up()
        gone = False
        done = await ended(client, batch.id)

    assert done.request_counts is not None
    assert (done.request_counts.completed, done.request_counts.failed) == (3, 1)
    assert restarted._ran == {"m"}


@pytest.mark.timeout(180)
async def test_a_batch_survives_the_kill_of_its_node_and_asks_no_recorded_line_again(
    tmp_path: Path, engine: ScriptedEngine
) -> None:
    count, stuck = 8, asyncio.Event()
    for _ in range(3):
        engine.play(answer("before"))
    engine.play(Wait(stuck))
    async with NodeProcess(tmp_path, engine.url, QUORUM_CONCURRENCY="1") as node:
        async with client_of(node) as client:
            batch = await made(client, *(line(number) for number in range(count)))
            await engine.request(3)

            def three(one: Batch) -> bool:
                return begun(one) and one.request_counts is not None and one.request_counts.completed == 3

            await until(client, batch.id, three)
        await node.kill()
        before = questions(engine)
        engine.play(answer("after"))
        await node.start()
        async with client_of(node) as client:
            output = await finished(client, batch.id, count)

    assert sorted(output.values()) == ["after"] * 5 + ["before"] * 3
    recorded = [f"Question {one.removeprefix('id-')}" for one, text in output.items() if text == "before"]
    assert [questions(engine).count(question) for question in recorded] == [1, 1, 1]
    assert len(questions(engine)) == len(before) + 5
