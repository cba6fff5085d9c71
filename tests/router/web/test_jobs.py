"""What ``/jobs`` promises, over real sockets: acknowledged jobs are on the disk, followed, fetched, cancelled."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from router.node import Node
from router.relay import Limits
from router.runner import JobMoved
from router.web import jobs as jobs_module
from tests.fakes import HANG, RESET, ScriptedEngine, Wait, chunk, happens, head, stream, whole
from tests.router.conftest import MakeNode
from tests.router.loading_engine import LoadingEngine
from tests.router.store_kit import Broken, disk_full

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
SAID = stream("one", " two", usage=USAGE)


class Client:
    """``/jobs`` of one node as a program calls it."""

    def __init__(self, http: aiohttp.ClientSession, node: Node, key: str = "") -> None:
        self._http = http
        self._node = node
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    async def call(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, aiohttp.ClientResponse]:
        url = self._node.address + path
        async with self._http.request(method, url, json=body, headers=self._headers | (headers or {})) as reply:
            data = await reply.read()
            return reply.status, json.loads(data) if data else None, reply

    async def submit(self, **more: object) -> str:
        status, told, reply = await self.call("POST", "/jobs", ASK | more)
        assert status == 202, told
        assert reply.headers["Location"] == f"/jobs/{told['job_id']}"
        return str(told["job_id"])

    async def get(self, job_id: str) -> Any:
        status, told, _ = await self.call("GET", f"/jobs/{job_id}")
        assert status == 200, told
        return told

    async def cancel(self, job_id: str) -> Any:
        status, told, _ = await self.call("DELETE", f"/jobs/{job_id}")
        assert status == 200, told
        return told

    async def events(self, job_id: str, last_event_id: str = "") -> list[tuple[str, str, str]]:
        """All events (name, id, data) until the stream ends."""
        headers = self._headers | ({"Last-Event-ID": last_event_id} if last_event_id else {})
        found = []
        async with self._http.get(f"{self._node.address}/jobs/{job_id}/events", headers=headers) as reply:
            assert reply.status == 200
            for block in (await reply.text()).split("\n\n"):
                fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line and line[0] != ":")
                if "data" in fields:
                    found.append((fields.get("event", "message"), fields.get("id", ""), fields["data"]))
        return found

    async def ended(self, job_id: str) -> Any:
        """Wait until it ended, then what ``GET`` says."""
        assert (await self.events(job_id))[-1][0] == "ended"
        return await self.get(job_id)


@pytest.fixture
def client(http: aiohttp.ClientSession) -> Callable[..., Client]:
    return lambda node, key="": Client(http, node, key)


async def new_key(http: aiohttp.ClientSession, node: Node, name: str) -> str:
    """A new API key of ``node``."""
    headers = {"Authorization": f"Bearer {node.control_token}"}
    async with http.post(f"{node.address}/local/v1/keys", json={"name": name}, headers=headers) as reply:
        return str((await reply.json())["key"])


MakeClient = Callable[..., Client]


def stored(tmp_path: Path, sql: str = "SELECT count(*) FROM jobs") -> Any:
    """What another process sees in the database."""
    with sqlite3.connect(f"file:{tmp_path}/data/quorum.db?mode=ro", uri=True) as db:
        return db.execute(sql).fetchone()[0]


# -- accepted


async def test_an_acknowledged_job_is_on_the_disk_and_answers_later(
    make_node: MakeNode, engine: ScriptedEngine, client: MakeClient, tmp_path: Path
) -> None:
    go = asyncio.Event()
    engine.play(Wait(go), head(), SAID)
    call = client(await make_node(engine))
    status, told, reply = await call.call("POST", "/jobs", ASK)
    assert (status, told["state"] in ("queued", "working")) == (202, True)
    assert set(told) == {"job_id", "state", "links"}
    assert reply.headers["Location"] == told["links"]["self"]
    assert stored(tmp_path, "SELECT id FROM jobs") == told["job_id"]
    assert json.loads(stored(tmp_path, "SELECT request FROM bodies"))["messages"] == ASK["messages"]
    go.set()
    job = await call.ended(told["job_id"])
    assert job["state"] == "done"
    assert job["result"]["object"] == "chat.completion"
    assert job["result"]["choices"][0]["message"]["content"] == "one two"
    assert job["result"]["choices"][0]["finish_reason"] == "stop"
    assert job["result"]["usage"] == USAGE
    assert job["receipt"]["completion_tokens"] == 2
    assert (job["error"], job["origin"], job["kind"]) == (None, "jobs", "chat")
    assert job["created_at"] <= job["started_at"] <= job["completed_at"]


async def test_the_engine_is_asked_for_a_stream_with_usage_whatever_the_client_said(
    make_node: MakeNode, engine: ScriptedEngine, client: MakeClient
) -> None:
    engine.play(head(), SAID)
    call = client(await make_node(engine))
    await call.ended(await call.submit(stream=False, priority="interactive", max_attempts=2, deadline_s=60))
    assert json.loads((await engine.request()).body) == ASK | {
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_completions_and_embeddings_are_jobs_too(
    make_node: MakeNode, engine: ScriptedEngine, client: MakeClient
) -> None:
    said = b'data: {"choices":[{"index":0,"text":"abc","finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    vectors = b'{"object":"list","data":[{"embedding":[0.5],"index":0}]}'
    engine.play(head(), said)
    engine.play(whole(vectors))
    call = client(await make_node(engine))
    _, told, _ = await call.call("POST", "/jobs", {"model": "m", "prompt": "a"})
    job = await call.ended(told["job_id"])
    assert (job["kind"], job["result"]["choices"][0]["text"]) == ("completion", "abc")
    _, told, _ = await call.call("POST", "/jobs", {"model": "m", "input": "a", "kind": "embedding"})
    job = await call.ended(told["job_id"])
    assert (job["kind"], job["result"]) == ("embedding", json.loads(vectors))
    assert set(job["artifacts"]) == {"request.json", "answer.json"}
    assert [asked.path for asked in engine.asked] == ["/v1/completions", "/v1/embeddings"]


WRONG: dict[str, tuple[object, int, str | None]] = {
    "unknown model": (ASK | {"model": "nobody"}, 404, None),
    "no model": ({"messages": ASK["messages"]}, 400, "model"),
    "no messages": ({"model": "m"}, 400, "messages"),
    "bad messages": (ASK | {"messages": "hello"}, 400, "messages"),
    "bad temperature": (ASK | {"temperature": 9}, 400, "temperature"),
    "bad kind": (ASK | {"kind": "video"}, 400, "kind"),
    "kind of a list": (ASK | {"kind": []}, 400, "kind"),
    "kind without its field": (ASK | {"kind": "embedding"}, 400, "input"),
    "bad priority": (ASK | {"priority": "now"}, 400, "priority"),
    "no attempts": (ASK | {"max_attempts": 0}, 400, "max_attempts"),
    "too many attempts": (ASK | {"max_attempts": 21}, 400, "max_attempts"),
    "attempts that are true": (ASK | {"max_attempts": True}, 400, "max_attempts"),
    "no time": (ASK | {"deadline_s": 0}, 400, "deadline_s"),
    "endless time": (ASK | {"deadline_s": 1e9}, 400, "deadline_s"),
    "webhook that is no text": (ASK | {"webhook": 7}, 400, "webhook"),
    "webhook that is no address": (ASK | {"webhook": "hello"}, 400, "webhook"),
    "webhook of another scheme": (ASK | {"webhook": "file:///etc/passwd"}, 400, "webhook"),
    "webhook with a password": (ASK | {"webhook": "http://a:b@127.0.0.1/"}, 400, "webhook"),
    "webhook into a private network": (ASK | {"webhook": "http://192.168.1.1/"}, 400, "webhook"),
    "webhook to a cloud's own address": (ASK | {"webhook": "http://169.254.169.254/latest"}, 400, "webhook"),
    "secret without webhook": (ASK | {"webhook_secret": "long enough"}, 400, "webhook_secret"),
    "short secret": (ASK | {"webhook": "http://127.0.0.1:9/", "webhook_secret": "x"}, 400, "webhook_secret"),
}


@pytest.mark.parametrize("case", WRONG)
async def test_a_wrong_job_is_refused_by_its_field_and_leaves_no_row(
    make_node: MakeNode, engine: ScriptedEngine, client: MakeClient, tmp_path: Path, case: str
) -> None:
    body, status, field = WRONG[case]
    call = client(await make_node(engine))
    got, told, _ = await call.call("POST", "/jobs", body, {"Idempotency-Key": "k"})
    assert (got, told["error"]["param"]) == (status, field)
    assert told["error"]["message"]
    assert told["error"]["hint"]
    assert stored(tmp_path) == 0
    assert not engine.asked


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (b'{"model":"m","model":"m","messages":[]}', "application/json", 400),
        (b"{}", "text/plain", 415),
    ],
)
async def test_a_malformed_job_leaves_no_row(
    make_node: MakeNode, http: aiohttp.ClientSession, tmp_path: Path, body: bytes, kind: str, status: int
) -> None:
    node = await make_node()
    async with http.post(f"{node.address}/jobs", data=body, headers={"Content-Type": kind}) as reply:
        assert reply.status == status
        assert (await reply.json())["error"]["message"]
    assert stored(tmp_path) == 0


async def test_a_job_that_is_too_large_is_refused_unread(make_node: MakeNode, tmp_path: Path) -> None:
    node = await make_node()
    reader, writer = await asyncio.open_connection("127.0.0.1", node.info().port)
    head = f"POST /jobs HTTP/1.1\r\nHost: 127.0.0.1:{node.info().port}\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {32 * 2**20 + 1}\r\n\r\n".encode())
    assert (await reader.readline()).split()[1] == b"413"
    writer.close()
    assert stored(tmp_path) == 0


async def test_what_the_disk_does_not_take_is_not_acknowledged_and_does_not_run(
    make_node: MakeNode, engine: ScriptedEngine, client: MakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.play(head(), SAID)
    node = await make_node(engine)
    call = client(node)
    broken = Broken()
    broken.error = disk_full()
    monkeypatch.setattr(node._store._writer, "_faults", broken)
    status, told, _ = await call.call("POST", "/jobs", ASK, {"Idempotency-Key": "k"})
    assert (status, told["error"]["code"]) == (503, "store_failed")
    assert not node._scheduler.jobs
    broken.error = None
    job_id = await call.submit()
    assert (await call.ended(job_id))["state"] == "done"
    assert len(engine.asked) == 1
    assert stored(tmp_path) == 1
    status, told, _ = await call.call("POST", "/jobs", ASK, {"Idempotency-Key": "k"})
    assert (status, (await call.ended(told["job_id"]))["state"]) == (202, "done")


async def test_nothing_runs_before_it_is_on_the_disk(
    make_node: MakeNode, engine: ScriptedEngine, client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.play(head(), SAID)
    node = await make_node(engine)
    call = client(node)
    broken = Broken()
    monkeypatch.setattr(node._store._writer, "_faults", broken)
    broken.gate.clear()
    accepted = asyncio.Event()
    node._bus.listen(JobMoved, lambda event: accepted.set())
    posting = asyncio.ensure_future(call.submit())
    await happens(accepted)
    assert not node._scheduler.running
    assert not posting.done()
    broken.gate.set()
    assert (await call.ended(await posting))["state"] == "done"


async def test_a_full_queue_says_when_to_come_back_and_still_takes_another_persons_job(
    make_node: MakeNode,
    engine: ScriptedEngine,
    client: MakeClient,
    http: aiohttp.ClientSession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("router.admission.BATCH_MAX", 2)
    monkeypatch.setattr("router.admission.OWN_MAX", 2)
    engine.play(HANG)
    engine.play(head(), SAID)
    node = await make_node(engine, concurrency=1)
    anna, ben = [client(node, await new_key(http, node, name)) for name in ("anna", "ben")]
    running, waiting = await anna.submit(), [await anna.submit() for _ in range(2)]
    await engine.request()
    status, told, refused = await anna.call("POST", "/jobs", ASK)
    assert (status, told["error"]["code"]) == (429, "queue_full")
    assert int(refused.headers["Retry-After"]) == 10, "as long as an unknown job is expected to take"
    waiting.append(await ben.submit())
    assert stored(tmp_path) == 4, "no row of the one refused"
    await anna.cancel(running)
    for caller, job_id in ((anna, waiting[0]), (anna, waiting[1]), (ben, waiting[2])):
        assert (await caller.ended(job_id))["state"] == "done"
    assert (await anna.ended(await anna.submit()))["state"] == "done"


async def test_an_engine_that_is_restarted_costs_no_job_in_its_line(
    make_node: MakeNode, client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.rounds.HOLDER_LOOK_S", 0.01)
    away = asyncio.Event()
    async with ScriptedEngine("m") as old:
        old.play(Wait(asyncio.Event()))
        node = await make_node(old, concurrency=1)
        call, (engine_id,) = client(node), node._registry.engines
        jobs = [await call.submit() for _ in range(6)]
        await old.request()
        look = node._registry.changed

        def changed() -> None:
            look()
            if not node._registry.answers(engine_id):
                away.set()

        monkeypatch.setattr(node._registry, "changed", changed)
    await happens(away)
    async with ScriptedEngine("m") as new:
        assert new._server is not None
        new.play(head(), SAID)
        again = await asyncio.start_server(new._serve, "127.0.0.1", int(old.url.rpartition(":")[2]))
        node._roster.poll_soon(engine_id)
        ended = [await call.ended(job_id) for job_id in jobs]
        again.close()
    assert [(job["state"], job["attempt"]) for job in ended] == [("done", 1)] + [("done", 0)] * 5
    assert len(new.asked) == len(jobs)


async def test_the_late_answer_of_a_zombie_is_fenced_off(
    make_node: MakeNode, engine: ScriptedEngine, client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.node.Limits", lambda: Limits(first_content_s=0.3))
    woken = asyncio.Event()
    async with ScriptedEngine("m") as zombie:
        zombie.play(head(), chunk(role=True), Wait(woken), stream("late"))
        engine.play(head(), SAID)
        call = client(await make_node(zombie, engine))
        job_id = await call.submit()
        done = await call.ended(job_id)
        woken.set()
        await happens(zombie.asked[0].gone)
        assert await call.get(job_id) == done
        assert [one["result"] for one in done["receipt"]["tries"]] == ["deadline_exceeded", "ok"]
        said = [data for name, _, data in await call.events(job_id) if name == "message"]
        assert "late" not in "".join(said)
        assert len(engine.asked) == len(zombie.asked) == 1


# -- looked at


async def test_jobs_are_listed_newest_first_by_state_and_page(
    make_node: MakeNode, engine: ScriptedEngine, client: MakeClient
) -> None:
    go = asyncio.Event()
    engine.play(head(), SAID)
    engine.play(head(), SAID)
    engine.play(Wait(go), head(), SAID)
    call = client(await make_node(engine, concurrency=1))
    done = [await call.submit() for _ in range(2)]
    for job_id in done:
        await call.ended(job_id)
    live = [await call.submit() for _ in range(3)]
    await engine.request(2)
    _, told, _ = await call.call("GET", "/jobs")
    assert [job["job_id"] for job in told["jobs"]] == [*reversed(live), *reversed(done)]
    assert [job["place"] for job in told["jobs"][:3]] == [2, 1, None]
    assert told["next"] is None
    _, told, _ = await call.call("GET", "/jobs?state=done")
    assert [job["job_id"] for job in told["jobs"]] == list(reversed(done))
    _, first, _ = await call.call("GET", "/jobs?limit=2")
    _, second, _ = await call.call("GET", f"/jobs?limit=2&before={first['next']}")
    assert [job["job_id"] for page in (first, second) for job in page["jobs"]] == [*reversed(live), done[1]]
    waiting = await call.get(live[2])
    assert (waiting["state"], waiting["place"]) == ("queued", 2)
    assert waiting["eta_s"] >= 0
    assert waiting["result"] is None
    go.set()
    for job_id in live:
        assert (await call.ended(job_id))["state"] == "done"


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=1001", "state=lost"])
async def test_a_wrong_question_for_jobs_is_refused_by_its_field(
    make_node: MakeNode, client: MakeClient, query: str
) -> None:
    status, told, _ = await client(await make_node()).call("GET", f"/jobs?{query}")
    assert (status, told["error"]["param"]) == (400, query.partition("=")[0])


async def test_an_ended_job_replays_its_events_and_ends(
    make_node: MakeNode, engine: ScriptedEngine, client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.play(head(), SAID)
    node = await make_node(engine)
    call = client(node)
    job_id = await call.submit()
    followed = await call.events(job_id)
    said = [(event, at, data) for event, at, data in followed if event == "message"]
    assert said[-1][2] == "[DONE]"
    for _ in range(2):  # from memory, then from the store
        assert await call.events(job_id) == [*said, followed[-1]]
        assert await call.events(job_id, said[1][1]) == [*said[2:], followed[-1]]
        node._archive._recent.clear()


async def test_a_failed_job_tells_why_and_keeps_what_it_said(
    make_node: MakeNode, engine: ScriptedEngine, client: MakeClient
) -> None:
    engine.play(head(), chunk(role=True), chunk("half"), RESET)
    call = client(await make_node(engine))
    job = await call.ended(await call.submit())
    assert (job["state"], job["error"]["code"], job["result"]) == ("failed", "interrupted", None)
    assert '"half"' in job["artifacts"]["answer.sse"]["content"]
    assert set(job["artifacts"]) == {"request.json", "answer.sse"}


async def test_an_answer_that_broke_off_unheard_is_said_anew(
    make_node: MakeNode, engine: ScriptedEngine, client: MakeClient
) -> None:
    engine.play(head(), chunk(role=True), chunk("half"), RESET)
    engine.play(head(), SAID)
    node = await make_node(engine)
    ended = asyncio.Event()
    node._bus.listen(JobMoved, lambda event: None if event.job.state.live else ended.set())
    call = client(node)
    job_id = await call.submit()
    await happens(ended)
    job = await call.get(job_id)
    assert (job["state"], len(engine.asked)) == ("done", 2)
    assert "half" not in job["artifacts"]["answer.sse"]["content"]


async def test_an_answer_that_broke_off_while_somebody_followed_it_is_not(
    make_node: MakeNode, engine: ScriptedEngine, client: MakeClient, http: aiohttp.ClientSession
) -> None:
    heard = asyncio.Event()
    engine.play(head(), chunk(role=True), chunk("half"), Wait(heard), RESET)
    node = await make_node(engine)
    call = client(node)
    got = b""
    async with http.get(f"{node.address}/jobs/{await call.submit()}/events", headers=call._headers) as reply:
        async for piece in reply.content.iter_any():
            got += piece
            if b"half" in got:
                heard.set()
    assert len(engine.asked) == 1
    assert b'"interrupted"' in got


async def test_a_deadline_counts_from_the_start_of_work_over_all_attempts(
    make_node: MakeNode, engine: ScriptedEngine, client: MakeClient
) -> None:
    engine.play(head(), chunk(role=True), HANG)
    call = client(await make_node(engine))
    job = await call.ended(await call.submit(deadline_s=0.2))
    assert (job["state"], job["error"]["code"], len(engine.asked)) == ("failed", "deadline_exceeded", 1)


async def test_max_attempts_bounds_the_attempts(
    make_node: MakeNode, engine: ScriptedEngine, client: MakeClient
) -> None:
    engine.play(whole(b'{"error":{"message":"busy"}}', status=500))
    call = client(await make_node(engine))
    job = await call.ended(await call.submit(max_attempts=1))
    assert (job["state"], job["error"]["message"], len(engine.asked)) == ("failed", "busy", 1)


async def test_artifacts_are_inline_when_small_and_fetched_when_large(
    make_node: MakeNode, engine: ScriptedEngine, client: MakeClient, http: aiohttp.ClientSession
) -> None:
    large = stream(*["x" * 1000] * 300)
    engine.play(head(), SAID)
    engine.play(head(), large)
    node = await make_node(engine)
    call = client(node)
    small = await call.ended(await call.submit())
    assert small["artifacts"]["request.json"]["content"]["messages"] == ASK["messages"]
    assert small["artifacts"]["answer.sse"]["content"] == SAID.decode()
    job = await call.ended(await call.submit())
    assert job["result"] is None
    assert "content" not in job["artifacts"]["answer.sse"]
    for name, kind in jobs_module.ARTIFACTS.items():
        told = job["artifacts"][name]
        async with http.get(node.address + told["href"]) as reply:
            data = await reply.read()
            assert (reply.status, reply.content_type, len(data)) == (200, kind, told["bytes"])
            assert reply.headers["Content-Disposition"].startswith("attachment")
        if name == "answer.sse":
            assert data == large
        elif name == "answer.json":
            assert json.loads(data)["choices"][0]["message"]["content"] == "x" * 300_000


@pytest.mark.parametrize(
    "name", ["passwd", "..%2f..%2fquorum.db", "%2e%2e/%2e%2e/control.token", "request.json%00", "request.JSON", "%2f"]
)
async def test_an_artifact_has_a_name_of_the_table_or_none(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession, client: MakeClient, name: str
) -> None:
    engine.play(head(), SAID)
    node = await make_node(engine)
    call = client(node)
    job_id = await call.submit()
    await call.ended(job_id)
    url = aiohttp.client.URL(f"{node.address}/jobs/{job_id}/artifacts/{name}", encoded=True)
    async with http.get(url) as reply:
        assert reply.status in (400, 404)
        assert (await reply.json())["error"]["code"] in ("not_found", "bad_request")


async def test_a_job_that_never_was_is_not_found(make_node: MakeNode, client: MakeClient) -> None:
    call = client(await make_node())
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/events"), ("GET", "/artifacts/request.json")):
        status, told, _ = await call.call(method, f"/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV{path}")
        assert (status, told["error"]["code"]) == (404, "not_found")


async def test_a_key_sees_its_own_jobs_only(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession, client: MakeClient
) -> None:
    engine.play(head(), SAID)
    node = await make_node(engine)
    anna, bert = [client(node, await new_key(http, node, name)) for name in ("anna", "bert")]
    anybody = client(node)
    mine, his = await anna.submit(), await bert.submit()
    for path in ("", "/events", "/artifacts/request.json"):
        assert (await anna.call("GET", f"/jobs/{his}{path}"))[0] == 404
    assert (await anna.call("DELETE", f"/jobs/{his}"))[0] == 404
    assert (await bert.ended(his))["state"] == "done"
    assert (await anna.ended(mine))["state"] == "done"
    assert [job["job_id"] for job in (await anna.call("GET", "/jobs"))[1]["jobs"]] == [mine]
    assert [job["job_id"] for job in (await anybody.call("GET", "/jobs"))[1]["jobs"]] == [his, mine]
    assert (await anna.call("GET", f"/jobs?before={his}&limit=1"))[1]["jobs"][0]["job_id"] == mine


# -- cancelled


async def test_cancelling_is_possible_while_it_waits_works_and_after_the_end(
    make_node: MakeNode, engine: ScriptedEngine, client: MakeClient, tmp_path: Path
) -> None:
    engine.play(head(), chunk(role=True), chunk("a"), HANG)
    engine.play(head(), SAID)
    node = await make_node(engine, concurrency=1)
    call = client(node)
    working, waiting, last = [await call.submit() for _ in range(3)]
    asked = await engine.request()
    for job_id in (waiting, working):
        first = await call.cancel(job_id)
        assert (first["state"], first["error"]["code"]) == ("cancelled", "cancelled")
        assert await call.cancel(job_id) == first
        assert (await call.events(job_id))[-1][0] == "ended"
    await happens(asked.gone)
    done = await call.ended(last)
    for _ in range(2):
        again = await call.cancel(last)
        assert (again["state"], again["receipt"]) == ("done", done["receipt"])
    assert len(engine.asked) == 2
    assert stored(tmp_path, "SELECT group_concat(state) FROM jobs") == "cancelled,cancelled,done"


async def test_cancelling_while_the_model_loads_ends_the_load(make_node: MakeNode, client: MakeClient) -> None:
    async with LoadingEngine("m") as loading:
        loading.load_gate.clear()
        call = client(await make_node(loading))  # type: ignore[arg-type]
        job_id, other = await call.submit(), await call.submit()
        await loading.until(lambda: loading.loads)
        assert (await call.get(job_id))["state"] == "loading"
        first = await call.cancel(job_id)
        assert first["state"] == "cancelled"
        assert await call.cancel(job_id) == first
        await loading.until(lambda: loading.cut_loads)
        loading.load_gate.set()
        assert (await call.ended(other))["state"] == "done"
        assert loading.finished == ["hello"]


async def test_cancelling_between_two_attempts_ends_it(
    make_node: MakeNode, engine: ScriptedEngine, client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.play(whole(b'{"error":{"message":"busy"}}', status=500))
    node = await make_node(engine)
    waits: list[Callable[[], None]] = []
    waiting = asyncio.Event()

    def later(delay_s: float, act: Callable[[], None]) -> None:
        waits.append(act)
        waiting.set()

    monkeypatch.setattr(node._runner, "later", later)
    call = client(node)
    job_id = await call.submit()
    await happens(waiting)
    assert (await call.get(job_id))["why"] == "retry"
    first = await call.cancel(job_id)
    waits[0]()
    assert await call.cancel(job_id) == first
    assert len(engine.asked) == 1


async def test_a_cancel_works_while_the_disk_does_not(
    make_node: MakeNode, engine: ScriptedEngine, client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.play(head(), chunk("a"), HANG)
    node = await make_node(engine)
    call = client(node)
    job_id = await call.submit()
    asked = await engine.request()
    broken = Broken()
    broken.error = disk_full()
    monkeypatch.setattr(node._store._writer, "_faults", broken)
    assert (await call.cancel(job_id))["state"] == "cancelled"
    await happens(asked.gone)
    broken.error = None
