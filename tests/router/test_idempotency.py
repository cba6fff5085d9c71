"""One Idempotency-Key, one job: at once, again later, in every dialect, and never for another request."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from router.errors import BadRequestError
from router.idempotency import Repeat
from router.node import Node
from tests.fakes import HANG, RESET, ScriptedEngine, Wait, chunk, head, stream, whole
from tests.router.conftest import MakeNode
from tests.router.web.test_jobs import new_key

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
BODY = b'{"object":"chat.completion","choices":[{"message":{"role":"assistant","content":"hi"}}]}'
VECTORS = b'{"object":"list","data":[{"embedding":[0.5],"index":0}]}'
SAID = stream("one", "two")


def jobs_of(tmp_path: Path) -> int:
    """How many jobs the database has."""
    with sqlite3.connect(f"file:{tmp_path}/data/quorum.db?mode=ro", uri=True) as db:
        return int(db.execute("SELECT count(*) FROM jobs").fetchone()[0])


class Reply:
    """A whole answer."""

    def __init__(self, reply: aiohttp.ClientResponse, data: bytes) -> None:
        self.status = reply.status
        self.job = reply.headers.get("X-Quorum-Job", "")
        self.node = reply.headers.get("X-Quorum-Node", "")
        self.data = data

    @property
    def json(self) -> Any:
        return json.loads(self.data)


Ask = Callable[..., Awaitable[Reply]]


@pytest.fixture
def ask(http: aiohttp.ClientSession) -> Ask:
    """``await ask(node, path, body, key)``: a POST and its whole answer."""

    async def send(node: Node, path: str, body: object, key: str = "k", **headers: str) -> Reply:
        headers |= {"Idempotency-Key": key}
        async with http.post(node.address + path, json=body, headers=headers) as reply:
            return Reply(reply, await reply.read())

    return send


@pytest.mark.parametrize("key", ["a", "x" * 255, "with blanks ~!", "9c5d1f3e-2b1a-4f7e-8a77-000000000000"])
def test_a_key_is_printable_ascii_of_1_to_255_characters(key: str) -> None:
    repeat = Repeat.of([key], None, "/jobs", b"{}")
    assert (repeat.key, len(repeat.request_hash)) == (key, 64)


@pytest.mark.parametrize("given", [[""], ["x" * 256], ["ä"], ["a\tb"], ["\x7f"], ["a", "b"], []])
def test_any_other_key_is_refused_by_its_name(given: list[str]) -> None:
    with pytest.raises(BadRequestError) as caught:
        Repeat.of(given, None, "/jobs", b"{}")
    assert caught.value.field == "Idempotency-Key"


def test_a_request_is_its_path_and_its_very_bytes() -> None:
    hashes = {
        Repeat.of(["k"], None, path, body).request_hash for path in ("/jobs", "/v1/x") for body in (b"{}", b"{ }")
    }
    assert len(hashes) == 4


async def test_a_bad_key_makes_no_job(
    make_node: MakeNode, engine: ScriptedEngine, ask: Ask, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    node = await make_node(engine)
    for path in ("/jobs", "/v1/chat/completions", "/api/chat"):
        reply = await ask(node, path, CHAT, "x" * 256)
        assert reply.status == 400
        assert "Idempotency-Key" in reply.data.decode()
    assert jobs_of(tmp_path) == 0


CASES: dict[str, tuple[str, object, tuple[bytes, ...]]] = {
    "jobs": ("/jobs", CHAT, (head(), SAID)),
    "chat": ("/v1/chat/completions", CHAT, (whole(BODY),)),
    "chat stream": ("/v1/chat/completions", CHAT | {"stream": True}, (head(), SAID)),
    "completions": ("/v1/completions", {"model": "m", "prompt": "a"}, (whole(b'{"choices":[{"text":"b"}]}'),)),
    "embeddings": ("/v1/embeddings", {"model": "m", "input": "a"}, (whole(VECTORS),)),
    "ollama chat": ("/api/chat", CHAT | {"stream": False}, (whole(BODY),)),
    "ollama chat stream": ("/api/chat", CHAT, (head(), SAID)),
    "ollama generate": ("/api/generate", {"model": "m", "prompt": "a", "stream": False}, (whole(BODY),)),
    "ollama embed": ("/api/embed", {"model": "m", "input": "a"}, (whole(VECTORS),)),
    "ollama embeddings": ("/api/embeddings", {"model": "m", "prompt": "a"}, (whole(VECTORS),)),
    "responses": ("/v1/responses", {"model": "m", "input": "hello"}, (whole(BODY),)),
    "responses stream": ("/v1/responses", {"model": "m", "input": "hello", "stream": True}, (head(), SAID)),
    "messages": ("/v1/messages", CHAT | {"max_tokens": 9}, (whole(BODY),)),
    "messages stream": ("/v1/messages", CHAT | {"max_tokens": 9, "stream": True}, (head(), SAID)),
}


def told(reply: Reply) -> Any:
    """An answer without what differs by the clock."""
    text = reply.data.decode()
    if not text.startswith("{"):
        return text
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        for name in ("created_at", "total_duration", "state"):
            line.pop(name, None)
    return lines


@pytest.mark.parametrize("case", CASES)
async def test_the_same_request_again_gets_the_same_job_and_answer_also_after_a_restart(
    make_node: MakeNode, engine: ScriptedEngine, ask: Ask, http: aiohttp.ClientSession, tmp_path: Path, case: str
) -> None:
    path, body, script = CASES[case]
    engine.play(*script)
    node = await make_node(engine)
    first = await ask(node, path, body)
    assert first.status in (200, 202), first.data
    again = await ask(node, path, body)
    if path == "/jobs":
        async with http.get(f"{node.address}/jobs/{first.job}/events") as events:
            assert b"event: ended" in await events.read()
    await node.stop()
    node = await make_node(engine)
    later = await ask(node, path, body)
    for reply in (again, later):
        assert (reply.status, reply.job, reply.node) == (first.status, first.job, first.node)
        assert told(reply) == told(first)
    assert len(engine.asked) == 1
    assert jobs_of(tmp_path) == 1


async def test_another_request_under_the_same_key_is_a_conflict(
    make_node: MakeNode, engine: ScriptedEngine, ask: Ask, tmp_path: Path
) -> None:
    engine.play(whole(BODY))
    node = await make_node(engine)
    await ask(node, "/v1/chat/completions", CHAT)
    for path, body in (("/v1/chat/completions", CHAT | {"seed": 1}), ("/jobs", CHAT)):
        reply = await ask(node, path, body)
        assert (reply.status, reply.json["error"]["code"]) == (409, "conflict")
    assert jobs_of(tmp_path) == 1


async def test_a_hundred_at_once_are_one_job(
    make_node: MakeNode, engine: ScriptedEngine, ask: Ask, tmp_path: Path
) -> None:
    engine.play(whole(BODY))
    node = await make_node(engine)
    replies = await asyncio.gather(*(ask(node, "/v1/chat/completions", CHAT) for _ in range(100)))
    assert {reply.status for reply in replies} == {200}
    assert {reply.data for reply in replies} == {BODY}
    assert len({reply.job for reply in replies}) == 1
    other = await asyncio.gather(*(ask(node, "/jobs", CHAT | {"seed": 1}, "j") for _ in range(100)))
    assert len({reply.json["job_id"] for reply in other}) == 1
    assert jobs_of(tmp_path) == 2


async def test_two_different_requests_at_once_under_one_key_make_one_job_and_a_conflict(
    make_node: MakeNode, engine: ScriptedEngine, ask: Ask, tmp_path: Path
) -> None:
    engine.play(whole(BODY))
    node = await make_node(engine)
    replies = await asyncio.gather(
        ask(node, "/v1/chat/completions", CHAT), ask(node, "/v1/chat/completions", CHAT | {"seed": 1})
    )
    assert sorted(reply.status for reply in replies) == [200, 409]
    assert jobs_of(tmp_path) == 1


async def test_while_it_runs_the_second_request_follows_from_the_start(
    make_node: MakeNode, engine: ScriptedEngine, ask: Ask, http: aiohttp.ClientSession
) -> None:
    go = asyncio.Event()
    first_half, rest = SAID[:300], SAID[300:]
    engine.play(head(), first_half, Wait(go), rest)
    node = await make_node(engine)
    body = CHAT | {"stream": True}
    url, headers = f"{node.address}/v1/chat/completions", {"Idempotency-Key": "k"}
    async with http.post(url, json=body, headers=headers) as one, http.post(url, json=body, headers=headers) as two:
        begun = [await reply.content.readuntil(b"\n\n") for reply in (one, two)]
        assert begun[0] == begun[1]
        go.set()
        assert [begin + await reply.read() for begin, reply in zip(begun, (one, two), strict=True)] == [SAID, SAID]
        assert one.headers["X-Quorum-Job"] == two.headers["X-Quorum-Job"]
    assert len(engine.asked) == 1


async def test_a_client_that_leaves_finds_its_answer_when_it_comes_back(
    make_node: MakeNode, engine: ScriptedEngine, ask: Ask, http: aiohttp.ClientSession
) -> None:
    go = asyncio.Event()
    engine.play(Wait(go), whole(BODY))
    node = await make_node(engine)
    leaving = asyncio.ensure_future(ask(node, "/v1/chat/completions", CHAT))
    await engine.request()
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    coming = asyncio.ensure_future(ask(node, "/v1/chat/completions", CHAT))
    go.set()
    assert (await coming).data == BODY
    assert len(engine.asked) == 1


async def test_a_failure_is_the_same_failure_again(
    make_node: MakeNode, engine: ScriptedEngine, ask: Ask, tmp_path: Path
) -> None:
    engine.play(whole(b'{"error":{"message":"context too long"}}', status=400))
    engine.play(head(), chunk(role=True), chunk("half"), RESET)
    node = await make_node(engine)
    stream_body = CHAT | {"stream": True}
    refused = await ask(node, "/v1/chat/completions", CHAT)
    broken = await ask(node, "/v1/chat/completions", stream_body, "b")
    assert (refused.status, refused.json["error"]["message"]) == (400, "context too long")
    assert b'"half"' in broken.data
    assert b'"interrupted"' in broken.data
    for restart in (False, True):
        if restart:
            await node.stop()
            node = await make_node(engine)
        again = await ask(node, "/v1/chat/completions", CHAT)
        assert (again.status, again.data, again.job) == (refused.status, refused.data, refused.job)
        again = await ask(node, "/v1/chat/completions", stream_body, "b")
        assert (again.status, again.data, again.job) == (broken.status, broken.data, broken.job)
    assert len(engine.asked) == 2


async def test_a_request_that_made_no_job_leaves_the_key_free(
    make_node: MakeNode, engine: ScriptedEngine, ask: Ask, tmp_path: Path
) -> None:
    engine.play(whole(BODY))
    node = await make_node(engine)
    assert (await ask(node, "/v1/chat/completions", CHAT | {"model": "nobody"})).status == 404
    assert (await ask(node, "/v1/chat/completions", CHAT | {"temperature": 9})).status == 400
    assert (await ask(node, "/v1/chat/completions", CHAT)).data == BODY
    assert jobs_of(tmp_path) == 1


async def test_a_key_belongs_to_its_api_key(
    make_node: MakeNode, engine: ScriptedEngine, ask: Ask, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    engine.play(whole(BODY))
    node = await make_node(engine)
    callers = [f"Bearer {await new_key(http, node, name)}" for name in ("anna", "bert")]
    jobs = [(await ask(node, "/v1/chat/completions", CHAT, Authorization=caller)).job for caller in callers]
    jobs.append((await ask(node, "/v1/chat/completions", CHAT)).job)
    assert len(set(jobs)) == 3
    assert (await ask(node, "/v1/chat/completions", CHAT, Authorization=callers[0])).job == jobs[0]
    assert jobs_of(tmp_path) == 3


async def test_an_answer_that_was_forgotten_is_not_asked_for_again(
    make_node: MakeNode, engine: ScriptedEngine, ask: Ask
) -> None:
    engine.play(whole(BODY))
    node = await make_node(engine, forget_bodies=True)
    assert (await ask(node, "/v1/chat/completions", CHAT)).status == 200
    node._archive._recent.clear()
    reply = await ask(node, "/v1/chat/completions", CHAT)
    assert (reply.status, reply.json["error"]["code"]) == (409, "conflict")
    assert len(engine.asked) == 1


async def test_a_cancelled_job_is_not_made_again(
    make_node: MakeNode, engine: ScriptedEngine, ask: Ask, http: aiohttp.ClientSession
) -> None:
    engine.play(head(), chunk(role=True), HANG)
    node = await make_node(engine)
    job_id = (await ask(node, "/jobs", CHAT)).json["job_id"]
    await engine.request()
    async with http.delete(f"{node.address}/jobs/{job_id}") as reply:
        assert (await reply.json())["state"] == "cancelled"
    again = (await ask(node, "/jobs", CHAT)).json
    assert (again["job_id"], again["state"]) == (job_id, "cancelled")
    assert len(engine.asked) == 1
