"""OpenAI's official client on ``/v1/responses`` of a real node, whose engine does as its script says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent

from router.node import Node
from tests.fakes import BOUND_S, DONE, ScriptedEngine, Wait, chunk, event, happens, head, stream, whole
from tests.router.node_process import NodeProcess

MakeNode = Callable[..., Awaitable[Node]]
USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}}
TOOL = {"type": "function", "name": "weather", "description": "d", "parameters": {"type": "object"}, "strict": None}


def completion(content: str | None = "Hello there", finish: str = "stop", **message: Any) -> bytes:
    """A whole answer of an engine, with its head."""
    said = {"role": "assistant", "content": content} | message
    choice = {"index": 0, "message": said, "finish_reason": finish}
    return whole(json.dumps({"id": "c", "object": "chat.completion", "choices": [choice], "usage": USAGE}).encode())


@asynccontextmanager
async def client_of(node: Node | NodeProcess) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{node.address}/v1", api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture
async def node(make_node: MakeNode, engine: ScriptedEngine) -> Node:
    return await make_node(engine)


@pytest.fixture
async def client(node: Node) -> AsyncIterator[openai.AsyncOpenAI]:
    async with client_of(node) as made:
        yield made


async def ended(client: openai.AsyncOpenAI, response_id: str) -> Response:
    """The response once it has ended: its stream is followed to the end."""
    async with asyncio.timeout(BOUND_S):
        async for _ in await client.responses.retrieve(response_id, stream=True):
            pass
    return await client.responses.retrieve(response_id)


async def collected(events: AsyncIterator[ResponseStreamEvent]) -> list[ResponseStreamEvent]:
    async with asyncio.timeout(BOUND_S):
        return [one async for one in events]


def body(engine: ScriptedEngine, number: int = -1) -> dict[str, Any]:
    """What the engine was asked."""
    asked: dict[str, Any] = json.loads(engine.asked[number].body)
    return asked


async def test_a_question_is_answered_as_a_response_object(client: openai.AsyncOpenAI, engine: ScriptedEngine) -> None:
    engine.play(completion())

    answer = await client.responses.create(
        model="m",
        input="Hello",
        instructions="Be brief.",
        temperature=0.5,
        top_p=0.9,
        max_output_tokens=20,
        metadata={"a": "b"},
    )

    assert (answer.status, answer.output_text, answer.object) == ("completed", "Hello there", "response")
    assert answer.id.startswith("resp_")
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (7, 2, 9)
    assert answer.usage.input_tokens_details.cached_tokens == 3
    assert (answer.metadata, answer.instructions, answer.temperature) == ({"a": "b"}, "Be brief.", 0.5)
    assert (answer.max_output_tokens, answer.error, answer.incomplete_details) == (20, None, None)
    assert answer.completed_at is not None
    asked = body(engine)
    assert asked["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
    ]
    assert (asked["max_tokens"], asked["temperature"], asked["top_p"]) == (20, 0.5, 0.9)
    assert "stream" not in asked


async def test_a_stream_has_the_events_of_the_api_in_their_order(
    client: openai.AsyncOpenAI, engine: ScriptedEngine
) -> None:
    engine.play(head(), stream("Hel", "lo", usage=USAGE))

    events = await collected(await client.responses.create(model="m", input="Hi", stream=True))

    assert [one.type for one in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [one.sequence_number for one in events] == list(range(10))
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == "Hello"
    assert last.response.usage is not None
    assert last.response.usage.total_tokens == 9
    assert body(engine)["stream_options"] == {"include_usage": True}


async def test_the_clients_own_stream_helper_builds_the_same_answer(
    client: openai.AsyncOpenAI, engine: ScriptedEngine
) -> None:
    thinking = event({"choices": [{"index": 0, "delta": {"reasoning_content": "Hm."}}]})
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":'}}
    more = {"index": 0, "function": {"arguments": ' "Rome"}'}}
    calls = [event({"choices": [{"index": 0, "delta": {"tool_calls": [one]}}]}) for one in (call, more)]
    engine.play(head(), chunk(role=True), thinking, chunk("Let me"), chunk(" see."), *calls)
    engine.scripts[-1] += (chunk(finish="tool_calls"), DONE)

    async with client.responses.stream(model="m", input="Weather?", tools=[TOOL]) as events:  # type: ignore[list-item]
        kinds = [one.type async for one in events]
        final = await events.get_final_response()

    assert "response.reasoning_text.delta" in kinds
    assert "response.function_call_arguments.delta" in kinds
    assert [item.type for item in final.output] == ["reasoning", "message", "function_call"]
    assert final.output_text == "Let me see."
    called = final.output[2]
    assert called.type == "function_call"
    assert (called.name, called.call_id, called.arguments) == ("weather", "c1", '{"city": "Rome"}')
    assert body(engine)["tools"] == [
        {"type": "function", "function": {"name": "weather", "description": "d", "parameters": {"type": "object"}}}
    ]


async def test_the_result_of_a_function_goes_back_to_the_model(
    client: openai.AsyncOpenAI, engine: ScriptedEngine
) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    engine.play(completion(None, "tool_calls", tool_calls=[call]))
    engine.play(completion("It is warm."))
    first = await client.responses.create(model="m", input="Weather?", tools=[TOOL])  # type: ignore[list-item]
    (called,) = first.output
    assert called.type == "function_call"

    second = await client.responses.create(
        model="m",
        previous_response_id=first.id,
        input=[{"type": "function_call_output", "call_id": called.call_id, "output": "20 degrees"}],
    )

    assert second.output_text == "It is warm."
    assert second.previous_response_id == first.id
    assert body(engine)["messages"] == [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "20 degrees"},
    ]


async def test_a_conversation_goes_on_by_id_without_the_earlier_instructions(
    client: openai.AsyncOpenAI, engine: ScriptedEngine
) -> None:
    for said in ("One.", "Two.", "Three."):
        engine.play(completion(said))
    first = await client.responses.create(model="m", input="1?", instructions="Count.")
    second = await client.responses.create(model="m", input="2?", instructions="Go on.", previous_response_id=first.id)

    await client.responses.create(model="m", input="3?", previous_response_id=second.id)

    assert [(m["role"], m["content"]) for m in body(engine, 1)["messages"]] == [
        ("system", "Go on."),
        ("user", "1?"),
        ("assistant", "One."),
        ("user", "2?"),
    ]
    assert [m["content"] for m in body(engine, 2)["messages"]] == ["1?", "One.", "2?", "Two.", "3?"]


async def test_items_may_be_sent_back_or_referred_to(client: openai.AsyncOpenAI, engine: ScriptedEngine) -> None:
    engine.play(completion("One.", reasoning_content="Hm."))
    engine.play(completion("Two."))
    engine.play(completion("Three."))
    first = await client.responses.create(model="m", input="1?")
    sent = [item.model_dump() for item in first.output]
    referred = [{"type": "item_reference", "id": item.id} for item in first.output]
    asked = {"role": "user", "content": [{"type": "input_text", "text": "2?"}]}

    await client.responses.create(model="m", input=[*sent, asked])  # type: ignore[list-item]
    await client.responses.create(model="m", input=[*referred, asked])  # type: ignore[list-item]

    expected = [{"role": "assistant", "content": "One."}, {"role": "user", "content": "2?"}]
    assert body(engine, 1)["messages"] == expected
    assert body(engine, 2)["messages"] == expected


async def test_a_background_response_is_queued_fetched_and_followed(
    client: openai.AsyncOpenAI, engine: ScriptedEngine
) -> None:
    go = asyncio.Event()
    engine.play(Wait(go), completion())

    queued = await client.responses.create(model="m", input="Hello", background=True)
    assert (queued.status, queued.background, queued.output) == ("queued", True, [])
    await engine.request()
    assert (await client.responses.retrieve(queued.id)).status == "in_progress"
    go.set()
    done = await ended(client, queued.id)

    assert (done.status, done.output_text) == ("completed", "Hello there")
    items = await client.responses.input_items.list(queued.id)
    assert [item.content[0].text for item in items.data] == ["Hello"]  # type: ignore[union-attr]


async def test_a_background_stream_is_resumed_by_starting_after(
    client: openai.AsyncOpenAI, engine: ScriptedEngine
) -> None:
    go = asyncio.Event()
    engine.play(head(), chunk(role=True), chunk("One "), chunk("two "), Wait(go), chunk("three"))
    engine.scripts[-1] += (chunk(finish="stop"), DONE)
    streaming = await client.responses.create(model="m", input="Count", background=True, stream=True)
    seen: list[ResponseStreamEvent] = []
    async with asyncio.timeout(BOUND_S):
        async for one in streaming:
            seen.append(one)
            if one.type == "response.output_text.delta" and one.delta == "two ":
                break
    await streaming.close()
    assert seen[0].type == "response.created"
    response_id = seen[0].response.id

    resumed = await client.responses.retrieve(response_id, stream=True, starting_after=seen[-1].sequence_number)
    go.set()
    rest = await collected(resumed)

    numbers = [one.sequence_number for one in [*seen, *rest]]
    assert numbers == list(range(len(numbers)))
    assert "".join(one.delta for one in [*seen, *rest] if one.type == "response.output_text.delta") == "One two three"
    again = await collected(await client.responses.retrieve(response_id, stream=True))
    assert [(one.type, one.sequence_number) for one in again] == [
        (one.type, one.sequence_number) for one in [*seen, *rest]
    ]


async def test_cancelling_stops_the_generation_and_keeps_what_was_said(
    client: openai.AsyncOpenAI, engine: ScriptedEngine
) -> None:
    engine.play(head(), chunk(role=True), chunk("Some"), Wait(asyncio.Event()))
    streaming = await client.responses.create(model="m", input="Count", background=True, stream=True)
    async with asyncio.timeout(BOUND_S):
        async for one in streaming:
            if one.type == "response.created":
                response_id = one.response.id
            if one.type == "response.output_text.delta":
                break

    cancelled = await client.responses.cancel(response_id)

    assert (cancelled.status, cancelled.output_text) == ("cancelled", "Some")
    await happens(engine.asked[0].gone)
    last = (await collected(streaming))[-1]
    assert (last.type, last.response.status) == ("response.incomplete", "cancelled")  # type: ignore[union-attr]
    assert (await client.responses.cancel(response_id)).status == "cancelled"


async def test_a_deleted_response_is_gone(client: openai.AsyncOpenAI, engine: ScriptedEngine) -> None:
    engine.play(completion())
    made = await client.responses.create(model="m", input="Hello")

    await client.responses.delete(made.id)

    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(made.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.create(model="m", input="On", previous_response_id=made.id)


async def test_what_is_not_to_be_stored_can_not_be_fetched(client: openai.AsyncOpenAI, engine: ScriptedEngine) -> None:
    engine.play(completion())

    made = await client.responses.create(model="m", input="Hello", store=False)

    assert made.output_text == "Hello there"
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(made.id)


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
async def test_a_response_outlives_the_node(make_node: MakeNode, engine: ScriptedEngine, *, streaming: bool) -> None:
    engine.play(head(), stream("Hello")) if streaming else engine.play(completion("Hello"))
    first = await make_node(engine)
    async with client_of(first) as client:
        queued = await client.responses.create(model="m", input="Hi", background=True, stream=streaming)  # type: ignore[call-overload]
        if streaming:
            before = await collected(queued)
            response_id = before[0].response.id  # type: ignore[union-attr]
        else:
            response_id = queued.id
            before = await collected(await client.responses.retrieve(response_id, stream=True))
    await first.stop()

    second = await make_node(engine)

    async with client_of(second) as client:
        kept = await client.responses.retrieve(response_id)
        again = await collected(await client.responses.retrieve(response_id, stream=True, starting_after=1))
        engine.play(completion("More"))
        more = await client.responses.create(model="m", input="And?", previous_response_id=response_id)
    assert (kept.status, kept.output_text) == ("completed", "Hello")
    assert again == before[2:]
    assert more.output_text == "More"


async def test_an_answer_cut_by_a_restart_begins_again_with_higher_numbers(
    make_node: MakeNode, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.node.GRACE_S", 0.0)
    engine.play(head(), chunk(role=True), chunk("Lost"), Wait(asyncio.Event()))
    first = await make_node(engine)
    async with client_of(first) as client:
        streaming = await client.responses.create(model="m", input="Hi", background=True, stream=True)
        seen = []
        async with asyncio.timeout(BOUND_S):
            async for one in streaming:
                seen.append(one)
                if one.type == "response.output_text.delta":
                    break
        response_id = seen[0].response.id  # type: ignore[union-attr]
        await streaming.close()
    await first.stop()
    engine.play(head(), stream("Whole"))

    second = await make_node(engine)

    async with client_of(second) as client:
        after = seen[-1].sequence_number
        events = await collected(await client.responses.retrieve(response_id, stream=True, starting_after=after))
        done = await client.responses.retrieve(response_id)
    assert events[0].type == "response.created"
    assert min(one.sequence_number for one in events) > after
    assert "".join(one.delta for one in events if one.type == "response.output_text.delta") == "Whole"
    assert done.output_text == "Whole"


@pytest.mark.timeout(180)
async def test_a_background_answer_survives_the_kill_of_its_node(tmp_path: Path, engine: ScriptedEngine) -> None:
    engine.play(head(), chunk(role=True), chunk("Lost"), Wait(asyncio.Event()))
    async with NodeProcess(tmp_path, engine.url) as node:
        async with client_of(node) as client:
            streaming = await client.responses.create(model="m", input="Hi", background=True, stream=True)
            seen = []
            async with asyncio.timeout(BOUND_S):
                async for one in streaming:
                    seen.append(one)
                    if one.type == "response.output_text.delta":
                        break
            response_id = seen[0].response.id  # type: ignore[union-attr]
            await streaming.close()
        await node.kill()
        engine.play(head(), stream("Whole"))
        await node.start()
        async with client_of(node) as client:
            after = seen[-1].sequence_number
            events = await collected(await client.responses.retrieve(response_id, stream=True, starting_after=after))
            done = await client.responses.retrieve(response_id)
    assert events[0].type == "response.created"
    assert min(one.sequence_number for one in events) > after
    assert events[-1].type == "response.completed"
    assert done.output_text == "Whole"


async def test_a_long_answer_is_told_again_event_by_event(client: openai.AsyncOpenAI, engine: ScriptedEngine) -> None:
    words = [f"word{number} " for number in range(3000)]
    engine.play(head(), stream(*words))
    first = await collected(await client.responses.create(model="m", input="Go on", stream=True))
    response_id = first[0].response.id  # type: ignore[union-attr]

    again = await collected(await client.responses.retrieve(response_id, stream=True))
    whole_answer = await client.responses.retrieve(response_id)

    assert again == first
    assert whole_answer.output_text == "".join(words)


async def test_an_answer_cut_by_its_length_is_incomplete(client: openai.AsyncOpenAI, engine: ScriptedEngine) -> None:
    engine.play(completion("Too lo", "length"))

    answer = await client.responses.create(model="m", input="Hello", max_output_tokens=2)

    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"
    (item,) = answer.output
    assert item.status == "incomplete"  # type: ignore[union-attr]


async def test_an_answer_that_breaks_off_fails_with_what_was_said(
    client: openai.AsyncOpenAI, engine: ScriptedEngine
) -> None:
    engine.play(head(), chunk(role=True), chunk("Half"))

    events = await collected(await client.responses.create(model="m", input="Hello", stream=True))

    last = events[-1]
    assert last.type == "response.failed"
    assert last.response.status == "failed"
    assert last.response.output_text == "Half"
    assert last.response.error is not None
    assert (last.response.error.code, last.response.error.type) == ("server_error", "interrupted")
    kept = await client.responses.retrieve(last.response.id)
    assert (kept.status, kept.output_text) == ("failed", "Half")


async def test_a_failed_background_response_says_why(make_node: MakeNode, engine: ScriptedEngine) -> None:
    engine.play(whole(b'{"error":{"message":"bad grammar"}}', 400))
    node = await make_node(engine)
    async with client_of(node) as client:
        queued = await client.responses.create(model="m", input="Hello", background=True)

        failed = await ended(client, queued.id)

    assert failed.status == "failed"
    assert failed.error is not None
    assert (failed.error.code, failed.error.message) == ("invalid_prompt", "bad grammar")


async def test_the_format_of_the_text_is_asked_of_the_engine(
    client: openai.AsyncOpenAI, engine: ScriptedEngine
) -> None:
    engine.play(completion('{"name":"red"}'))
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}

    await client.responses.create(
        model="m",
        input="A colour",
        text={"format": {"type": "json_schema", "name": "colour", "schema": schema, "strict": True}},
    )

    assert body(engine)["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "colour", "schema": schema, "strict": True},
    }


async def test_a_client_that_leaves_stops_a_plain_response_and_no_background_one(
    client: openai.AsyncOpenAI, engine: ScriptedEngine
) -> None:
    go = asyncio.Event()
    engine.play(head(), chunk(role=True), chunk("One"), Wait(asyncio.Event()))
    plain = await client.responses.create(model="m", input="Hi", stream=True)
    await anext(aiter(plain))
    await plain.close()
    await happens(engine.asked[0].gone)
    engine.play(head(), chunk(role=True), chunk("One"), Wait(go), chunk(" two"), chunk(finish="stop"), DONE)
    background = await client.responses.create(model="m", input="Hi", background=True, stream=True)
    created = await anext(aiter(background))
    await background.close()

    go.set()

    assert created.type == "response.created"
    assert (await ended(client, created.response.id)).output_text == "One two"


async def test_while_it_waits_a_stream_is_open_and_speaks_in_comments(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.web.sink.HOLD_S", 0.01)
    go = asyncio.Event()
    engine.play(Wait(go), head(), stream("Late"))
    node = await make_node(engine)

    async with http.post(
        f"{node.address}/v1/responses", json={"model": "m", "input": "Hi", "stream": True}
    ) as response:
        got = await response.content.readuntil(b": working")
        go.set()
        got += await response.content.read()

    assert got.index(b"event: response.created") < got.index(b": working") < got.index(b"output_text.delta")
    assert got.count(b"event: response.created") == 1
    assert b"event: response.completed" in got


async def test_the_same_idempotency_key_is_the_same_response(
    client: openai.AsyncOpenAI, engine: ScriptedEngine
) -> None:
    engine.play(completion())
    headers = {"Idempotency-Key": "once"}
    first = await client.responses.create(model="m", input="Hello", extra_headers=headers)

    second = await client.responses.create(model="m", input="Hello", extra_headers=headers)

    assert second == first
    assert len(engine.asked) == 1
    with pytest.raises(openai.ConflictError):
        await client.responses.create(model="m", input="Other", extra_headers=headers)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"input": "x", "tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"input": "x", "conversation": "conv_1"}, "conversation"),
        ({"input": "x", "prompt": {"id": "p"}}, "prompt"),
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"type": "computer_call_output"}]}, "input[0].type"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://a/b.png"}]}]},
         "input[0].content[0].image_url"),
        ({"input": "x", "previous_response_id": "resp_unknown"}, "previous_response_id"),
        ({"input": "x", "background": True, "store": False}, "store"),
        ({"input": "x", "max_output_tokens": 0}, "max_output_tokens"),
        ({"input": "x", "temperature": 9}, "temperature"),
        ({"input": "x", "metadata": {"a": 1}}, "metadata"),
        ({"input": "x", "tool_choice": {"type": "file_search"}}, "tool_choice"),
        ({"input": "x", "text": {"format": {"type": "grammar"}}}, "text.format"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
    ],
    ids=str,
)  # fmt: skip
async def test_what_can_not_be_done_is_refused_by_the_name_of_its_field(
    node: Node, http: aiohttp.ClientSession, asked: dict[str, Any], field: str
) -> None:
    async with http.post(f"{node.address}/v1/responses", json={"model": "m"} | asked) as response:
        answer = await response.json()

    assert response.status in (400, 404)
    assert answer["error"]["param"] == field
