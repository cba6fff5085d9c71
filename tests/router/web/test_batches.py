"""OpenAI's official client on files and batches of a real node, whose engine does as its script says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import openai
import pytest
from openai.types import Batch

from router.node import Node
from tests.fakes import BOUND_S, ScriptedEngine, Wait, whole
from tests.router.node_process import NodeProcess

MakeNode = Callable[..., Awaitable[Node]]
CHAT = "/v1/chat/completions"
USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}}
ENDED = ("completed", "failed", "cancelled")


def answer(content: str = "Hello", **fields: Any) -> bytes:
    """A whole chat completion of an engine."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    return whole(json.dumps({"object": "chat.completion", "choices": [choice], "usage": USAGE} | fields).encode())


def line(number: int = 0, url: str = CHAT, body: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """One line of an input file."""
    asked = body or {"model": "m", "messages": [{"role": "user", "content": f"Question {number}"}]}
    return {"custom_id": f"id-{number}", "method": "POST", "url": url, "body": asked} | fields


def file_of(*lines: dict[str, Any]) -> tuple[str, bytes]:
    return "lines.jsonl", b"".join(json.dumps(one).encode() + b"\n" for one in lines)


@asynccontextmanager
async def client_of(node: Node | NodeProcess) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{node.address}/v1", api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture
async def client(make_node: MakeNode, engine: ScriptedEngine) -> AsyncIterator[openai.AsyncOpenAI]:
    async with client_of(await make_node(engine)) as made:
        yield made


async def made(client: openai.AsyncOpenAI, *lines: dict[str, Any], endpoint: Any = CHAT, **fields: Any) -> Batch:
    """A batch of ``lines``."""
    uploaded = await client.files.create(file=file_of(*lines), purpose="batch")
    return await client.batches.create(input_file_id=uploaded.id, endpoint=endpoint, completion_window="24h", **fields)


async def until(client: openai.AsyncOpenAI, batch_id: str, good: Callable[[Batch], bool]) -> Batch:
    """The batch once it is as it should be."""
    async with asyncio.timeout(2 * BOUND_S):
        while not good(batch := await client.batches.retrieve(batch_id)):
            continue
    return batch


async def ended(client: openai.AsyncOpenAI, batch_id: str) -> Batch:
    """The batch once it has ended."""
    return await until(client, batch_id, lambda batch: batch.status in ENDED)


def begun(batch: Batch) -> bool:
    """Whether a line was answered."""
    return batch.request_counts is not None and batch.request_counts.completed > 0


async def lines_of(client: openai.AsyncOpenAI, file_id: str | None) -> list[dict[str, Any]]:
    if file_id is None:
        return []
    content = await client.files.content(file_id)
    return [json.loads(one) for one in content.text.splitlines()]


def questions(engine: ScriptedEngine) -> list[str]:
    """What the engine was asked, in order."""
    return [json.loads(asked.body)["messages"][-1]["content"] for asked in engine.asked]


async def test_each_line_of_a_batch_is_answered_once(client: openai.AsyncOpenAI, engine: ScriptedEngine) -> None:
    engine.play(answer())

    batch = await made(client, *(line(number) for number in range(5)), metadata={"a": "b"})
    assert (batch.status, batch.object, batch.endpoint, batch.metadata) == ("validating", "batch", CHAT, {"a": "b"})
    done = await ended(client, batch.id)

    assert done.status == "completed"
    assert done.request_counts is not None
    assert (done.request_counts.total, done.request_counts.completed, done.request_counts.failed) == (5, 5, 0)
    assert done.usage is not None
    assert (done.usage.input_tokens, done.usage.output_tokens) == (35, 10)
    assert done.error_file_id is None
    output = await lines_of(client, done.output_file_id)
    assert [one["custom_id"] for one in output] == [f"id-{number}" for number in range(5)]
    assert all(one["response"]["status_code"] == 200 and one["error"] is None for one in output)
    assert output[0]["response"]["body"]["choices"][0]["message"]["content"] == "Hello"
    assert sorted(questions(engine)) == [f"Question {number}" for number in range(5)]
    assert done.in_progress_at is not None
    assert done.completed_at is not None


async def test_what_fails_is_in_the_error_file_and_the_rest_is_answered(
    client: openai.AsyncOpenAI, engine: ScriptedEngine
) -> None:
    engine.play(answer())
    bad = {"model": "m", "messages": [{"role": "user", "content": "x"}], "temperature": 9}
    unknown = {"model": "unknown", "messages": [{"role": "user", "content": "x"}]}

    batch = await made(client, line(0), line(1, body=bad), line(2, body=unknown))
    done = await ended(client, batch.id)

    assert done.status == "completed"
    assert done.request_counts is not None
    assert (done.request_counts.completed, done.request_counts.failed) == (1, 2)
    failed = await lines_of(client, done.error_file_id)
    assert [(one["custom_id"], one["response"]["status_code"]) for one in failed] == [("id-1", 400), ("id-2", 404)]
    assert failed[0]["response"]["body"]["error"]["param"] == "temperature"


async def test_an_engines_refusal_is_the_error_of_its_line(client: openai.AsyncOpenAI, engine: ScriptedEngine) -> None:
    engine.play(whole(b'{"error":{"message":"bad grammar"}}', 400))

    done = await ended(client, (await made(client, line())).id)

    (failed,) = await lines_of(client, done.error_file_id)
    assert failed["response"]["status_code"] == 400
    assert failed["response"]["body"]["error"]["message"] == "bad grammar"
    assert done.output_file_id is None


@pytest.mark.parametrize(
    ("lines", "code", "number"),
    [
        ([line(0), line(0)], "duplicate_custom_id", 2),
        ([line(0), line(1, url="/v1/embeddings")], "invalid_url", 2),
        ([line(0, method="GET")], "invalid_method", 1),
        ([line(0, custom_id=5)], "invalid_custom_id", 1),
        ([line(0) | {"body": 5}], "invalid_body", 1),
        ([], "empty_file", None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_file_with_wrong_lines_fails_the_batch_before_anything_runs(
    client: openai.AsyncOpenAI, engine: ScriptedEngine, lines: list[dict[str, Any]], code: str, number: int | None
) -> None:
    failed = await ended(client, (await made(client, *lines)).id)

    assert failed.status == "failed"
    assert failed.errors is not None
    assert failed.errors.data is not None
    assert [(error.code, error.line) for error in failed.errors.data] == [(code, number)]
    assert not engine.asked


async def test_a_cancelled_batch_keeps_what_was_answered(client: openai.AsyncOpenAI, engine: ScriptedEngine) -> None:
    engine.play(answer())
    engine.play(Wait(asyncio.Event()))
    batch = await made(client, line(0), line(1), *(line(number) for number in range(2, 12)))
    await engine.request(1)
    await until(client, batch.id, begun)

    cancelling = await client.batches.cancel(batch.id)
    done = await ended(client, batch.id)

    assert cancelling.status in ("cancelling", "cancelled")
    assert done.status == "cancelled"
    assert done.cancelled_at is not None
    output, failed = await lines_of(client, done.output_file_id), await lines_of(client, done.error_file_id)
    assert len(output) >= 1
    assert len(output) + len(failed) == 12
    assert {one["error"]["code"] for one in failed} == {"batch_cancelled"}
    assert (await client.batches.cancel(batch.id)).status == "cancelled"


@pytest.mark.parametrize(
    ("endpoint", "body", "reply"),
    [
        ("/v1/completions", {"prompt": "Once"}, {"object": "text_completion", "choices": [{"text": " upon"}]}),
        ("/v1/embeddings", {"input": "Once"}, {"object": "list", "data": [{"embedding": [0.5], "index": 0}]}),
    ],
    ids=["completions", "embeddings"],
)
async def test_other_endpoints_run_too(
    client: openai.AsyncOpenAI, engine: ScriptedEngine, endpoint: str, body: dict[str, Any], reply: dict[str, Any]
) -> None:
    engine.play(whole(json.dumps(reply).encode()))

    batch = await made(client, line(url=endpoint, body={"model": "m"} | body), endpoint=endpoint)

    done = await ended(client, batch.id)
    (output,) = await lines_of(client, done.output_file_id)
    assert output["response"]["body"] == reply
    assert engine.asked[0].path.endswith(endpoint)


async def test_lines_of_responses_are_answered_with_response_objects(
    client: openai.AsyncOpenAI, engine: ScriptedEngine
) -> None:
    engine.play(answer())
    asked = line(url="/v1/responses", body={"model": "m", "input": "Hi", "instructions": "Be kind."})

    done = await ended(client, (await made(client, asked, endpoint="/v1/responses")).id)

    (output,) = await lines_of(client, done.output_file_id)
    body = output["response"]["body"]
    assert (body["object"], body["status"], body["instructions"]) == ("response", "completed", "Be kind.")
    assert body["output"][0]["content"][0]["text"] == "Hello"
    assert done.usage is not None
    assert done.usage.total_tokens == 9


async def test_a_batch_goes_on_after_a_restart_and_asks_no_answered_line_again(
    make_node: MakeNode, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.node.GRACE_S", 0.0)
    engine.play(answer("before"))
    engine.play(Wait(asyncio.Event()))
    first = await make_node(engine, concurrency=1)
    async with client_of(first) as client:
        batch = await made(client, *(line(number) for number in range(6)))
        await engine.request(1)
        await until(client, batch.id, begun)
    await first.stop()
    before = questions(engine)
    engine.play(answer("after"))

    second = await make_node(engine, concurrency=1)

    async with client_of(second) as client:
        done = await ended(client, batch.id)
        output = await lines_of(client, done.output_file_id)
    assert done.status == "completed"
    assert [one["custom_id"] for one in output] == [f"id-{number}" for number in range(6)]
    said = [one["response"]["body"]["choices"][0]["message"]["content"] for one in output]
    assert sorted(said) == ["after"] * 5 + ["before"]
    answered = f"Question {said.index('before')}"
    assert questions(engine).count(answered) == 1
    assert len(questions(engine)) == len(before) + 5


async def test_batches_are_listed_in_pages_the_newest_first(client: openai.AsyncOpenAI, engine: ScriptedEngine) -> None:
    engine.play(answer())
    ids = [(await made(client, line())).id for _ in range(3)]

    first = await client.batches.list(limit=2)

    assert [batch.id for batch in first.data] == ids[:0:-1]
    assert first.has_more
    assert [batch.id async for batch in client.batches.list(limit=2)] == ids[::-1]


async def test_files_are_uploaded_shown_read_and_deleted(client: openai.AsyncOpenAI) -> None:
    name, content = file_of(line())
    uploaded = await client.files.create(
        file=("../" + name, content), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )

    assert (uploaded.filename, uploaded.bytes, uploaded.purpose) == (name, len(content), "batch")
    assert uploaded.expires_at == uploaded.created_at + 3600
    assert await client.files.retrieve(uploaded.id) == uploaded
    assert (await client.files.content(uploaded.id)).content == content
    assert [file.id async for file in client.files.list()] == [uploaded.id]
    assert [file.id async for file in client.files.list(purpose="batch_output")] == []
    assert (await client.files.delete(uploaded.id)).deleted
    with pytest.raises(openai.NotFoundError):
        await client.files.content(uploaded.id)


async def test_a_file_that_a_batch_reads_can_not_be_deleted(client: openai.AsyncOpenAI, engine: ScriptedEngine) -> None:
    go = asyncio.Event()
    engine.play(Wait(go), answer())
    batch = await made(client, line())
    await engine.request()

    with pytest.raises(openai.ConflictError):
        await client.files.delete(batch.input_file_id)

    go.set()
    await ended(client, batch.id)
    assert (await client.files.delete(batch.input_file_id)).deleted


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"endpoint": "/v1/moderations"}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"input_file_id": "file-unknown"}, "input_file_id"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 5}}, "output_expires_after"),
    ],
    ids=str,
)
async def test_a_batch_that_can_not_be_is_refused_by_the_name_of_its_field(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession, asked: dict[str, Any], field: str
) -> None:
    node = await make_node(engine)
    async with client_of(node) as client:
        uploaded = await client.files.create(file=file_of(line()), purpose="batch")
    good = {"input_file_id": uploaded.id, "endpoint": CHAT, "completion_window": "24h"}

    async with http.post(f"{node.address}/v1/batches", json=good | asked) as response:
        refused = await response.json()

    assert response.status == 400
    assert refused["error"]["param"] == field
    async with http.get(f"{node.address}/v1/batches") as response:
        assert (await response.json())["data"] == []


async def test_one_idempotency_key_is_one_batch_at_once_and_after_a_restart(
    make_node: MakeNode, engine: ScriptedEngine
) -> None:
    engine.play(answer())
    node = await make_node(engine)
    again = {"Idempotency-Key": "k"}
    async with client_of(node) as client:
        file = await client.files.create(file=file_of(line()), purpose="batch")

        async def make(**headers: str) -> Batch:
            return await client.batches.create(
                input_file_id=file.id, endpoint=CHAT, completion_window="24h", extra_headers=headers
            )

        many = await asyncio.gather(*(make(**again) for _ in range(20)))
        assert {batch.id for batch in many} == {many[0].id}
        await ended(client, many[0].id)
        other = await make(**{"Idempotency-Key": "another"})
        assert other.id != many[0].id
        with pytest.raises(openai.ConflictError):
            await client.batches.create(
                input_file_id=file.id,
                endpoint=CHAT,
                completion_window="24h",
                metadata={"a": "b"},
                extra_headers=again,
            )
        await ended(client, other.id)
    await node.stop()
    async with client_of(await make_node(engine)) as client:
        later = await client.batches.create(
            input_file_id=file.id, endpoint=CHAT, completion_window="24h", extra_headers=again
        )
        assert (later.id, later.status) == (many[0].id, "completed")
        assert len((await client.batches.list()).data) == 2
    assert len(questions(engine)) == 2


async def test_files_take_room_from_jobs_that_live_on_and_from_new_batches(
    make_node: MakeNode, engine: ScriptedEngine
) -> None:
    engine.play(answer())
    node = await make_node(engine, bodies_mib=1)
    async with client_of(node) as client:
        padded = line(body={"model": "m", "messages": [{"role": "user", "content": "x" * 600_000}]})
        file = await client.files.create(file=file_of(padded), purpose="batch")
        for ask in (
            client.responses.create(model="m", input="x" * 600_000, background=True),
            client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h"),
        ):
            with pytest.raises(openai.RateLimitError) as refused:
                await ask
            assert int(refused.value.response.headers["Retry-After"]) > 0
        await client.files.delete(file.id)
        response = await client.responses.create(model="m", input="x" * 300_000, background=True)
        assert response.status in ("queued", "in_progress", "completed")
    assert questions(engine) in ([], ["x" * 300_000])
