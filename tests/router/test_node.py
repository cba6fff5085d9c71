"""What a node promises to the programs that call it, over real sockets."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest

from router.errors import StartError
from router.node import Node
from router.settings import NodeOptions
from tests.fakes import HANG, RESET, ScriptedEngine, Wait, chunk, happens, head, stream, whole
from tests.router.conftest import MakeNode

ASK = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
BODY = b'{"choices":[{"message":{"role":"assistant","content":"hi"}}],"usage":{"completion_tokens":1}}'


def ask(http: aiohttp.ClientSession, node: Node, **more: object) -> aiohttp.client._RequestContextManager:
    return http.post(f"{node.address}/v1/chat/completions", json=ASK | more)


def control(http: aiohttp.ClientSession, node: Node, method: str, path: str, **body: object):  # type: ignore[no-untyped-def]
    headers = {"Authorization": f"Bearer {node.control_token}"}
    return http.request(method, f"{node.address}/local/v1/{path}", json=body if body else None, headers=headers)


async def test_an_answer_passes_as_the_engine_wrote_it(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession
) -> None:
    engine.play(whole(BODY))
    node = await make_node(engine)
    async with ask(http, node) as reply:
        assert reply.status == 200
        assert await reply.read() == BODY
        assert reply.headers["X-Quorum-Node"] == node.info().id
        assert reply.headers["X-Quorum-Reason"] == "local-warm"
        assert len(reply.headers["X-Quorum-Job"]) == 26
    assert json.loads((await engine.request()).body) == ASK


async def test_a_stream_passes_verbatim_and_ends_with_done(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession
) -> None:
    said = stream("one", "two", "three")
    engine.play(head(), said)
    node = await make_node(engine)
    async with ask(http, node, stream=True) as reply:
        assert reply.content_type == "text/event-stream"
        assert await reply.read() == said


async def test_one_transient_error_never_fails_a_request(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession
) -> None:
    engine.play(whole(b'{"error":{"message":"busy"}}', status=500))
    engine.play(RESET)
    engine.play(whole(BODY))
    node = await make_node(engine)
    async with ask(http, node) as reply:
        assert await reply.read() == BODY
        assert reply.headers["X-Quorum-Attempts"] == "3"


async def test_a_request_that_fails_each_time_ends_with_the_engines_own_sentence(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession
) -> None:
    engine.play(whole(b'{"error":{"message":"out of memory"}}', status=500))
    node = await make_node(engine, max_attempts=1)
    async with ask(http, node) as reply:
        error = (await reply.json())["error"]
        assert (reply.status, error["code"], error["message"]) == (502, "engine_failed", "out of memory")
        assert error["hint"]


async def test_a_wrong_request_is_final_at_once(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession
) -> None:
    engine.play(whole(b'{"error":{"message":"context too long"}}', status=400))
    node = await make_node(engine)
    async with ask(http, node) as reply:
        assert reply.status == 400
        assert (await reply.json())["error"]["message"] == "context too long"
    assert len(engine.asked) == 1


async def test_a_stream_that_breaks_after_content_ends_in_an_honest_error(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession
) -> None:
    engine.play(head(), chunk(role=True), chunk("half"), RESET)
    node = await make_node(engine)
    async with ask(http, node, stream=True) as reply:
        text = (await reply.read()).decode()
    assert '"half"' in text
    assert '"code":"interrupted"' in text
    assert "[DONE]" not in text
    assert len(engine.asked) == 1


async def test_a_stream_that_breaks_before_content_is_tried_again_unseen(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession
) -> None:
    engine.play(head(), chunk(role=True), RESET)
    engine.play(head(), stream("whole"))
    node = await make_node(engine)
    async with ask(http, node, stream=True) as reply:
        assert await reply.read() == stream("whole")


async def test_a_client_that_leaves_stops_the_engine(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession
) -> None:
    engine.play(head(), chunk("a"), HANG)
    node = await make_node(engine)
    async with ask(http, node, stream=True) as reply:
        await reply.content.readany()
        reply.close()
    asked = await engine.request()
    await happens(asked.gone, 1.0)
    async with control(http, node, "GET", "jobs") as listed:
        assert [job["state"] for job in await listed.json()] == ["cancelled"]


async def test_an_unknown_model_is_named_with_its_neighbours(make_node: MakeNode, http: aiohttp.ClientSession) -> None:
    async with ScriptedEngine("llama3.2:3b") as engine:
        node = await make_node(engine)
        async with ask(http, node, model="llama3:3b") as reply:
            error = (await reply.json())["error"]
    assert (reply.status, error["code"]) == (404, "model_not_found")
    assert "llama3.2:3b" in error["hint"]


async def test_while_paused_requests_wait_and_then_run(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession
) -> None:
    engine.play(whole(BODY))
    node = await make_node(engine)
    node.pause()
    waiting = asyncio.ensure_future(_read(http, node))
    async with control(http, node, "GET", "events") as events:
        seen = await events.content.readuntil(b"\n\n")
        while b'"waiting":1' not in seen:
            seen = await events.content.readuntil(b"\n\n")
    assert not engine.asked
    async with http.get(f"{node.address}/readyz") as reply:
        assert (reply.status, (await reply.json())["error"]["code"]) == (503, "paused")
    node.resume()
    assert await asyncio.wait_for(waiting, 5) == BODY


async def _read(http: aiohttp.ClientSession, node: Node) -> bytes:
    async with ask(http, node) as reply:
        return await reply.read()


async def test_a_pause_survives_a_restart(make_node: MakeNode, engine: ScriptedEngine) -> None:
    node = await make_node(engine)
    node.pause()
    await node.stop()
    again = await make_node(engine)
    assert again.info().mode == "paused"
    again.resume()


async def test_every_request_is_a_job_with_a_receipt(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession
) -> None:
    engine.play(head(), stream("a", "b", usage={"prompt_tokens": 7, "completion_tokens": 2}))
    node = await make_node(engine)
    async with ask(http, node, stream=True) as reply:
        await reply.read()
        job_id = reply.headers["X-Quorum-Job"]
    async with control(http, node, "GET", "jobs") as listed:
        (job,) = await listed.json()
    assert (job["id"], job["state"]) == (job_id, "done")
    receipt = job["receipt"]
    assert (receipt["prompt_tokens"], receipt["completion_tokens"]) == (7, 2)
    assert [verdict["verdict"] for verdict in receipt["verdicts"]] == ["warm"]
    assert [attempt["result"] for attempt in receipt["tries"]] == ["ok"]


async def test_a_waiting_client_hears_where_it_stands(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.web.sink.HOLD_S", 0.05)
    go = asyncio.Event()
    engine.play(Wait(go), head(), stream("first"))
    engine.play(head(), stream("second"))
    node = await make_node(engine, concurrency=1)
    async with ask(http, node, stream=True) as first, ask(http, node, stream=True) as second:
        assert b": queued place=1" in await second.content.readuntil(b"\n\n")
        go.set()
        assert (await first.read()).endswith(stream("first"))
        assert (await second.read()).endswith(stream("second"))


async def test_a_busy_port_is_explained(make_node: MakeNode, engine: ScriptedEngine, tmp_path: Path) -> None:
    node = await make_node(engine)
    port = int(node.address.rsplit(":", 1)[1])
    other = Node(NodeOptions(tmp_path / "other", {"port": port, "builtin_engine": False}, discovery=False))
    with pytest.raises(StartError, match=f"Port {port} is taken") as told:
        await other.start()
    assert "--port" in told.value.hint


async def test_a_data_folder_that_cannot_be_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="can't be written"):
        Node(NodeOptions(tmp_path / "file" / "data"))


async def test_ollamas_clients_get_lines_that_end_with_done(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession
) -> None:
    engine.play(head(), stream("he", "llo", usage={"prompt_tokens": 3, "completion_tokens": 2}))
    node = await make_node(engine)
    async with http.post(f"{node.address}/api/chat", json=ASK) as reply:
        assert reply.content_type == "application/x-ndjson"
        lines = [json.loads(line) for line in (await reply.read()).splitlines()]
    assert "".join(line["message"]["content"] for line in lines) == "hello"
    assert [line["done"] for line in lines] == [False, False, True]
    assert (lines[-1]["prompt_eval_count"], lines[-1]["eval_count"]) == (3, 2)


async def test_health_is_alive_ready_and_counted(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession
) -> None:
    engine.play(whole(BODY))
    node = await make_node(engine)
    for path in ("/healthz", "/readyz"):
        async with http.get(node.address + path) as reply:
            assert reply.status == 200
    await _read(http, node)
    async with http.get(f"{node.address}/metrics") as reply:
        assert 'quorum_jobs_ended_total{code="ok",state="done"} 1.0' in await reply.text()


async def test_a_conversation_is_kept_with_its_answer(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession
) -> None:
    engine.play(head(), stream("fine"))
    node = await make_node(engine)
    async with control(http, node, "POST", "chats", model="m") as reply:
        chat = await reply.json()
    asked = {"content": "How are you?", "model": "m"}
    async with control(http, node, "POST", f"chats/{chat['id']}/messages", **asked) as reply:
        answering = await reply.json()
    async with control(http, node, "GET", f"jobs/{answering['job_id']}/events") as events:
        told = (await events.read()).decode()
    assert "event: ended" in told
    assert "id: 1.0\ndata: " in told
    for _ in range(100):
        async with control(http, node, "GET", f"chats/{chat['id']}") as reply:
            messages = (await reply.json())["messages"]
        if messages[1]["state"] == "ended":
            break
    assert [(message["role"], message["content"]) for message in messages] == [
        ("user", "How are you?"),
        ("assistant", "fine"),
    ]
    assert messages[1]["receipt"]["engine"]
