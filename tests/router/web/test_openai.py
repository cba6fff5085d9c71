"""OpenAI's dialect: lists, passing through, errors. The official client is in test_clients."""

from __future__ import annotations

import json

import aiohttp
import pytest

from router.states import JobState
from router.web.openai import OpenAIStream, waiting_comment
from router.wire import State
from tests.fakes import ScriptedEngine, whole
from tests.router.conftest import MakeNode

VECTORS = b'{"object":"list","data":[{"embedding":[1,2],"index":0,"object":"embedding"}],"model":"m"}'


def test_waiting_is_a_comment_that_clients_skip() -> None:
    assert waiting_comment(State(state=JobState.QUEUED, place=2, eta_s=14.0)) == b": queued place=2 eta_s=14.0\n\n"
    loading = State(state=JobState.LOADING, loading_pct=40, node="studio")
    assert waiting_comment(loading) == b": loading pct=40 node=studio\n\n"


def test_events_pass_as_they_are() -> None:
    assert OpenAIStream().content(b"data: x\n\n") == b"data: x\n\n"


async def test_models_are_listed_once_and_found_by_name(make_node: MakeNode, http: aiohttp.ClientSession) -> None:
    async with ScriptedEngine("a", "org/b:latest") as engine:
        node = await make_node(engine)
        async with http.get(f"{node.address}/v1/models") as reply:
            listed = (await reply.json())["data"]
        assert [model["id"] for model in listed] == ["a", "org/b:latest"]
        assert {model["object"] for model in listed} == {"model"}
        async with http.get(f"{node.address}/v1/models/org/b:latest") as reply:
            assert (await reply.json())["id"] == "org/b:latest"
        async with http.get(f"{node.address}/v1/models/none") as reply:
            assert reply.status == 404


async def test_embeddings_pass(make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession) -> None:
    engine.play(whole(VECTORS))
    node = await make_node(engine)
    async with http.post(f"{node.address}/v1/embeddings", json={"model": "m", "input": "x"}) as reply:
        assert await reply.read() == VECTORS
    assert (await engine.request()).path == "/v1/embeddings"


async def test_tools_images_and_formats_reach_the_engine_untouched(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession
) -> None:
    engine.play(whole(b'{"choices":[]}'))
    node = await make_node(engine)
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    asked = {
        "model": "m",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "what?"}, image]}],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        "response_format": {"type": "json_object"},
        "seed": 7,
    }
    body = json.dumps(asked, indent=1).encode()
    headers = {"Content-Type": "application/json"}
    async with http.post(f"{node.address}/v1/chat/completions", data=body, headers=headers) as reply:
        assert reply.status == 200
    assert (await engine.request()).body == body


async def test_engine_internals_never_reach_an_engine(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession
) -> None:
    engine.play(whole(b'{"choices":[]}'))
    node = await make_node(engine)
    asked = {"model": "m", "messages": [{"role": "user", "content": "x"}], "n_discard": -1, "id_slot": 0}
    async with http.post(f"{node.address}/v1/chat/completions", json=asked) as reply:
        assert reply.status == 200
    assert set(json.loads((await engine.request()).body)) == {"model", "messages"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"model": "m"}, "messages"),
        ({"messages": []}, "model"),
        ({"model": "m", "messages": [{"role": "user", "content": "x"}], "temperature": 3}, "temperature"),
        ({"model": "a\r\nb", "messages": [{"role": "user", "content": "x"}]}, "model"),
    ],
)
async def test_a_wrong_field_is_named(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession, body: object, field: str
) -> None:
    node = await make_node(engine)
    async with http.post(f"{node.address}/v1/chat/completions", json=body) as reply:
        error = (await reply.json())["error"]
    assert (reply.status, error["type"], error["param"]) == (400, "invalid_request_error", field)
    assert not engine.asked
