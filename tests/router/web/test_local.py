"""The control surface as the page and the commands use it, over real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from router.node import Node
from tests.fakes import HANG, ScriptedEngine, chunk, head, stream
from tests.router.conftest import MakeNode


class Control:
    """Calls with the control token; ``read`` is the answer's JSON."""

    def __init__(self, http: aiohttp.ClientSession, node: Node) -> None:
        self.http, self.node = http, node
        self.headers = {"Authorization": f"Bearer {node.control_token}"}

    def request(self, method: str, path: str, body: Any = None) -> Any:
        url = f"{self.node.address}/local/v1/{path}"
        return self.http.request(method, url, json=body, headers=self.headers)

    async def read(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        async with self.request(method, path, body) as reply:
            text = await reply.text()
            assert reply.status == status, text
            return json.loads(text) if text else None


@pytest.fixture
async def control(make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession) -> Control:
    return Control(http, await make_node(engine))


async def events(control: Control, path: str, after: str = "") -> AsyncIterator[tuple[str, Any]]:
    headers = control.headers | ({"Last-Event-ID": after} if after else {})
    async with control.http.get(f"{control.node.address}/local/v1/{path}", headers=headers) as reply:
        name, data = "message", ""
        async for raw in reply.content:
            line = raw.decode().rstrip("\n")
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                data = line[6:]
            elif not line and data:
                yield name, data if data == "[DONE]" else json.loads(data)
                name, data = "message", ""


async def test_a_page_gets_a_snapshot_and_then_only_changes(control: Control) -> None:
    told = events(control, "events")
    name, snapshot = await anext(told)
    assert name == "snapshot"
    assert set(snapshot) >= {"node", "engines", "models", "jobs", "chats", "settings"}
    assert snapshot["models"][0]["name"] == "m"
    await control.read("POST", "pause", {})
    async with asyncio.timeout(5):
        async for name, change in told:
            assert name == "change"
            if change["node"] and change["node"]["mode"] == "paused":
                break
    await told.aclose()  # type: ignore[attr-defined]


async def test_pause_for_a_while_says_until_when(control: Control) -> None:
    paused = await control.read("POST", "pause", {"for_s": 3600})
    assert paused["mode"] == "paused"
    assert paused["paused_until"] > 0
    assert (await control.read("POST", "resume", {}))["mode"] == "running"
    wrong = await control.read("POST", "pause", {"for_s": -1}, status=400)
    assert wrong["error"]["code"] == "bad_request"


async def test_an_idle_node_is_drained_at_once(control: Control) -> None:
    assert (await control.read("POST", "drain", {}))["mode"] == "drained"


async def test_settings_are_listed_changed_and_checked(control: Control) -> None:
    listed = {setting["name"]: setting for setting in await control.read("GET", "settings")}
    assert listed["port"]["source"] == "environment"
    assert listed["route"]["choices"] == ["peers-first", "local-first", "fastest"]
    changed = await control.read("PATCH", "settings", {"route": "fastest"})
    assert {setting["name"]: setting["value"] for setting in changed}["route"] == "fastest"
    wrong = await control.read("PATCH", "settings", {"route": "sideways", "theme": "dark"}, status=400)
    assert "route" in wrong["error"]["message"]
    after = {setting["name"]: setting["value"] for setting in await control.read("GET", "settings")}
    assert after["theme"] == "system"


async def test_a_job_is_listed_followed_and_cancelled_twice_alike(control: Control, engine: ScriptedEngine) -> None:
    engine.play(head(), chunk("a"), HANG)
    chat = await control.read("POST", "chats", {"model": "m"})
    asked = await control.read("POST", f"chats/{chat['id']}/messages", {"content": "Hi", "model": "m"})
    job_id = asked["job_id"]
    await engine.request()
    first = await control.read("DELETE", f"jobs/{job_id}")
    assert first["state"] == "cancelled"
    assert (await control.read("DELETE", f"jobs/{job_id}"))["state"] == "cancelled"
    assert [job["id"] for job in await control.read("GET", "jobs?limit=1")] == [job_id]
    last = [event async for event in events(control, f"jobs/{job_id}/events")][-1]
    assert last[0] == "ended"
    assert last[1]["error"]["code"] == "cancelled"


async def test_a_reader_that_comes_back_gets_just_what_it_missed(control: Control, engine: ScriptedEngine) -> None:
    engine.play(head(), stream("one", "two", "three"))
    chat = await control.read("POST", "chats", {"model": "m"})
    asked = await control.read("POST", f"chats/{chat['id']}/messages", {"content": "Hi", "model": "m"})
    path = f"jobs/{asked['job_id']}/events"
    everything = [data for name, data in [event async for event in events(control, path)] if name == "message"]
    missed = [data for name, data in [event async for event in events(control, path, "1.1")] if name == "message"]
    assert missed == everything[2:]
    other = [event async for event in events(control, path, "0.7")]
    assert next(name for name, _ in other) == "reset"
    assert [data for name, data in other if name == "message"] == everything


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("DELETE", "jobs/nobody", None, 404, "not_found"),
        ("GET", "jobs/nobody/events", None, 404, "not_found"),
        ("GET", "jobs?limit=-1", None, 400, "bad_request"),
        ("GET", "chats/nobody", None, 404, "not_found"),
        ("POST", "chats", {"title": 7}, 400, "bad_request"),
        ("POST", "models/load", {"name": "nobody"}, 404, "model_not_found"),
        ("POST", "models/load", {}, 400, "bad_request"),
        ("POST", "jobs/nobody/front", {}, 409, "conflict"),
        ("POST", "show", {}, 409, "conflict"),
        ("POST", "quit", {}, 409, "conflict"),
        ("GET", "nowhere", None, 404, "not_found"),
    ],
)
async def test_a_wrong_call_gets_a_clear_error(
    control: Control, method: str, path: str, body: Any, status: int, code: str
) -> None:
    error = (await control.read(method, path, body, status))["error"]
    assert error["code"] == code
    assert error["message"]
    assert error["hint"]


async def test_a_window_is_shown_when_there_is_one(control: Control) -> None:
    shown = asyncio.Event()
    control.node.on_show = shown.set
    await control.read("POST", "show", {}, status=204)
    assert shown.is_set()


async def test_what_runs_the_node_is_asked_to_end_it(control: Control) -> None:
    asked = asyncio.Event()
    control.node.on_quit = asked.set
    await control.read("POST", "quit", {}, status=202)
    assert asked.is_set()


async def test_only_jobs_of_others_count_as_theirs(control: Control, engine: ScriptedEngine) -> None:
    key = (await control.read("POST", "keys", {"name": "Anna"}, status=201))["key"]
    for headers, theirs in (({}, 0), ({"Authorization": f"Bearer {key}"}, 1)):
        engine.play(head(), chunk("one"), HANG)
        ask = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "stream": True}
        async with control.http.post(f"{control.node.address}/v1/chat/completions", json=ask, headers=headers) as reply:
            await reply.content.readline()
            assert control.node.running_for_others() == theirs


async def test_a_conversation_is_exported_as_a_file(control: Control, engine: ScriptedEngine) -> None:
    chat = await control.read("POST", "chats", {"title": "Räksmörgås", "model": "m"})
    for form, kind in (("md", "text/markdown"), ("json", "application/json")):
        async with control.request("GET", f"chats/{chat['id']}/export?format={form}") as reply:
            assert reply.content_type == kind
            assert "attachment" in reply.headers["Content-Disposition"]
            assert "Räksmörgås" in await reply.text()
    await control.read("GET", f"chats/{chat['id']}/export?format=exe", status=400)


async def test_nothing_of_it_answers_without_the_token(control: Control) -> None:
    for path in ("status", "events", "settings", "chats"):
        async with control.http.get(f"{control.node.address}/local/v1/{path}") as reply:
            assert reply.status == 401


async def test_a_browser_trades_the_token_for_a_cookie(control: Control) -> None:
    origin = {"Origin": control.node.address}
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True), trust_env=False) as browser:
        url = f"{control.node.address}/local/v1"
        async with browser.post(f"{url}/session", json={"token": "wrong"}, headers=origin) as reply:
            assert reply.status == 401
        async with browser.post(f"{url}/session", json={"token": control.node.control_token}, headers=origin) as reply:
            assert reply.status == 204
        async with browser.get(f"{url}/status", headers={"Sec-Fetch-Site": "same-origin"}) as reply:
            assert reply.status == 200
