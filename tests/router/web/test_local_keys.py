"""API keys as programs and people meet them: made, used, counted, revoked, and taken in turns, over real sockets."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from router.job_rows import JobRows
from router.node import Node
from router.states import JobState
from tests.fakes import BOUND_S, HANG, ScriptedEngine, Wait, chunk, happens, head, stream, whole
from tests.router.conftest import MakeNode

Reply = aiohttp.client._RequestContextManager
BODY = (
    b'{"choices":[{"message":{"role":"assistant","content":"hi"}}],"usage":{"prompt_tokens":3,"completion_tokens":2}}'
)
DIALECTS = {
    "/v1/chat/completions": {"model": "m", "messages": [{"role": "user", "content": "hello"}]},
    "/v1/completions": {"model": "m", "prompt": "hello"},
    "/v1/embeddings": {"model": "m", "input": "hello"},
    "/v1/responses": {"model": "m", "input": "hello"},
    "/api/chat": {"model": "m", "messages": [{"role": "user", "content": "hello"}], "stream": False},
    "/jobs": {"model": "m", "messages": [{"role": "user", "content": "hello"}]},
}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def control(http: aiohttp.ClientSession, node: Node, method: str, path: str, body: object = None) -> Reply:
    return http.request(method, f"{node.address}/local/v1/{path}", json=body, headers=bearer(node.control_token))


def ask(http: aiohttp.ClientSession, node: Node, key: str, text: str = "hello", **more: Any) -> Reply:
    body = {"model": "m", "messages": [{"role": "user", "content": text}]} | more
    return http.post(f"{node.address}/v1/chat/completions", json=body, headers=bearer(key))


async def make_key(http: aiohttp.ClientSession, node: Node, name: str) -> tuple[str, str]:
    """The id and the key."""
    async with control(http, node, "POST", "keys", {"name": name}) as reply:
        assert reply.status == 201
        made = await reply.json()
        return made["info"]["id"], made["key"]


async def keys(http: aiohttp.ClientSession, node: Node) -> dict[str, dict[str, Any]]:
    async with control(http, node, "GET", "keys") as reply:
        assert reply.status == 200
        return {key["name"]: key for key in await reply.json()}


def said(engine: ScriptedEngine) -> list[str]:
    """What the engine was asked, in its order."""
    return [json.loads(asked.body)["messages"][0]["content"] for asked in engine.asked]


class Watch:
    """Looks at a node each time it tells of a change."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._told = asyncio.Event()
        node.on_info = lambda info: self._told.set()

    async def until(self, running: int, waiting: int) -> None:
        async with asyncio.timeout(BOUND_S):
            while ((info := self._node.info()).running, info.waiting) != (running, waiting):
                self._told.clear()
                await self._told.wait()


# -- the routes


async def test_a_key_is_shown_by_the_answer_that_made_it_and_by_no_other(
    make_node: MakeNode, http: aiohttp.ClientSession
) -> None:
    node = await make_node()
    key_id, key = await make_key(http, node, "Anna")
    async with control(http, node, "GET", "keys") as reply:
        text = await reply.text()
    assert key not in text
    (listed,) = json.loads(text)
    assert (listed["id"], listed["name"], listed["tail"], listed["used_at"]) == (key_id, "Anna", key[-4:], None)


@pytest.mark.parametrize("body", [{}, {"name": 5}, {"name": ""}, {"name": "x" * 65}, {"name": "a\nb"}, []])
async def test_a_wrong_name_is_a_bad_request(make_node: MakeNode, http: aiohttp.ClientSession, body: object) -> None:
    node = await make_node()
    async with control(http, node, "POST", "keys", body) as reply:
        assert reply.status == 400
    assert await keys(http, node) == {}


async def test_a_name_that_is_taken_and_a_key_that_is_not_there_are_told(
    make_node: MakeNode, http: aiohttp.ClientSession
) -> None:
    node = await make_node()
    await make_key(http, node, "Anna")
    async with control(http, node, "POST", "keys", {"name": "Anna"}) as reply:
        assert reply.status == 409
    async with control(http, node, "DELETE", "keys/k000000000000") as reply:
        assert reply.status == 404


async def test_an_api_key_opens_no_part_of_the_control_surface(
    make_node: MakeNode, http: aiohttp.ClientSession
) -> None:
    node = await make_node()
    _, key = await make_key(http, node, "Anna")
    for method, path in (("GET", "keys"), ("POST", "keys"), ("DELETE", "keys/x"), ("GET", "settings")):
        async with http.request(method, f"{node.address}/local/v1/{path}", headers=bearer(key)) as reply:
            assert reply.status == 401


# -- who needs one


@pytest.mark.parametrize("path", DIALECTS)
async def test_where_a_key_is_required_nothing_is_asked_of_an_engine_without_one(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession, path: str
) -> None:
    engine.play(whole(BODY))
    node = await make_node(engine, require_key=True)
    _, key = await make_key(http, node, "Anna")
    for wrong in ("", "sk-no-key", "qk_", key[:-1] + "x" * (key[-1] != "x")):
        async with http.post(f"{node.address}{path}", json=DIALECTS[path], headers=bearer(wrong)) as reply:
            assert reply.status == 401
            assert "key" in await reply.text()
    assert engine.asked == []
    assert node.info().waiting == 0
    async with http.post(f"{node.address}{path}", json=DIALECTS[path], headers=bearer(key)) as reply:
        assert reply.status in (200, 202)


async def test_the_page_and_the_commands_need_none(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession
) -> None:
    engine.play(whole(BODY))
    node = await make_node(engine, require_key=True)
    async with ask(http, node, node.control_token) as reply:
        assert reply.status == 200
    async with control(http, node, "GET", "models") as reply:
        assert reply.status == 200
    async with http.get(f"{node.address}/healthz") as reply:
        assert reply.status == 200


async def test_requiring_a_key_counts_from_the_next_request(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession
) -> None:
    engine.play(whole(BODY))
    node = await make_node(engine)
    async with ask(http, node, "sk-anything") as reply:
        assert reply.status == 200
    node.settings.update({"require_key": True})
    async with ask(http, node, "sk-anything") as reply:
        assert reply.status == 401


# -- what each one used


async def test_each_key_is_counted_by_what_the_engine_says_it_read_and_wrote(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession
) -> None:
    node = await make_node(engine)
    _, anna = await make_key(http, node, "Anna")
    await make_key(http, node, "Ben")
    engine.play(whole(BODY))
    engine.play(head(), stream("a", "b", usage={"prompt_tokens": 7, "completion_tokens": 2}))
    engine.play(whole(BODY))
    for key, more in ((anna, {}), (anna, {"stream": True}), ("", {})):
        async with ask(http, node, key, **more) as reply:
            await reply.read()
    used = await keys(http, node)
    assert used["Anna"]["today"] == {"requests": 2, "prompt_tokens": 10, "completion_tokens": 4}
    assert used["Anna"]["total"] == used["Anna"]["today"]
    assert used["Anna"]["used_at"] is not None
    assert used["Ben"]["total"]["requests"] == 0


async def test_what_was_used_and_who_may_call_outlives_a_restart(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession
) -> None:
    engine.play(whole(BODY))
    node = await make_node(engine, require_key=True)
    _, key = await make_key(http, node, "Anna")
    async with ask(http, node, key) as reply:
        await reply.read()
    await node.stop()
    node = await make_node(engine, require_key=True)
    assert (await keys(http, node))["Anna"]["total"] == {"requests": 1, "prompt_tokens": 3, "completion_tokens": 2}
    async with ask(http, node, key) as reply:
        assert reply.status == 200


async def test_lists_of_jobs_say_whose_they_are(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession
) -> None:
    engine.play(whole(BODY))
    node = await make_node(engine)
    _, key = await make_key(http, node, "Anna's laptop")
    async with ask(http, node, key) as reply:
        await reply.read()
    async with ask(http, node, "") as reply:
        await reply.read()
    async with control(http, node, "GET", "jobs") as reply:
        assert [job["key"] for job in await reply.json()] == [None, "Anna's laptop"]


# -- revoked


async def test_a_revoked_key_opens_nothing_from_the_next_request_on_even_where_none_is_needed(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession
) -> None:
    engine.play(whole(BODY))
    node = await make_node(engine)
    key_id, key = await make_key(http, node, "Anna")
    async with ask(http, node, key) as reply:
        assert reply.status == 200
    async with control(http, node, "DELETE", f"keys/{key_id}") as reply:
        assert (reply.status, (await reply.json())["name"]) == (200, "Anna")
    async with ask(http, node, key) as reply:
        assert (reply.status, (await reply.json())["error"]["code"]) == (401, "unauthorized")
    async with ask(http, node, "") as reply:
        assert reply.status == 200


async def test_a_revoked_keys_running_answer_is_cut_and_its_engine_stopped(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession
) -> None:
    engine.play(head(), chunk("a"), HANG)
    node = await make_node(engine, concurrency=1)
    key_id, key = await make_key(http, node, "Anna")
    async with ask(http, node, key, stream=True) as reply:
        assert b'"a"' in await reply.content.readany()
        waiting = asyncio.ensure_future(ask(http, node, key).__aenter__())
        await Watch(node).until(1, 1)
        async with control(http, node, "DELETE", f"keys/{key_id}"):
            pass
        await happens((await engine.request()).gone)
        assert b'"cancelled"' in await reply.read()
    second = await asyncio.wait_for(waiting, BOUND_S)
    assert second.status == 499
    second.release()
    assert len(engine.asked) == 1


# -- in turns


async def test_a_hundred_jobs_of_one_key_do_not_starve_another_ones_single_job(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession
) -> None:
    go = asyncio.Event()
    engine.play(Wait(go), whole(BODY))
    engine.play(whole(BODY))
    node = await make_node(engine, concurrency=1)
    _, anna = await make_key(http, node, "Anna")
    _, ben = await make_key(http, node, "Ben")
    watch = Watch(node)

    many = aiohttp.ClientSession(trust_env=False, connector=aiohttp.TCPConnector(limit=0))

    async def one(key: str, text: str) -> None:
        async with ask(many, node, key, text) as reply:
            assert reply.status == 200
            await reply.read()

    async with many, asyncio.timeout(60), asyncio.TaskGroup() as group:
        for number in range(100):
            group.create_task(one(anna, f"anna {number}"))
        await watch.until(1, 99)
        group.create_task(one(ben, "ben"))
        await watch.until(1, 100)
        go.set()
    assert said(engine).index("ben") <= 2
    assert len(engine.asked) == 101


async def test_three_persons_take_turns_and_each_ones_own_jobs_keep_their_order(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession
) -> None:
    go = asyncio.Event()
    engine.play(Wait(go), whole(BODY))
    engine.play(whole(BODY))
    node = await make_node(engine, concurrency=1)
    who = {name: (await make_key(http, node, name))[1] for name in ("Anna", "Ben", "Cleo")}
    watch = Watch(node)

    async def one(key: str, text: str) -> None:
        async with ask(http, node, key, text) as reply:
            await reply.read()

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(one("", "first"))
        await watch.until(1, 0)
        waiting = 0
        for name, key in who.items():
            for number in range(4):
                group.create_task(one(key, f"{name} {number}"))
                waiting += 1
                await watch.until(1, waiting)
        go.set()
    order = said(engine)[1:]
    rounds = [order[at : at + 3] for at in range(0, 12, 3)]
    assert [sorted(turn) for turn in rounds] == [[f"{name} {number}" for name in who] for number in range(4)]


# -- the bound of what is kept


async def test_a_job_to_be_kept_is_refused_when_the_room_is_used_up_and_a_plain_one_is_not(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.play(whole(BODY))
    node = await make_node(engine, bodies_mib=1)
    monkeypatch.setattr(JobRows, "bodies_bytes", 1024 * 1024 - 10)
    kept: list[tuple[str, dict[str, Any], dict[str, str]]] = [
        ("/jobs", DIALECTS["/jobs"], {}),
        ("/v1/responses", DIALECTS["/v1/responses"] | {"background": True}, {}),
        ("/v1/chat/completions", DIALECTS["/v1/chat/completions"], {"Idempotency-Key": "once"}),
        ("/v1/chat/completions", DIALECTS["/v1/chat/completions"], {"X-Quorum-Keep": "1"}),
    ]
    for path, body, headers in kept:
        async with http.post(f"{node.address}{path}", json=body, headers=headers) as reply:
            error = (await reply.json())["error"]
            assert (reply.status, error["code"]) == (429, "queue_full"), path
            assert "room for prompts and answers" in error["message"].lower()
            assert int(reply.headers["Retry-After"]) > 0
    async with control(http, node, "POST", "chats", {"model": "m"}) as reply:
        chat = await reply.json()
    async with control(http, node, "POST", f"chats/{chat['id']}/messages", {"content": "hi", "model": "m"}) as reply:
        assert (await reply.json())["answer"]["error"]["code"] == "queue_full"  # beside the question, which stays
    assert engine.asked == []
    async with ask(http, node, "") as reply:
        assert reply.status == 200
    async with control(http, node, "GET", "jobs") as reply:
        assert len(await reply.json()) == 1


async def test_forgetting_at_once_leaves_how_a_kept_job_ended_and_no_word_of_it(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession
) -> None:
    go = asyncio.Event()
    engine.play(head(), chunk("secret"), Wait(go), stream("canary"))
    node = await make_node(engine, forget_bodies=True)
    body = DIALECTS["/jobs"] | {"stream": True}
    async with http.post(f"{node.address}/jobs", json=body, headers={"Idempotency-Key": "once"}) as reply:
        job_id = (await reply.json())["job_id"]
    async with http.get(f"{node.address}/jobs/{job_id}/events") as events:
        go.set()
        text = await events.text()
    assert "canary" in text
    assert "event: ended" in text
    async with http.get(f"{node.address}/jobs/{job_id}") as reply:
        told = await reply.json()
    assert (told["state"], told["result"], told["artifacts"]) == (JobState.DONE, None, {})
    assert told["receipt"] is not None
    async with http.get(f"{node.address}/jobs/{job_id}/events") as events:
        text = await events.text()
    assert "canary" not in text
    assert "event: ended" in text
    async with http.post(f"{node.address}/jobs", json=body, headers={"Idempotency-Key": "once"}) as reply:
        assert (await reply.json())["job_id"] == job_id
