"""Batches as the API shows them; what can't be stored is not there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import openai
import pytest
from openai.types import Batch

from router.batch_rows import BatchRow, BatchRows
from router.batches import told
from router.errors import StoreError
from router.node import Node
from tests.fakes import ScriptedEngine
from tests.router.web.test_batches import answer, client_of, ended, line, made

MakeNode = Callable[..., Awaitable[Node]]


def test_a_batch_has_every_field_of_the_official_type() -> None:
    row = BatchRow(
        id="batch_1", key_id=None, endpoint="/v1/embeddings", input_file="file-1", metadata={}, created_at=5.5,
        errors=[{"code": "c", "message": "m", "line": 1, "param": None}], output_file="file-2", in_progress_at=6.5,
        input_tokens=3, output_tokens=2,
    )  # fmt: skip

    shown = Batch.model_validate(told(row))

    assert (shown.created_at, shown.in_progress_at, shown.expires_at) == (5, 6, None)
    assert shown.usage is not None
    assert shown.usage.total_tokens == 5
    assert shown.errors is not None
    assert [error.line for error in shown.errors.data or ()] == [1]


async def test_a_batch_that_can_not_be_stored_is_not_acknowledged_and_leaves_its_file_free(
    make_node: MakeNode, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(self: BatchRows, row: BatchRow) -> None:
        raise StoreError("The disk is full.")

    node = await make_node(engine)
    async with client_of(node) as client:
        with monkeypatch.context() as broken:
            broken.setattr(BatchRows, "insert", fails)
            with pytest.raises(openai.InternalServerError) as refused:
                await made(client, line())
        assert refused.value.status_code == 503
        assert (await client.batches.list()).data == []
        assert node._kept.batches.reading() == frozenset()
        (file,) = (await client.files.list()).data
        assert (await client.files.delete(file.id)).deleted


async def _deleted(client: openai.AsyncOpenAI, file_id: str) -> bool:
    try:
        return (await client.files.delete(file_id)).deleted
    except openai.ConflictError:
        return False


async def test_an_ended_batch_leaves_no_lines_and_lets_its_file_go(make_node: MakeNode, engine: ScriptedEngine) -> None:
    engine.play(answer())
    node = await make_node(engine)
    async with client_of(node) as client:
        batch = await made(client, line(0), line(1))
        await ended(client, batch.id)
        async with asyncio.timeout(10):  # its file is let go right after its end is on the disk
            while not await _deleted(client, batch.input_file_id):
                pass

    async with asyncio.timeout(10):  # they go right after the batch has ended, in a commit of their own
        while await node._store.run(lambda db: db.execute_sql("SELECT count(*) FROM batch_lines").fetchone()) != (0,):
            pass
    assert await node._store.run(lambda db: db.execute_sql("SELECT count(*) FROM batches").fetchone()) == (1,)
