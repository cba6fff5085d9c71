"""The official clients on responses, batches and messages, against a real node with a real engine."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import anthropic
import openai
import pytest

from router.node import Node
from router.settings import NodeOptions
from tests.router.web.test_batches import ended

pytestmark = pytest.mark.engine
MODEL = "smollm2:135m"
HELLO = [{"role": "user", "content": "Say hello in one short sentence."}]


@pytest.fixture
async def node(tmp_path: Path, starter_model: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    """A node with the built-in engine and the starter model, nothing else."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("QUORUM_STARTER_MODEL", str(starter_model))
    settings = {"port": 0, "engines": "http://127.0.0.1:9/v1", "context": 2048, "find_models": False}
    made = Node(NodeOptions(tmp_path / "data", settings, discovery=False, log_level="warning"))
    await made.start()
    await made.ready()
    yield made
    await made.stop()


@pytest.fixture
async def openai_client(node: Node) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{node.address}/v1", api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture
async def anthropic_client(node: Node) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=node.address, api_key="unused", max_retries=0) as client:
        yield client


async def test_openai_responses_are_answered_streamed_and_continued(openai_client: openai.AsyncOpenAI) -> None:
    asked = {"model": MODEL, "max_output_tokens": 24, "temperature": 0, "instructions": "You are kind."}
    whole = await openai_client.responses.create(input=HELLO[0]["content"], **asked)  # type: ignore[call-overload]
    said, last = "", None
    async with openai_client.responses.stream(input=HELLO[0]["content"], **asked) as events:
        async for one in events:
            said += one.delta if one.type == "response.output_text.delta" else ""
            last = one
    assert said == whole.output_text != ""
    assert last is not None
    assert last.type in ("response.completed", "response.incomplete")
    assert last.response.usage is not None
    assert last.response.usage.total_tokens == whole.usage.total_tokens
    assert whole.usage.input_tokens > 5

    more = await openai_client.responses.create(
        model=MODEL, input="And again.", previous_response_id=whole.id, max_output_tokens=8, background=True
    )
    async for one in await openai_client.responses.retrieve(more.id, stream=True):
        last = one
    done = await openai_client.responses.retrieve(more.id)
    assert done.output_text
    assert done.usage is not None
    assert done.usage.input_tokens > whole.usage.input_tokens


async def test_openai_batches_of_chats_and_embeddings_run_on_the_engine(openai_client: openai.AsyncOpenAI) -> None:
    bodies = {
        "/v1/chat/completions": {"model": MODEL, "messages": HELLO, "max_tokens": 8},
        "/v1/embeddings": {"model": MODEL, "input": "one"},
        "/v1/responses": {"model": MODEL, "input": "Hello", "max_output_tokens": 8},
    }
    for endpoint, body in bodies.items():
        lines = [{"custom_id": str(n), "method": "POST", "url": endpoint, "body": body} for n in range(2)]
        content = "\n".join(json.dumps(line) for line in lines).encode()
        uploaded = await openai_client.files.create(file=("lines.jsonl", content), purpose="batch")
        batch = await openai_client.batches.create(
            input_file_id=uploaded.id, endpoint=endpoint, completion_window="24h"
        )
        done = await ended(openai_client, batch.id)
        assert done.status == "completed", endpoint
        output = (await openai_client.files.content(done.output_file_id or "")).text.splitlines()
        assert [json.loads(line)["custom_id"] for line in output] == ["0", "1"]
        assert done.usage is not None
        assert done.usage.input_tokens > 0


async def test_anthropic_messages_are_answered_streamed_and_counted(
    node: Node, anthropic_client: anthropic.AsyncAnthropic
) -> None:
    asked = {"model": MODEL, "messages": HELLO, "system": "You are kind."}
    cold = await anthropic_client.messages.with_raw_response.count_tokens(**asked)  # type: ignore[arg-type]
    assert cold.headers["X-Quorum-Estimate"] == "1"
    zero = {"extra_body": {"temperature": 0}, "max_tokens": 24}
    whole = await anthropic_client.messages.create(**asked, **zero)  # type: ignore[call-overload]
    async with anthropic_client.messages.stream(**asked, **zero) as events:  # type: ignore[arg-type]
        said = "".join([text async for text in events.text_stream])
        final = await events.get_final_message()
    assert said == whole.content[0].text != ""
    assert final.stop_reason == whole.stop_reason
    assert final.usage.output_tokens == whole.usage.output_tokens

    warm = await anthropic_client.messages.with_raw_response.count_tokens(**asked)  # type: ignore[arg-type]
    assert "X-Quorum-Estimate" not in warm.headers
    counted = (await warm.parse()).input_tokens
    assert counted == whole.usage.input_tokens + whole.usage.cache_read_input_tokens
