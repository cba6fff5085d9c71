"""Every move of a job is told to whoever asked, in order, at least once, signed; also after a restart."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from router import webhooks as webhooks_module
from router.webhooks import SECRET_FILE
from tests.fakes import BOUND_S, HANG, ScriptedEngine, Wait, chunk, free_port, happens, head, stream, whole
from tests.router.conftest import MakeNode
from tests.router.engines.fakes import serving
from tests.router.store_kit import Broken, disk_full
from tests.router.web.test_jobs import Client, new_key

SAID = stream("one", "two")
SECRET = "a secret of the caller"


class Receiver:
    """Takes webhooks; answers with ``statuses``, the last again, and waits for ``gate`` first."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.statuses = [204]
        self.gate = asyncio.Event()
        self.gate.set()
        self.url = ""
        self._came = asyncio.Condition()

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        async with self._came:
            self.bodies.append(body)
            self.got.append(json.loads(body))
            self.headers.append(dict(request.headers))
            self._came.notify_all()
        await self.gate.wait()
        return web.Response(status=self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0])

    async def count(self, number: int) -> list[dict[str, Any]]:
        """Wait until that many came; all of them."""
        async with asyncio.timeout(BOUND_S), self._came:
            await self._came.wait_for(lambda: len(self.got) >= number)
        return self.got

    async def last(self, state: str) -> list[dict[str, Any]]:
        """Wait until one told of ``state``; all of them."""
        async with asyncio.timeout(BOUND_S), self._came:
            await self._came.wait_for(lambda: any(told["state"] == state for told in self.got))
        return self.got

    def states(self, job_id: str) -> list[str]:
        return [told["state"] for told in self.got if told["job_id"] == job_id]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    async with serving({"/hook": made.take}) as address:
        made.url = f"{address}/hook"
        yield made
        made.gate.set()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other at once; that they are 1, 2, 4 and 8 s apart is tested by name."""
    monkeypatch.setattr(webhooks_module, "FIRST_S", 0.001)


@pytest.fixture
def call(http: aiohttp.ClientSession) -> Callable[..., Client]:
    return lambda node, key="": Client(http, node, key)


Call = Callable[..., Client]


async def settled(client: Client, job_id: str, count: int) -> list[dict[str, Any]]:
    """Wait until ``count`` moves were told or given up."""
    async with asyncio.timeout(BOUND_S):
        while True:
            told: list[dict[str, Any]] = (await client.get(job_id))["webhook"]["deliveries"]
            over = [one for one in told if one["delivered_at"] or one["attempt"] == webhooks_module.TRIES]
            if len(over) >= count:
                return told


def signed(receiver: Receiver, secret: str) -> bool:
    return all(
        headers["X-Quorum-Signature"] == f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"
        for headers, body in zip(receiver.headers, receiver.bodies, strict=True)
    )


async def test_every_move_is_told_in_order_and_signed_with_the_callers_secret(
    make_node: MakeNode, engine: ScriptedEngine, receiver: Receiver, call: Call
) -> None:
    engine.play(head(), SAID)
    client = call(await make_node(engine))
    status, answer, _ = await client.call(
        "POST",
        "/jobs",
        {"model": "m", "messages": [{"role": "user", "content": "a"}], "webhook": receiver.url}
        | {"webhook_secret": SECRET},
    )
    assert status == 202
    assert "webhook_secret" not in answer
    job_id = answer["job_id"]
    told = await receiver.last("done")
    assert [one["state"] for one in told] == ["queued", "working", "done"]
    assert {one["job_id"] for one in told} == {job_id}
    assert [one["at"] for one in told] == sorted(one["at"] for one in told)
    assert [set(one) for one in told] == [{"job_id", "state", "at", "attempt"}] * 2 + [
        {"job_id", "state", "at", "attempt", "receipt"}
    ]
    assert told[2]["receipt"] == (await client.get(job_id))["receipt"]
    assert signed(receiver, SECRET)
    assert [headers["Idempotency-Key"] for headers in receiver.headers] == [
        f"{job_id}-{state}" for state in ("queued", "working", "done")
    ]
    assert {headers["Content-Type"] for headers in receiver.headers} == {"application/json"}
    deliveries = await settled(client, job_id, 3)
    assert [(one["state"], one["attempt"], one["error"]) for one in deliveries] == [
        (state, 1, None) for state in ("queued", "working", "done")
    ]
    engine_saw = (await engine.request()).body
    assert SECRET.encode() not in engine_saw
    assert b"hook" not in engine_saw


async def test_without_a_secret_the_nodes_own_signs_and_is_shown_in_the_acknowledgement_alone(
    make_node: MakeNode,
    engine: ScriptedEngine,
    receiver: Receiver,
    call: Call,
    http: aiohttp.ClientSession,
    tmp_path: Path,
) -> None:
    engine.play(head(), SAID)
    node = await make_node(engine)
    secrets = []
    for name in ("", "anna"):
        client = call(node, await new_key(http, node, name) if name else "")
        body = {"model": "m", "messages": [{"role": "user", "content": "a"}], "webhook": receiver.url}
        _, answer, _ = await client.call("POST", "/jobs", body)
        secrets.append(answer["webhook_secret"])
        await receiver.count(3)
        assert signed(receiver, secrets[-1])
        assert secrets[-1] not in json.dumps(await client.get(answer["job_id"]))
        receiver.got.clear()
        receiver.headers.clear()
        receiver.bodies.clear()
    assert len(set(secrets)) == 2, "one key's secret signs for no other"
    assert (tmp_path / "data" / SECRET_FILE).stat().st_mode & 0o777 == 0o600
    await node.stop()
    node = await make_node(engine)
    _, answer, _ = await call(node).call("POST", "/jobs", body)
    assert answer["webhook_secret"] == secrets[0], "it outlives a restart"


async def test_a_failure_is_told_with_its_reason(
    make_node: MakeNode, engine: ScriptedEngine, receiver: Receiver, call: Call
) -> None:
    engine.play(whole(b'{"error":{"message":"context too long"}}', status=400))
    client = call(await make_node(engine))
    await client.submit(webhook=receiver.url)
    last = (await receiver.last("failed"))[-1]
    assert (last["state"], last["error"]["message"]) == ("failed", "context too long")


async def test_a_retry_is_told_as_a_move_of_its_own(
    make_node: MakeNode, engine: ScriptedEngine, receiver: Receiver, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.play(whole(b'{"error":{"message":"busy"}}', status=500))
    engine.play(head(), SAID)
    node = await make_node(engine)
    later = node._runner.later
    monkeypatch.setattr(node._runner, "later", lambda delay_s, act: later(0, act))
    await call(node).submit(webhook=receiver.url)
    told = await receiver.last("done")
    assert [one["state"] for one in told] == ["queued", "working", "queued", "working", "done"]
    assert [one["attempt"] for one in told] == [0, 0, 1, 1, 1]
    assert told[2]["error"]["message"] == "busy"


async def test_a_cancelled_job_tells_so(
    make_node: MakeNode, engine: ScriptedEngine, receiver: Receiver, call: Call
) -> None:
    engine.play(head(), chunk("a"), HANG)
    client = call(await make_node(engine))
    job_id = await client.submit(webhook=receiver.url)
    await engine.request()
    await client.cancel(job_id)
    await client.cancel(job_id)
    await receiver.last("cancelled")
    assert receiver.states(job_id) == ["queued", "working", "cancelled"]


async def test_a_receiver_that_fails_is_tried_again_and_the_order_stays(
    make_node: MakeNode, engine: ScriptedEngine, receiver: Receiver, call: Call
) -> None:
    engine.play(head(), SAID)
    receiver.statuses = [500, 503, 302, 204]
    client = call(await make_node(engine))
    job_id = await client.submit(webhook=receiver.url)
    await receiver.last("done")
    assert receiver.states(job_id) == ["queued"] * 4 + ["working", "done"]
    assert [one["attempt"] for one in await settled(client, job_id, 3)] == [4, 1, 1]


async def test_a_receiver_that_never_takes_it_gets_five_tries_for_each_move_and_then_the_next(
    make_node: MakeNode, engine: ScriptedEngine, receiver: Receiver, call: Call
) -> None:
    engine.play(head(), SAID)
    receiver.statuses = [500]
    client = call(await make_node(engine))
    job_id = await client.submit(webhook=receiver.url)
    await receiver.count(15)
    assert receiver.states(job_id) == ["queued"] * 5 + ["working"] * 5 + ["done"] * 5
    deliveries = await settled(client, job_id, 3)
    assert [(one["attempt"], one["delivered_at"], one["error"]) for one in deliveries] == [
        (5, None, "It answered 500.")
    ] * 3
    assert (await client.ended(job_id))["state"] == "done"


async def test_tries_are_one_two_four_and_eight_seconds_apart(
    make_node: MakeNode, engine: ScriptedEngine, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks_module, "FIRST_S", 1.0)
    waits: list[float] = []

    async def sleep(delay_s: float) -> None:
        waits.append(delay_s)

    class Timer:
        Semaphore = asyncio.Semaphore
        to_thread = staticmethod(asyncio.to_thread)

    Timer.sleep = staticmethod(sleep)  # type: ignore[attr-defined]
    monkeypatch.setattr(webhooks_module, "asyncio", Timer)
    engine.play(head(), SAID)
    client = call(await make_node(engine))
    job_id = await client.submit(webhook=f"http://127.0.0.1:{free_port()}/")
    await settled(client, job_id, 3)
    assert [round(wait, 0) for wait in waits[:4]] == [1, 2, 4, 8]
    assert len(waits) == 12


async def test_a_slow_receiver_of_one_job_holds_up_no_other(
    make_node: MakeNode, engine: ScriptedEngine, receiver: Receiver, call: Call
) -> None:
    engine.play(head(), SAID)
    other = Receiver()
    receiver.gate.clear()
    client = call(await make_node(engine))
    async with serving({"/hook": other.take}) as address:
        slow = [await client.submit(webhook=receiver.url) for _ in range(3)]
        job_id = await client.submit(webhook=f"{address}/hook")
        await other.last("done")
        assert other.states(job_id) == ["queued", "working", "done"]
    assert {job: receiver.states(job) for job in slow} == {job: ["queued"] for job in slow}


async def test_what_was_not_told_before_a_restart_is_told_after_it(
    make_node: MakeNode, engine: ScriptedEngine, receiver: Receiver, call: Call
) -> None:
    engine.play(head(), SAID)
    receiver.statuses = [500, 204]
    receiver.gate.clear()
    node = await make_node(engine)
    job_id = await call(node).submit(webhook=receiver.url, webhook_secret=SECRET)
    await call(node).ended(job_id)
    await receiver.count(1)
    await node.stop()
    receiver.gate.set()
    client = call(await make_node(engine))
    await receiver.last("done")
    assert receiver.states(job_id) in (
        ["queued", "queued", "working", "done"],
        ["queued", "queued", "queued", "working", "done"],
    )
    assert signed(receiver, SECRET)
    await settled(client, job_id, 3)
    told = len(receiver.got)
    await (await make_node(engine, data="other")).ready()
    assert len(receiver.got) == told


async def test_a_job_that_a_restart_interrupted_tells_that_it_waits_again(
    make_node: MakeNode, engine: ScriptedEngine, receiver: Receiver, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.node.GRACE_S", 0.0)
    engine.play(head(), chunk(role=True), HANG)
    engine.play(head(), SAID)
    node = await make_node(engine)
    job_id = await call(node).submit(webhook=receiver.url)
    await engine.request()
    await receiver.last("working")
    await node.stop()
    await make_node(engine)
    await receiver.last("done")
    assert receiver.states(job_id) == ["queued", "working", "queued", "working", "done"]


async def test_nobody_hears_of_a_job_that_was_refused(
    make_node: MakeNode, engine: ScriptedEngine, receiver: Receiver, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.play(head(), SAID)
    node = await make_node(engine)
    client = call(node)
    broken = Broken()
    broken.error = disk_full()
    monkeypatch.setattr(node._store._writer, "_faults", broken)
    ask = {"model": "m", "messages": [{"role": "user", "content": "a"}], "webhook": receiver.url}
    assert (await client.call("POST", "/jobs", ask))[0] == 503
    broken.error = None
    job_id = await client.submit(webhook=receiver.url)
    await receiver.last("done")
    assert {told["job_id"] for told in receiver.got} == {job_id}


async def test_a_move_while_the_disk_fails_is_told_when_it_has_recovered(
    make_node: MakeNode, engine: ScriptedEngine, receiver: Receiver, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = asyncio.Event()
    engine.play(Wait(go), head(), SAID)
    node = await make_node(engine)
    job_id = await call(node).submit(webhook=receiver.url)
    await receiver.last("working")
    broken, failed = Broken(), asyncio.Event()
    broken.error = disk_full()
    monkeypatch.setattr(node._store, "on_failure", lambda message: failed.set())
    monkeypatch.setattr(node._store._writer, "_faults", broken)
    go.set()
    await happens(failed)
    assert receiver.states(job_id) == ["queued", "working"]
    broken.error = None
    await receiver.last("done")
    assert receiver.states(job_id) == ["queued", "working", "done"]


async def test_a_job_without_a_webhook_tells_nobody(
    make_node: MakeNode, engine: ScriptedEngine, receiver: Receiver, call: Call
) -> None:
    go = asyncio.Event()
    engine.play(Wait(go), head(), SAID)
    client = call(await make_node(engine))
    job_id = await client.submit()
    go.set()
    assert "webhook" not in await client.ended(job_id)
    assert not receiver.got


async def test_a_key_is_no_way_around_the_rule_of_addresses(
    make_node: MakeNode, engine: ScriptedEngine, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A webhook given over the network reaches neither this computer nor its network."""
    monkeypatch.setattr("router.web.jobs._is_local", lambda request: False)
    client = call(await make_node(engine))
    for url in ("http://127.0.0.1:7411/", "http://localhost:9/", "http://10.0.0.1/"):
        ask = {"model": "m", "messages": [{"role": "user", "content": "a"}], "webhook": url}
        status, told, _ = await client.call("POST", "/jobs", ask)
        assert (status, told["error"]["param"]) == (400, "webhook")


def test_a_node_without_its_secret_file_makes_a_new_one(tmp_path: Path) -> None:
    first = webhooks_module._read_secret(tmp_path / SECRET_FILE)
    assert len(first) == 64
    assert webhooks_module._read_secret(tmp_path / SECRET_FILE) == first
