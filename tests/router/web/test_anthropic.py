"""Anthropic's official client on ``/v1/messages`` of a real node, whose engine does as its script says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import anthropic
import pytest

from router.node import Node
from tests.fakes import BOUND_S, DONE, ScriptedEngine, Wait, chunk, event, happens, head, stream, whole

MakeNode = Callable[..., Awaitable[Node]]
USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}}
TOOL = {"name": "weather", "description": "d", "input_schema": {"type": "object"}}
HELLO = [{"role": "user", "content": "Hello"}]


def completion(content: str | None = "Hello there", finish: str = "stop", **message: Any) -> bytes:
    """A whole answer of an engine, with its head."""
    said = {"role": "assistant", "content": content} | message
    choice = {"index": 0, "message": said, "finish_reason": finish}
    return whole(json.dumps({"id": "c", "object": "chat.completion", "choices": [choice], "usage": USAGE}).encode())


@pytest.fixture
async def node(make_node: MakeNode, engine: ScriptedEngine) -> Node:
    return await make_node(engine)


@pytest.fixture
async def client(node: Node) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=node.address, api_key="unused", max_retries=0) as made:
        yield made


def body(engine: ScriptedEngine) -> dict[str, Any]:
    """What the engine was asked last."""
    asked: dict[str, Any] = json.loads(engine.asked[-1].body)
    return asked


async def raw(http: aiohttp.ClientSession, node: Node, **asked: Any) -> list[dict[str, Any]]:
    """The events of a stream as they were sent; the name of each is that of its data."""
    asked = {"model": "m", "max_tokens": 9, "messages": HELLO, "stream": True} | asked
    async with asyncio.timeout(BOUND_S), http.post(f"{node.address}/v1/messages", json=asked) as response:
        text = (await response.read()).decode()
    events = []
    for one in text.split("\n\n")[:-1]:
        name, data = one.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events


async def test_a_question_is_answered_as_a_message(client: anthropic.AsyncAnthropic, engine: ScriptedEngine) -> None:
    engine.play(completion())

    answer = await client.messages.create(
        model="m",
        max_tokens=20,
        system="Be brief.",
        messages=HELLO,  # type: ignore[arg-type]
        stop_sequences=["END"],
        extra_body={"temperature": 0.5, "top_k": 3},
    )

    assert answer.id.startswith("msg_")
    assert (answer.role, answer.model, answer.stop_reason) == ("assistant", "m", "end_turn")
    assert [block.text for block in answer.content if block.type == "text"] == ["Hello there"]
    assert (answer.usage.input_tokens, answer.usage.cache_read_input_tokens, answer.usage.output_tokens) == (4, 3, 2)
    asked = body(engine)
    assert asked["messages"] == [{"role": "system", "content": "Be brief."}, *HELLO]
    assert (asked["max_tokens"], asked["temperature"], asked["top_k"], asked["stop"]) == (20, 0.5, 3, ["END"])


async def test_a_stream_has_the_events_of_the_api_in_their_order(
    node: Node, http: aiohttp.ClientSession, engine: ScriptedEngine
) -> None:
    engine.play(head(), stream("Hel", "lo", usage=USAGE))

    events = await raw(http, node)

    assert [one["type"] for one in events] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert events[0]["message"]["content"] == []
    assert events[1]["content_block"] == {"type": "text", "text": ""}
    assert [one["delta"] for one in events[2:4]] == [
        {"type": "text_delta", "text": "Hel"},
        {"type": "text_delta", "text": "lo"},
    ]
    assert events[5]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert events[5]["usage"]["output_tokens"] == 2


async def test_the_clients_stream_helper_builds_thinking_text_and_calls(
    client: anthropic.AsyncAnthropic, engine: ScriptedEngine
) -> None:
    thinking = event({"choices": [{"index": 0, "delta": {"reasoning_content": "Hm."}}]})
    pieces = [
        {"index": 0, "id": "c1", "function": {"name": "weather", "arguments": '{"city":'}},
        {"index": 1, "id": "c2", "function": {"name": "time", "arguments": "{"}},
        {"index": 0, "function": {"arguments": ' "Rome"}'}},
        {"index": 1, "function": {"arguments": "}"}},
    ]
    calls = [event({"choices": [{"index": 0, "delta": {"tool_calls": [one]}}]}) for one in pieces]
    engine.play(head(), chunk(role=True), thinking, chunk("Let me"), chunk(" see."), *calls)
    engine.scripts[-1] += (chunk(finish="tool_calls"), event({"choices": [], "usage": USAGE}), DONE)

    async with client.messages.stream(
        model="m",
        max_tokens=2000,
        messages=HELLO,  # type: ignore[arg-type]
        tools=[TOOL],  # type: ignore[list-item]
        thinking={"type": "enabled", "budget_tokens": 1024},
    ) as events:
        final = await events.get_final_message()

    assert [block.type for block in final.content] == ["thinking", "text", "tool_use", "tool_use"]
    assert final.stop_reason == "tool_use"
    assert [(block.id, block.name, block.input) for block in final.content if block.type == "tool_use"] == [
        ("c1", "weather", {"city": "Rome"}),
        ("c2", "time", {}),
    ]
    assert (final.usage.input_tokens, final.usage.output_tokens) == (4, 2)
    assert body(engine)["chat_template_kwargs"] == {"enable_thinking": True}


async def test_thinking_is_hidden_from_those_who_did_not_ask_for_it(
    client: anthropic.AsyncAnthropic, engine: ScriptedEngine
) -> None:
    engine.play(completion("Yes.", reasoning_content="Hm."))

    answer = await client.messages.create(model="m", max_tokens=9, messages=HELLO)  # type: ignore[arg-type]

    assert [block.type for block in answer.content] == ["text"]


async def test_calls_and_results_of_tools_go_to_the_model(
    client: anthropic.AsyncAnthropic, engine: ScriptedEngine
) -> None:
    image = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    engine.play(completion("Warm."))

    await client.messages.create(
        model="m",
        max_tokens=9,
        tools=[TOOL],  # type: ignore[list-item]
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "Weather?"}, {"type": "image", "source": image}]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": ""},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Rome"}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "20 degrees"}]},
                {"type": "text", "text": "So?"},
            ]},
        ],
    )  # fmt: skip

    asked = body(engine)
    assert asked["messages"][1]["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"city":"Rome"}'}
    assert [(m["role"], m["content"]) for m in asked["messages"][1:]] == [
        ("assistant", "I look."),
        ("tool", "20 degrees"),
        ("user", "So?"),
    ]
    assert asked["messages"][0]["content"][1]["image_url"]["url"] == "data:image/png;base64,iVBORw0KGgo="
    assert (asked["tool_choice"], asked["parallel_tool_calls"]) == ("required", False)
    assert asked["tools"][0]["function"] == {"name": "weather", "description": "d", "parameters": {"type": "object"}}


async def test_an_answer_cut_by_its_length_says_so(client: anthropic.AsyncAnthropic, engine: ScriptedEngine) -> None:
    engine.play(completion("Too lo", "length"))

    answer = await client.messages.create(model="m", max_tokens=2, messages=HELLO)  # type: ignore[arg-type]

    assert answer.stop_reason == "max_tokens"


async def test_while_it_waits_a_stream_is_pinged(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.web.sink.HOLD_S", 0.01)
    go = asyncio.Event()
    engine.play(Wait(go), head(), stream("Late"))
    node = await make_node(engine)
    asked = {"model": "m", "max_tokens": 9, "messages": HELLO, "stream": True}

    async with asyncio.timeout(BOUND_S), http.post(f"{node.address}/v1/messages", json=asked) as response:
        got = await response.content.readuntil(b'data: {"type":"ping"}')
        go.set()
        got += await response.content.read()

    assert got.startswith(b"event: message_start\n")
    assert got.count(b"event: message_start\n") == 1
    assert got.index(b"event: ping") < got.index(b"Late") < got.index(b"event: message_stop")


async def test_an_answer_that_breaks_off_ends_in_an_error_event(
    client: anthropic.AsyncAnthropic, engine: ScriptedEngine
) -> None:
    engine.play(head(), chunk(role=True), chunk("Half"))
    said = ""

    async def read() -> None:
        nonlocal said
        async with client.messages.stream(model="m", max_tokens=9, messages=HELLO) as events:  # type: ignore[arg-type]
            async for text in events.text_stream:
                said += text

    with pytest.raises(anthropic.APIStatusError) as broken:
        await read()

    assert said == "Half"
    assert broken.value.body["error"]["code"] == "interrupted"  # type: ignore[index]


async def test_errors_have_the_shape_of_the_api(client: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        await client.messages.create(model="unknown", max_tokens=9, messages=HELLO)  # type: ignore[arg-type]

    assert missing.value.body["type"] == "error"  # type: ignore[index]
    assert missing.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]


async def test_a_client_that_leaves_stops_the_generation(
    client: anthropic.AsyncAnthropic, engine: ScriptedEngine
) -> None:
    engine.play(head(), chunk(role=True), chunk("One"), Wait(asyncio.Event()))
    streaming = await client.messages.create(model="m", max_tokens=9, messages=HELLO, stream=True)  # type: ignore[arg-type]
    await anext(aiter(streaming))

    await streaming.close()

    await happens(engine.asked[0].gone)


async def test_the_same_idempotency_key_is_the_same_message(
    client: anthropic.AsyncAnthropic, engine: ScriptedEngine
) -> None:
    engine.play(completion())
    headers = {"Idempotency-Key": "once"}
    asked: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": HELLO, "extra_headers": headers}
    first = await client.messages.create(**asked)

    second = await client.messages.create(**asked)

    assert second == first
    assert len(engine.asked) == 1


async def test_a_count_nobody_can_make_is_an_estimate_that_says_so(
    node: Node, client: anthropic.AsyncAnthropic, engine: ScriptedEngine
) -> None:
    short = await client.messages.with_raw_response.count_tokens(model="m", messages=HELLO)  # type: ignore[arg-type]
    long = await client.messages.count_tokens(
        model="m",
        messages=[{"role": "user", "content": "Hello " * 100}],
        tools=[TOOL],  # type: ignore[list-item]
    )

    assert short.headers["X-Quorum-Estimate"] == "1"
    assert 1 <= (await short.parse()).input_tokens < 20
    assert 100 <= long.input_tokens < 400
    assert not engine.asked
    with pytest.raises(anthropic.NotFoundError):
        await client.messages.count_tokens(model="unknown", messages=HELLO)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [
            {"type": "image", "source": {"type": "url", "url": "http://a/b.png"}}]}]}, "messages[0].content[0].source"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0]"),
        ({"tools": [TOOL], "tool_choice": {"type": "some"}}, "tool_choice.type"),
        ({"temperature": 9}, "temperature"),
        ({"stop_sequences": "x"}, "stop_sequences"),
        ({"thinking": {"type": "deep"}}, "thinking.type"),
        ({"mcp_servers": [{"url": "x"}]}, "mcp_servers"),
        ({"system": [{"type": "image"}]}, "system[0]"),
        ({"output_config": {"effort": 5}}, "output_config.effort"),
    ],
    ids=str,
)  # fmt: skip
async def test_what_can_not_be_done_is_refused_by_the_name_of_its_field(
    node: Node, http: aiohttp.ClientSession, asked: dict[str, Any], field: str
) -> None:
    sent = {"model": "m", "max_tokens": 9, "messages": HELLO} | asked
    async with http.post(f"{node.address}/v1/messages", json=sent) as response:
        answer = await response.json()

    assert response.status == 400
    assert answer["type"] == "error"
    assert answer["error"]["type"] == "invalid_request_error"
    assert f"'{field}'" in answer["error"]["message"]
