"""Ollama's dialect over real sockets. The official client is in test_clients."""

from __future__ import annotations

import json

import aiohttp

from tests.fakes import RESET, ScriptedEngine, chunk, head, stream, whole
from tests.router.conftest import MakeNode

ASK = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
ANSWER = b'{"choices":[{"message":{"content":"hi"},"finish_reason":"length"}],"usage":{"completion_tokens":1}}'


async def test_lists_and_versions_are_ollamas(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession
) -> None:
    node = await make_node(engine)
    async with http.get(f"{node.address}/api/tags") as reply:
        (model,) = (await reply.json())["models"]
        assert (model["name"], model["details"]["format"]) == ("m", "gguf")
    async with http.get(f"{node.address}/api/version") as reply:
        assert (await reply.json())["version"][0].isdigit()
    async with http.head(node.address) as reply:
        assert reply.status == 200
    async with http.post(f"{node.address}/api/show", json={"model": "m:latest"}) as reply:
        assert "model_info" in await reply.json()
    async with http.post(f"{node.address}/api/show", json={"model": "none"}) as reply:
        assert (reply.status, (await reply.json())["code"]) == (404, "model_not_found")


async def test_an_answer_in_one_piece(make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession) -> None:
    engine.play(whole(ANSWER))
    node = await make_node(engine)
    async with http.post(f"{node.address}/api/chat", json=ASK | {"stream": False}) as reply:
        answer = await reply.json()
        assert reply.headers["X-Quorum-Job"]
    assert answer["message"] == {"role": "assistant", "content": "hi"}
    assert (answer["done"], answer["done_reason"], answer["eval_count"]) == (True, "length", 1)


async def test_generate_has_the_text_in_response(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession
) -> None:
    engine.play(head(), stream("a", "b"))
    node = await make_node(engine)
    asked = {"model": "m", "prompt": "x", "system": "short", "options": {"num_predict": 5, "num_ctx": 2048}}
    async with http.post(f"{node.address}/api/generate", json=asked) as reply:
        lines = [json.loads(line) for line in (await reply.read()).splitlines()]
    assert "".join(line["response"] for line in lines) == "ab"
    sent = json.loads((await engine.request()).body)
    assert sent["max_tokens"] == 5
    assert [message["role"] for message in sent["messages"]] == ["system", "user"]


async def test_a_broken_answer_ends_in_an_error_line(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession
) -> None:
    engine.play(head(), chunk("half"), RESET)
    node = await make_node(engine)
    async with http.post(f"{node.address}/api/chat", json=ASK) as reply:
        lines = [json.loads(line) for line in (await reply.read()).splitlines()]
    assert lines[0]["message"]["content"] == "half"
    assert lines[-1]["code"] == "interrupted"
    assert not any(line.get("done") for line in lines)


async def test_a_prompt_that_is_missing_loads_and_keep_alive_zero_unloads(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession
) -> None:
    node = await make_node(engine)
    for keep_alive, reason in (("5m", "load"), (0, "unload")):
        asked = {"model": "m", "keep_alive": keep_alive}
        async with http.post(f"{node.address}/api/generate", json=asked) as reply:
            assert (await reply.json())["done_reason"] == reason
    async with http.post(f"{node.address}/api/generate", json={"model": "m", "keep_alive": "soon"}) as reply:
        assert reply.status == 400


async def test_embeddings_in_both_forms(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession
) -> None:
    engine.play(whole(b'{"data":[{"embedding":[1.0,2.0]}],"usage":{"prompt_tokens":3}}'))
    node = await make_node(engine)
    async with http.post(f"{node.address}/api/embed", json={"model": "m", "input": ["x"]}) as reply:
        assert await reply.json() == {"model": "m", "embeddings": [[1.0, 2.0]], "prompt_eval_count": 3}
    async with http.post(f"{node.address}/api/embeddings", json={"model": "m", "prompt": "x"}) as reply:
        assert await reply.json() == {"embedding": [1.0, 2.0]}
