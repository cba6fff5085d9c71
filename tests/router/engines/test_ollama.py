"""Ollama: its models with their weights' digest, its loads, and which of its two forms a call takes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from router.engines.base import Call, Kind
from router.engines.ollama import OllamaEngine
from router.engines.transport import Transport
from router.errors import EngineFault
from tests.router.engines.fakes import FakeClock, FakeOllama, serving

MODEL = "llama3.2:3b"


@pytest.fixture
def fake() -> FakeOllama:
    return FakeOllama()


@pytest.fixture
async def engine(fake: FakeOllama, transport: Transport, clock: FakeClock) -> AsyncIterator[OllamaEngine]:
    async with serving(fake.routes()) as address:
        yield OllamaEngine(address, transport, clock)


def chat(stream: bool = True, keep_alive_s: float | None = None, **fields: Any) -> Call:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": stream, **fields}
    return Call(Kind.CHAT, MODEL, json.dumps(body).encode(), stream, keep_alive_s, "job")


async def answer(engine: OllamaEngine, call: Call) -> bytes:
    async with engine.call(call) as reply:
        return b"".join([chunk async for chunk in reply.chunks])


async def test_the_list_tells_weights_context_and_capabilities(engine: OllamaEngine, fake: FakeOllama) -> None:
    snapshot = await engine.poll()
    chat_model, embedder = snapshot.models  # what runs in a cloud is not offered
    assert (snapshot.ready, snapshot.version) == (True, "0.12.6")
    assert chat_model.digest == "d" * 64  # of the weights' blob, not the manifest's
    assert chat_model.context == 131072
    assert chat_model.capabilities == {"chat", "tools"}
    assert embedder.capabilities == {"embedding"}
    assert (chat_model.resident, chat_model.parameters, chat_model.quantisation) == (False, "3.2B", "Q4_K_M")
    await engine.poll()
    assert fake.shows == 2  # asked once per model


async def test_loading_and_unloading_show(engine: OllamaEngine, fake: FakeOllama) -> None:
    await engine.poll()
    assert engine.needs_load(MODEL)
    await engine.load(MODEL, keep_alive_s=60)
    assert fake.asked == [("/api/generate", {"model": MODEL, "keep_alive": 60, "stream": False})]
    assert not engine.needs_load(MODEL)
    model = (await engine.poll()).models[0]
    assert model.resident
    assert (model.context, model.memory_bytes) == (4096, 3_000_000_000)
    assert model.expires_at is not None
    await engine.unload(MODEL)
    assert not (await engine.poll()).models[0].resident


async def test_an_embedder_is_loaded_by_embedding(engine: OllamaEngine, fake: FakeOllama) -> None:
    await engine.poll()
    await engine.load("nomic-embed-text:latest")
    assert fake.asked[0][0] == "/api/embed"


async def test_a_load_that_fails_says_why(engine: OllamaEngine) -> None:
    with pytest.raises(EngineFault, match="not found") as caught:
        await engine.load("nothing:1b")
    assert caught.value.code == "model_not_found"


async def test_a_plain_request_goes_to_v1_as_it_is(engine: OllamaEngine, fake: FakeOllama) -> None:
    await answer(engine, chat(stream=False, temperature=0.5, reasoning_effort="low"))
    assert [path for path, _ in fake.asked] == ["/v1/chat/completions"]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (chat(keep_alive_s=-1), {"keep_alive": -1}),
        (chat(top_k=5, num_ctx=2048, max_tokens=9), {"options": {"top_k": 5, "num_ctx": 2048, "num_predict": 9}}),
        (chat(chat_template_kwargs={"enable_thinking": False}), {"think": False}),
    ],
)
async def test_what_v1_does_not_carry_goes_the_native_way(
    engine: OllamaEngine, fake: FakeOllama, call: Call, expected: dict[str, Any]
) -> None:
    events = await answer(engine, call)
    path, asked = fake.asked[0]
    assert path == "/api/chat"
    assert asked.items() >= expected.items()
    assert events.endswith(b"data: [DONE]\n\n")


async def test_a_native_stream_is_canonical_events(engine: OllamaEngine) -> None:
    events = await answer(engine, chat(top_k=5, stream_options={"include_usage": True}))
    chunks = [json.loads(event[6:]) for event in events.split(b"\n\n") if event and event != b"data: [DONE]"]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert deltas == [{"reasoning_content": "Hm."}, {"content": "Hel"}, {"content": "lo"}, {}]
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-2]["timings"]["predicted_per_second"] == 40
    assert chunks[-1]["usage"] == {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}


async def test_a_native_answer_is_one_canonical_answer(engine: OllamaEngine) -> None:
    made = json.loads(await answer(engine, chat(stream=False, top_k=5)))
    message = made["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "Hello", "reasoning_content": "Hm."}
    assert made["usage"]["total_tokens"] == 12


async def test_a_native_stream_cut_short_is_a_fault(engine: OllamaEngine, fake: FakeOllama) -> None:
    fake.cut_after = 2
    with pytest.raises(EngineFault, match="middle"):
        await answer(engine, chat(top_k=5))


async def test_an_absent_ollama_is_not_ready(transport: Transport, clock: FakeClock) -> None:
    snapshot = await OllamaEngine("http://127.0.0.1:1", transport, clock).poll()
    assert (snapshot.ready, snapshot.away) == (False, True)
    assert snapshot.models == ()


async def test_a_hostile_list_offers_nothing(transport: Transport, clock: FakeClock) -> None:
    nonsense = {"models": [3, {"name": 4}, {"name": "../../etc"}, {"name": "a\nb"}, {"name": "ok:1", "details": 3}]}
    async with serving({"/api/tags": nonsense, "/api/ps": {"models": 9}, "/api/version": {"version": 1}}) as address:
        snapshot = await OllamaEngine(address, transport, clock).poll()
    assert [model.name for model in snapshot.models] == ["ok:1"]
    assert snapshot.models[0].digest is None
