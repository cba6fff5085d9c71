"""The official clients of OpenAI and Ollama against a real node with a real engine."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import ollama
import openai
import psutil
import pytest

from router.node import Node
from router.settings import NodeOptions

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
async def ollama_client(node: Node) -> AsyncIterator[ollama.AsyncClient]:
    client = ollama.AsyncClient(host=node.address, trust_env=False)
    yield client
    await client._client.aclose()


async def test_openai_lists_answers_and_streams(openai_client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in openai_client.models.list()] == [MODEL]
    whole = await openai_client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=24, temperature=0)  # type: ignore[call-overload]
    assert whole.choices[0].message.content
    assert whole.usage.completion_tokens > 0
    said, usage = "", None
    streaming = await openai_client.chat.completions.create(  # type: ignore[call-overload]
        model=MODEL,
        messages=HELLO,
        max_tokens=24,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    async for part in streaming:
        said += part.choices[0].delta.content or "" if part.choices else ""
        usage = part.usage or usage
    assert said == whole.choices[0].message.content
    assert usage.completion_tokens == whole.usage.completion_tokens


async def test_an_image_for_a_model_that_sees_none_is_refused_before_the_engine_is_asked(
    openai_client: openai.AsyncOpenAI, ollama_client: ollama.AsyncClient
) -> None:
    dot = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    parts = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{dot}"}},
    ]
    with pytest.raises(openai.BadRequestError, match="can't see images"):
        await openai_client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": parts}])  # type: ignore[arg-type,list-item,misc]
    with pytest.raises(ollama.ResponseError, match="can't see images") as caught:
        await ollama_client.chat(MODEL, [{"role": "user", "content": "What is it?", "images": [dot]}])
    assert caught.value.status_code == 400


async def test_openai_completions_json_answers_and_offered_tools(openai_client: openai.AsyncOpenAI) -> None:
    completion = await openai_client.completions.create(model=MODEL, prompt="The capital of France is", max_tokens=8)
    assert completion.choices[0].text
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    shaped = await openai_client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Name a colour as JSON."}],
        max_tokens=64,
        temperature=0,
        response_format={"type": "json_schema", "json_schema": {"name": "colour", "schema": schema}},
    )
    assert (shaped.choices[0].message.content or "").lstrip().startswith("{")
    tool = {"type": "function", "function": {"name": "weather", "description": "Weather", "parameters": schema}}
    called = await openai_client.chat.completions.create(  # type: ignore[call-overload]
        model=MODEL, messages=HELLO, tools=[tool], max_tokens=128, temperature=0
    )
    answer = called.choices[0].message
    assert answer.tool_calls or answer.content  # so small a model need not call it; that it may is the engine's doing


async def test_openai_embeddings_from_a_chat_model(openai_client: openai.AsyncOpenAI) -> None:
    made = await openai_client.embeddings.create(model=MODEL, input=["one", "two"], encoding_format="float")
    assert len(made.data) == 2
    assert len(made.data[0].embedding) == 576
    assert made.data[0].embedding != made.data[1].embedding


async def test_openai_gets_errors_it_understands(openai_client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        await openai_client.chat.completions.create(model="smollm3", messages=HELLO)  # type: ignore[arg-type]
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as wrong:
        await openai_client.chat.completions.create(model=MODEL, messages=HELLO, temperature=9)  # type: ignore[arg-type]
    assert wrong.value.param == "temperature"


async def test_ollama_lists_answers_and_streams(ollama_client: ollama.AsyncClient) -> None:
    assert [model.model for model in (await ollama_client.list()).models] == [MODEL]
    options = {"num_predict": 24, "temperature": 0}
    whole = await ollama_client.chat(MODEL, HELLO, options=options)
    assert whole.message.content
    assert whole.done_reason in ("stop", "length")
    said = ""
    async for part in await ollama_client.chat(MODEL, HELLO, stream=True, options=options):
        said += part.message.content or ""
    assert said == whole.message.content
    assert part.done
    assert (part.eval_count or 0) > 0
    assert [model.model for model in (await ollama_client.ps()).models] == [MODEL]


async def test_ollama_generates_shows_embeds_and_unloads(ollama_client: ollama.AsyncClient) -> None:
    generated = await ollama_client.generate(MODEL, "Hello", options={"num_predict": 8})
    assert generated.response
    shown = await ollama_client.show(MODEL)
    assert "completion" in (shown.capabilities or [])
    embedded = await ollama_client.embed(MODEL, ["one", "two"])
    assert len(embedded.embeddings) == 2
    unloaded = await ollama_client.generate(MODEL, keep_alive=0)
    assert unloaded.done_reason == "unload"


async def test_an_engine_killed_in_mid_stream_interrupts_and_the_next_request_works(
    node: Node, openai_client: openai.AsyncOpenAI
) -> None:
    streaming = await openai_client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Count from 1 to 500."}], max_tokens=400, stream=True
    )

    async def read_and_kill() -> None:
        async for part in streaming:
            if part.choices and part.choices[0].delta.content:
                _kill_engine()

    with pytest.raises(openai.APIError) as broken:
        await read_and_kill()
    assert broken.value.code == "interrupted"
    again = await openai_client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=8)  # type: ignore[arg-type]
    assert again.choices[0].message.content


def _kill_engine() -> None:
    for child in psutil.Process().children():
        if "llama_child" in " ".join(child.cmdline()):
            child.send_signal(signal.SIGKILL)


async def test_a_client_that_leaves_stops_the_generation(node: Node, openai_client: openai.AsyncOpenAI) -> None:
    streaming = await openai_client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Count from 1 to 500."}], max_tokens=1500, stream=True
    )
    stopped = asyncio.Event()
    node.on_info = lambda info: stopped.set() if info.running == 0 else None
    async for part in streaming:
        if part.choices and part.choices[0].delta.content:
            break
    await streaming.close()
    await asyncio.wait_for(stopped.wait(), 2)
