"""OpenAI-compatible engines: recognised, listed, asked with the body as it is."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web

from router.engines.base import Call, Kind
from router.engines.openai import OpenAIEngine
from router.engines.transport import Transport
from router.errors import EngineFault
from tests.router.engines.fakes import FakeClock, serving

LMSTUDIO = {
    "data": [
        {
            "id": "qwen2.5-vl-7b-instruct",
            "type": "vlm",
            "arch": "qwen2vl",
            "quantization": "4bit",
            "state": "not-loaded",
            "max_context_length": 32768,
            "capabilities": ["tool_use"],
        },
        {"id": "text-embedding-nomic", "type": "embeddings", "state": "loaded", "max_context_length": 2048},
    ]
}


def listing(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"object": "list", "data": list(entries)}


@pytest.mark.parametrize(
    ("entry", "label"),
    [
        ({"id": "m", "owned_by": "llamacpp", "meta": {"n_params": 134_515_008, "n_ctx_train": 8192}}, "llama-server"),
        ({"id": "m", "owned_by": "vllm", "max_model_len": 4096}, "vLLM"),
        ({"id": "m", "owned_by": "somebody"}, "OpenAI-compatible"),
    ],
)
async def test_the_kind_of_server_is_recognised(
    entry: dict[str, Any], label: str, transport: Transport, clock: FakeClock
) -> None:
    async with serving({"/v1/models": listing(entry)}) as address:
        engine = OpenAIEngine(address, "", transport, clock)
        snapshot = await engine.poll()
    assert snapshot.ready
    assert engine.label == label
    assert [model.name for model in snapshot.models] == ["m"]
    assert snapshot.models[0].capabilities == {"chat"}


async def test_lm_studios_own_list_tells_what_is_loaded(transport: Transport, clock: FakeClock) -> None:
    async with serving({"/api/v0/models": LMSTUDIO, "/v1/models": listing()}) as address:
        engine = OpenAIEngine(f"{address}/v1", "", transport, clock)
        vision, embedder = (await engine.poll()).models
    assert engine.label == "LM Studio"
    assert (vision.resident, vision.context, vision.family) == (False, 32768, "qwen2vl")
    assert vision.capabilities == {"chat", "vision", "tools"}
    assert (embedder.resident, embedder.capabilities) == (True, {"embedding"})
    assert not engine.needs_load(vision.name)


async def test_the_body_and_the_key_go_through_as_they_are(transport: Transport, clock: FakeClock) -> None:
    seen: list[tuple[bytes, str, str]] = []

    async def chat(request: web.Request) -> web.Response:
        seen.append((await request.read(), request.headers["Authorization"], request.content_type))
        return web.Response(body=b"data: [DONE]\n\n", content_type="text/event-stream")

    body = b'{ "model":"m",  "messages":[], "x_own": 1e3 }'
    async with serving({"/v1/chat/completions": chat}) as address:
        engine = OpenAIEngine(address, "secret", transport, clock)
        async with engine.call(Call(Kind.CHAT, "m", body, stream=True)) as reply:
            answer = b"".join([chunk async for chunk in reply.chunks])
    assert (reply.content_type, answer) == ("text/event-stream", b"data: [DONE]\n\n")
    assert seen == [(body, "Bearer secret", "application/json")]


async def test_an_engines_error_status_is_passed_on(transport: Transport, clock: FakeClock) -> None:
    async def chat(request: web.Request) -> web.Response:
        return web.json_response({"error": {"message": "no"}}, status=400)

    asked = Call(Kind.CHAT, "m", b"{}", stream=False)
    async with (
        serving({"/v1/chat/completions": chat}) as address,
        OpenAIEngine(address, "", transport, clock).call(asked) as reply,
    ):
        assert reply.status == 400


async def test_a_dead_engine_is_not_ready_and_a_call_is_a_fault(transport: Transport, clock: FakeClock) -> None:
    engine = OpenAIEngine("http://127.0.0.1:1/v1", "", transport, clock)
    snapshot = await engine.poll()
    assert (snapshot.ready, snapshot.away) == (False, True)
    assert "refused" in snapshot.detail
    with pytest.raises(EngineFault):
        async with engine.call(Call(Kind.CHAT, "m", b"{}", stream=False)):
            pass


async def test_a_wrong_key_says_so(transport: Transport, clock: FakeClock) -> None:
    async def refuse(request: web.Request) -> web.Response:
        return web.json_response({"error": "no"}, status=401)

    async with serving({"/v1/models": refuse}) as address:
        snapshot = await OpenAIEngine(address, "wrong", transport, clock).poll()
    assert (snapshot.ready, snapshot.away) == (False, False)
    assert "key" in snapshot.detail
    assert "wrong" not in snapshot.detail


@pytest.mark.parametrize("answer", [{"data": 3}, {}, [], "x", {"data": [3, {"id": 7}, {"id": "../x"}, {"id": "a\nb"}]}])
async def test_a_list_of_nonsense_offers_nothing(answer: Any, transport: Transport, clock: FakeClock) -> None:
    async with serving({"/v1/models": answer}) as address:
        assert (await OpenAIEngine(address, "", transport, clock).poll()).models == ()
