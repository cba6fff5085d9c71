"""What a receipt says between real nodes: where measured speeds sent a job, and the truth after a failover."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from router.node import Node
from router.states import PeerState
from tests.fakes import BOUND_S, ScriptedEngine, Wait, chunk, head, stream, whole
from tests.router.test_peering_parts import BODY, MakeNode, ask, pair, until
from tests.router.test_peering_parts import make as make

BROKEN = whole(b'{"error": {"message": "The engine ran out of memory."}}', 500)


def told(*words: str, per_s: float) -> bytes:
    """An answer of 100 tokens by an engine that tells how fast it was."""
    timings = {"prompt_n": 20, "prompt_per_second": 1000.0, "predicted_n": 100, "predicted_per_second": per_s}
    said = stream(*words).partition(chunk(finish="stop"))[0]
    return head() + said + chunk(finish="stop", timings=timings) + b"data: [DONE]\n\n"


async def receipt(node: Node, headers: dict[str, str]) -> dict[str, Any]:
    async with (
        aiohttp.ClientSession(trust_env=False) as http,
        http.get(f"{node.address}/jobs/{headers['X-Quorum-Job']}") as reply,
    ):
        found: dict[str, Any] = (await reply.json())["receipt"]
        return found


@pytest.fixture
async def three(make: MakeNode) -> Any:
    """A laptop without models, and two computers that hold one, with their engines."""
    async with ScriptedEngine("llama") as quick, ScriptedEngine("llama") as slow:
        here, studio, attic = await asyncio.gather(make("laptop"), make("studio", quick), make("attic", slow))
        for there in (studio, attic):
            await pair(here, there)
        await until(here, lambda: all(one.state is PeerState.HEALTHY and one.models for one in here._peers.infos()))
        yield here, (studio, quick), (attic, slow)


async def test_speeds_that_two_computers_measured_decide_where_the_third_sends_a_job(three: Any) -> None:
    here, (studio, quick), (attic, slow) = three
    quick.play(told("quick", per_s=200.0))
    slow.play(told("slow", per_s=2.0))
    for there in (studio, attic):
        assert (await ask(there))[0] == 200
    await until(here, lambda: {one.told.decode_per_s for one in here._registry.find("llama")} == {200.0, 2.0})
    here.settings.update({"model_routes": "llama=fastest"})
    for _ in range(3):
        status, text, headers = await ask(here)
        assert (status, "quick" in text) == (200, True)
        assert (headers["X-Quorum-Reason"], headers["X-Quorum-Node"]) == ("soonest", studio._id)
    found = await receipt(here, headers)
    by_node = {verdict["node"]: verdict for verdict in found["verdicts"]}
    assert by_node[attic._id]["predicted_s"] > 20 > by_node[studio._id]["predicted_s"] > 0
    assert by_node[here._id]["verdict"] == "missing"
    assert found["predicted"]["answer_tokens"] == 100
    assert found["predicted"]["decode_s"] == 0.5
    assert 0 < found["total_s"] < BOUND_S


async def test_after_a_failover_headers_and_receipt_name_the_one_that_served_and_what_the_other_did(three: Any) -> None:
    here, (studio, quick), (attic, slow) = three
    here.settings.update({"max_attempts": 1})
    quick.play(BROKEN)
    slow.play(told("from ", "the attic", per_s=50.0))
    for _ in range(2):  # whichever was first the first time, the other one is now
        status, text, headers = await ask(here)
        assert (status, "the attic" in text) == (200, True)
        found = await receipt(here, headers)
        assert headers["X-Quorum-Node"] == found["node"] == attic._id
        assert (found["digest"], found["by_name"]) == (None, True)
        if len(found["tries"]) == 2:
            break
    assert headers["X-Quorum-Attempts"] == "2"
    first, second = found["tries"]
    assert (first["node"], first["result"], second["node"], second["result"]) == (
        studio._id,
        "engine_failed",
        attic._id,
        "ok",
    )
    assert "ran out of memory" in first["detail"]
    words = {verdict["node"]: verdict["verdict"] for verdict in found["verdicts"]}
    assert words == {studio._id: "tried", attic._id: "warm", here._id: "missing"}


async def test_the_wait_in_another_computers_line_is_told_as_a_wait(make: MakeNode) -> None:
    go_on = asyncio.Event()
    async with ScriptedEngine("llama") as engine:
        here, there = await asyncio.gather(make("laptop"), make("studio", engine, concurrency=1))
        await pair(here, there)
        await until(here, lambda: any(one.models for one in here._peers.infos()))
        engine.play(head(), chunk("first"), Wait(go_on), stream("end"))
        engine.play(told("second", per_s=50.0))
        first = asyncio.ensure_future(ask(there))
        await until(there, lambda: there._scheduler.running == 1)
        second = asyncio.ensure_future(ask(here))
        await until(there, lambda: there._scheduler.waiting == 1)
        done, _ = await asyncio.wait([second], timeout=0.3)
        assert not done, "it waits there"
        go_on.set()
        await first
        status, _, headers = await second
        found = await receipt(here, headers)
    assert status == 200
    assert found["queued_s"] >= 0.3
    assert found["ttft_s"] < found["queued_s"]
    assert found["working_s"] <= found["total_s"] - 0.3


@pytest.mark.parametrize("asked", [True, False])
async def test_a_stream_ends_with_its_receipt_for_who_asks(make: MakeNode, asked: bool) -> None:
    async with ScriptedEngine("llama") as engine:
        here = await make("laptop", engine)
        engine.play(told("Hello", per_s=50.0))
        headers = {"X-Quorum-Receipt": "1"} if asked else {}
        async with (
            aiohttp.ClientSession(trust_env=False) as http,
            http.post(f"{here.address}/v1/chat/completions", json=BODY, headers=headers) as reply,
        ):
            text = await reply.text()
        answer, _, comment = text.partition("data: [DONE]\n\n")
        assert "Hello" in answer
        assert comment.startswith(": receipt {") is asked
        if asked:
            found = json.loads(comment.removeprefix(": receipt "))
            assert found == await receipt(here, dict(reply.headers))
            assert (found["node"], found["tokens_per_s"]) == (here._id, 50.0)
        else:
            assert comment == ""
