"""Jobs that paired computers send: accepted at once, run here only, ended with the call, kept nowhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import router.web.peer_run
from router.engines.base import Call, Reply
from router.node import Node
from router.states import JobState
from tests.fakes import (
    BOUND_S,
    DONE,
    HANG,
    RESET,
    Drip,
    MemoryEngine,
    ScriptedEngine,
    Wait,
    chunk,
    happens,
    head,
    pieces,
    stream,
    whole,
)
from tests.router.conftest import MakeNode
from tests.router.store_kit import rows
from tests.router.web.peer_kit import (
    ASK,
    DESKTOP,
    LAPTOP,
    OTHER_SECRET,
    Site,
    asked,
    peer_of,
    surface_of,
)

WHOLE = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
BODY = b'{\n  "choices": [{"message": {"role": "assistant", "content": "hi\\nthere"}}]\n}'


@pytest.fixture
async def node(make_node: MakeNode, engine: ScriptedEngine) -> Node:
    return await make_node(engine, share=True, concurrency=4)


@pytest.fixture
async def site(node: Node) -> AsyncIterator[Site]:
    async with surface_of(node) as made:
        yield made


async def ended(node: Node) -> None:
    """Wait until no job is live."""
    async with asyncio.timeout(BOUND_S):
        while node._scheduler.jobs:
            await asyncio.wait_for(_moved(node), BOUND_S)


async def _moved(node: Node) -> None:
    came = asyncio.Event()
    node._view.on_info.append(lambda _: came.set())
    node._view.changed("node")
    await came.wait()
    node._view.on_info.pop()


# -- answers


async def test_a_stream_passes_verbatim_between_acceptance_and_facts(site: Site, engine: ScriptedEngine) -> None:
    sent = stream("Hel", "lo", usage={"prompt_tokens": 3, "completion_tokens": 2})
    engine.play(head() + sent)
    async with site.run() as answer:
        first, second = await answer.next(), await answer.next()
        assert (first.kind, first.data) == ("comment", "accepted")
        assert second.kind == "state"
        rest = await answer.rest()
    assert answer.answer.headers["Content-Type"].startswith("text/event-stream")
    messages = [event for event in rest if event.kind == "message"]
    assert b"".join(b"data: %b\n\n" % event.data.encode() for event in messages) == sent
    assert [event.kind for event in rest[-2:]] == ["facts", "message"]
    facts = rest[-2].json
    assert (facts["node"], facts["prompt_tokens"], facts["completion_tokens"]) == (site.id, 3, 2)
    assert rest[-1].data == "[DONE]"
    assert sent.removesuffix(DONE) in answer.raw


async def test_acceptance_comes_before_the_engine_says_anything(site: Site, engine: ScriptedEngine) -> None:
    engine.play(HANG)
    async with asyncio.timeout(2), site.run() as answer:
        assert (await answer.next()).data == "accepted"


async def test_a_whole_answer_is_one_event_in_one_line(site: Site, engine: ScriptedEngine) -> None:
    engine.play(whole(BODY))
    async with site.run(asked(body=WHOLE, stream=False)) as answer:
        rest = await answer.rest()
    kinds = [event.kind for event in rest if event.kind not in ("state", "comment")]
    assert kinds == ["body", "facts", "message"]
    [body] = [event for event in rest if event.kind == "body"]
    assert "\n" not in body.data
    assert body.json == json.loads(BODY)


async def test_each_kind_of_request_is_run(site: Site, engine: ScriptedEngine) -> None:
    answer = b'{"data": [{"embedding": [0.5], "index": 0}]}'
    engine.play(whole(answer))
    said = asked(kind="embedding", body={"model": "m", "input": "x"}, stream=False)
    async with site.run(said) as got:
        assert (await got.until("body")).json == json.loads(answer)
    assert engine.asked[0].path.endswith("/embeddings")


async def test_beats_are_sent_while_nothing_else_is(
    node: Node, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router.web.peer_run, "BEAT_S", 0.02)
    engine.play(HANG)
    async with surface_of(node) as site:
        site.surface.runs._beat_s = 0.02
        async with site.run() as answer:
            seen = [await answer.next() for _ in range(5)]
    assert [event.data for event in seen if event.kind == "comment"][:2] == ["accepted", "beat"]


async def test_moves_and_places_in_the_line_are_told(make_node: MakeNode, engine: ScriptedEngine) -> None:
    node = await make_node(engine, share=True, concurrency=1)
    go_on = asyncio.Event()
    engine.play(head(), chunk("a"), Wait(go_on), chunk(finish="stop") + DONE)
    engine.play(head() + stream("b"))
    async with surface_of(node) as site, site.run(asked(1)) as first:
        await first.until("message")
        async with site.run(asked(1, "J2")) as second:
            waits = (await second.until("state")).json
            assert (waits["state"], waits["place"]) == ("queued", 1)
            go_on.set()
            assert (await second.until("state")).json["state"] == "working"
            assert (await second.rest())[-1].data == "[DONE]"


# -- failures


async def test_an_engine_that_fails_is_an_error_event_without_an_end(site: Site, engine: ScriptedEngine) -> None:
    engine.play(RESET)
    async with site.run() as answer:
        rest = await answer.rest()
    assert rest[-1].kind == "error"
    assert rest[-1].json["code"] == "engine_failed"
    assert "[DONE]" not in answer.raw.decode()


async def test_a_request_that_the_engine_rejects_keeps_its_status(site: Site, engine: ScriptedEngine) -> None:
    engine.play(whole(b'{"error": {"message": "too long"}}', 400))
    async with site.run() as answer:
        error = (await answer.rest())[-1]
    assert (error.json["code"], error.json["status"], error.json["message"]) == ("bad_request", 400, "too long")


async def test_a_break_after_the_first_content_is_an_interruption(site: Site, engine: ScriptedEngine) -> None:
    engine.play(head() + chunk("Hel"), RESET)
    async with site.run() as answer:
        rest = await answer.rest()
    assert rest[-1].json["code"] == "interrupted"
    assert "[DONE]" not in answer.raw.decode()
    assert len(engine.asked) == 1  # never a second generation


async def test_a_failed_try_is_not_tried_again_here(site: Site, engine: ScriptedEngine) -> None:
    engine.play(whole(b"{}", 500))
    async with site.run() as answer:
        assert (await answer.rest())[-1].kind == "error"
    assert len(engine.asked) == 1


async def test_the_time_that_is_left_bounds_the_work(site: Site, engine: ScriptedEngine) -> None:
    engine.play(HANG)
    async with site.run(asked(deadline_s=0.1)) as answer:
        assert (await answer.rest())[-1].json["code"] == "deadline_exceeded"


# -- refusals


async def test_a_try_that_runs_is_refused_and_so_is_one_that_ran(site: Site, engine: ScriptedEngine) -> None:
    go_on = asyncio.Event()
    engine.play(head(), chunk("a"), Wait(go_on), chunk(finish="stop") + DONE)
    async with site.run() as answer:
        await answer.until("message")
        status, told = await site.status("run", asked())
        assert (status, told["error"]["code"]) == (409, "conflict")
        go_on.set()
        await answer.rest()
    assert (await site.status("run", asked()))[0] == 409
    assert len(engine.asked) == 1


async def test_a_try_runs_once_though_this_node_was_started_anew_meanwhile(
    make_node: MakeNode, engine: ScriptedEngine
) -> None:
    engine.play(head() + stream("a"))
    engine.play(head() + stream("b"))
    node = await make_node(engine, share=True)
    async with surface_of(node) as site, site.run(asked(1, job="J5")) as answer:
        await answer.rest()
    await node.stop()
    again = await make_node(engine, share=True)
    async with surface_of(again, paired=False) as site:
        status, told = await site.status("run", asked(1, job="J5"))
        assert (status, told["error"]["code"]) == (409, "conflict")
        assert len(engine.asked) == 1
        async with site.run(asked(2, job="J5")) as answer:
            assert (await answer.rest())[-1].data == "[DONE]"


async def test_a_try_runs_once_though_it_was_so_long_ago_that_it_left_the_memory(
    site: Site, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.web.peer_run.REMEMBERED", 2)
    engine.play(head() + stream("a"))
    for number in range(4):
        async with site.run(asked(1, job=f"J{number}")) as answer:
            await answer.rest()
    for number in range(4):
        assert (await site.status("run", asked(1, job=f"J{number}")))[0] == 409
    assert len(engine.asked) == 4


async def test_another_try_and_another_computers_try_of_that_number_are_others(
    site: Site, engine: ScriptedEngine
) -> None:
    engine.play(head() + stream("a"))
    await site.trust.add(peer_of(DESKTOP, OTHER_SECRET))
    for said, headers in ((asked(1), None), (asked(2), None), (asked(1), site.known(DESKTOP, OTHER_SECRET))):
        async with site.run(said, headers=headers) as answer:
            assert (await answer.rest())[-1].data == "[DONE]"


async def test_a_model_that_is_not_held_is_404(site: Site) -> None:
    status, told = await site.status("run", asked(model="other", body=ASK | {"model": "other"}))
    assert (status, told["error"]["code"]) == (404, "model_not_found")


async def test_a_digest_that_is_not_held_is_404_whatever_the_name(site: Site) -> None:
    add_engine(site.node, digest="b" * 64)
    status, _ = await site.status("run", asked(digest="a" * 64, model="d", body=ASK | {"model": "d"}))
    assert status == 404


async def test_a_full_queue_is_429_and_says_when(site: Site, engine: ScriptedEngine) -> None:
    site.surface.runs._most = 1
    engine.play(HANG)
    async with site.run() as answer:
        await answer.next()
        async with site.call("run", asked(2)) as refused:
            assert refused.status == 429
            assert refused.headers["Retry-After"] == "1"
            assert json.loads(await refused.read())["error"]["code"] == "queue_full"


async def test_the_bound_of_the_whole_queue_is_429(
    site: Site, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.admission.INTERACTIVE_MAX", 0)
    monkeypatch.setattr("router.admission.OWN_MAX", 0)
    status, told = await site.status("run", asked())
    assert (status, told["error"]["code"]) == (429, "queue_full")
    assert len(site.surface.runs) == 0


async def test_a_paused_or_draining_node_is_503_and_takes_work_again(site: Site, engine: ScriptedEngine) -> None:
    engine.play(head() + stream("a"))
    site.node.pause()
    assert (await site.status("run", asked(1)))[0] == 503
    site.node.drain()
    status, told = await site.status("run", asked(2))
    assert (status, told["error"]["code"]) == (503, "paused")
    site.node.resume()
    async with site.run(asked(1)) as answer:
        assert (await answer.rest())[-1].data == "[DONE]"


async def test_without_the_grant_it_is_403(site: Site) -> None:
    await site.trust.grant(LAPTOP, may_use=False)
    assert (await site.status("run", asked(1)))[0] == 403


async def test_with_sharing_off_nobody_runs_anything(make_node: MakeNode, engine: ScriptedEngine) -> None:
    node = await make_node(engine, data="closed")
    async with surface_of(node) as site:
        status, told = await site.status("run", asked())
    assert (status, told["error"]["code"]) == (403, "forbidden")
    assert engine.asked == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"a":1,"a":2}',
        b'{"a":NaN}',
        b'{"a":1e999}',
        b'{"a":"\xff"}',
        b'{"a":"\\ud800"}',
        b'{"a":' + b"[" * 70 + b"]" * 70 + b"}",
    ],
)
async def test_json_that_two_parsers_read_differently_is_400(site: Site, body: bytes) -> None:
    status, told = await site.status("run", body)
    assert (status, told["error"]["code"]) == (400, "bad_request")


async def test_the_request_inside_is_checked_like_any_clients(site: Site, engine: ScriptedEngine) -> None:
    status, _ = await site.status("run", asked(body=ASK | {"temperature": "hot"}))
    assert status == 400
    engine.play(head() + stream("a"))
    async with site.run(asked(2, body=ASK | {"n_discard": 5, "id_slot": 1})) as answer:
        await answer.rest()
    sent = json.loads(engine.asked[0].body)
    assert "n_discard" not in sent
    assert "id_slot" not in sent


# -- names and digests


def add_engine(node: Node, digest: str | None = None, name: str = "d", *, local: bool = True) -> MemoryEngine:
    engine = MemoryEngine("x" if local else "peer-x", [name], loads=False)
    engine.width = 4
    if digest is not None:
        engine.digests[name] = digest

    def reply(call: Call) -> Reply:
        return Reply(200, "text/event-stream", pieces(stream("from", engine.id)))

    engine.reply = reply
    if not local:
        engine.local = False  # type: ignore[attr-defined]
        engine.node = DESKTOP  # type: ignore[attr-defined]
    node._registry.add(engine)
    node._registry.update(engine.id, engine.look())
    return engine


async def test_a_model_is_found_by_its_digest_under_the_name_it_has_here(site: Site) -> None:
    engine = add_engine(site.node, digest="d" * 64)
    said = asked(digest="d" * 64, model="theirs", body=ASK | {"model": "theirs"})
    async with site.run(said) as answer:
        rest = await answer.rest()
    assert rest[-1].data == "[DONE]"
    assert [(call.model, json.loads(call.body)["model"]) for call in engine.calls] == [("d", "d")]


async def test_a_file_whose_digest_is_not_known_yet_goes_by_its_name(site: Site, engine: ScriptedEngine) -> None:
    engine.play(head() + stream("a"))
    async with site.run(asked(digest="a" * 64)) as answer:
        assert (await answer.rest())[-1].data == "[DONE]"


# -- one hop


async def test_what_comes_from_a_peer_never_goes_to_a_peer(site: Site) -> None:
    far = add_engine(site.node, name="far", local=False)
    status, told = await site.status("run", asked(model="far", body=ASK | {"model": "far"}))
    assert (status, told["error"]["code"]) == (404, "model_not_found")
    assert far.calls == []


async def test_with_a_holder_here_and_one_elsewhere_it_runs_here(site: Site, engine: ScriptedEngine) -> None:
    far = add_engine(site.node, name="m", local=False)
    engine.play(whole(b"{}", 500))
    async with site.run() as answer:
        assert (await answer.rest())[-1].kind == "error"
    assert far.calls == []
    assert len(engine.asked) == 1


# -- cancelling


async def test_a_cancel_reaches_the_engine(site: Site, engine: ScriptedEngine) -> None:
    engine.play(head(), chunk("a"), HANG)
    async with site.run() as answer:
        await answer.until("message")
        assert await site.status("cancel", {"origin_job": "J1", "try": 1}) == (200, {"cancelled": True})
        await happens((await engine.request()).gone, 1.0)
        assert (await answer.rest())[-1].json["code"] == "cancelled"


async def test_one_peer_can_not_cancel_anothers_job(site: Site, engine: ScriptedEngine) -> None:
    await site.trust.add(peer_of(DESKTOP, OTHER_SECRET))
    engine.play(head() + chunk("a"), HANG)
    async with site.run() as answer:
        await answer.until("message")
        said = {"origin_job": "J1", "try": 1}
        told = await site.status("cancel", said, headers=site.known(DESKTOP, OTHER_SECRET))
        assert told == (200, {"cancelled": False})
        assert len(site.surface.runs) == 1


async def test_a_cancel_that_overtakes_its_run_keeps_it_from_running(site: Site, engine: ScriptedEngine) -> None:
    assert await site.status("cancel", {"origin_job": "J1", "try": 1}) == (200, {"cancelled": False})
    assert (await site.status("run", asked()))[0] == 409
    assert engine.asked == []


async def test_what_is_remembered_of_a_peer_is_bounded_and_its_own(site: Site) -> None:
    runs = site.surface.runs
    runs._remember((DESKTOP, "J1", 1))
    for number in range(router.web.peer_run.REMEMBERED + 10):
        runs._remember((LAPTOP, "J1", number))
    assert len(runs._past[LAPTOP]) == router.web.peer_run.REMEMBERED
    assert (DESKTOP, "J1", 1) in runs._past[DESKTOP]


async def test_what_a_peers_requests_take_in_memory_is_bounded_and_given_back(
    site: Site, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(json.dumps(asked(1)))
    monkeypatch.setattr(site.surface.runs, "_most_bytes", size + size // 2)
    engine.play(head(), chunk("a"), HANG)
    engine.play(head() + stream("b"))
    async with site.run(asked(1)) as answer:
        await answer.until("message")
        status, told = await site.status("run", asked(2))
        assert (status, told["error"]["code"]) == (429, "queue_full")
        answer.answer.close()
        await happens((await engine.request()).gone, 1.0)
    await ended(site.node)
    async with site.run(asked(3)) as answer:
        assert (await answer.rest())[-1].data == "[DONE]"
    assert not +site.surface.runs._bytes


async def test_a_peer_that_leaves_ends_the_generation(site: Site, engine: ScriptedEngine) -> None:
    engine.play(head(), chunk("a"), HANG)
    async with site.run() as answer:
        await answer.until("message")
        answer.answer.close()
        await happens((await engine.request()).gone, 1.0)
    await ended(site.node)
    assert len(site.surface.runs) == 0


async def test_one_that_does_not_read_is_not_taken_for_one_whose_cable_is_cut(
    site: Site, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its system goes on acknowledging, whatever its program does."""
    monkeypatch.setattr("router.web.peer_run.DEAF_S", 0.3)
    monkeypatch.setattr(site.surface.runs, "_beat_s", 0.05)
    engine.play(head(), chunk("a"), Drip(chunk("b" * 50_000), 0.01, 100), chunk(finish="stop") + DONE)
    async with site.run() as answer:
        await answer.until("message")
        protocol = answer.answer.connection.protocol
        protocol.transport.pause_reading()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 1.0)
        protocol.transport.resume_reading()
        assert (await answer.rest())[-1].data == "[DONE]"


async def test_a_peer_that_leaves_while_it_waits_leaves_nothing(make_node: MakeNode, engine: ScriptedEngine) -> None:
    node = await make_node(engine, share=True, concurrency=1)
    engine.play(HANG)
    async with surface_of(node) as site, site.run(asked(1)):
        await engine.request()
        async with site.run(asked(2)) as waiting:
            await waiting.until("state")
        async with asyncio.timeout(BOUND_S):
            while node._scheduler.waiting:
                await _moved(node)
        assert len(site.surface.runs) == 1


async def test_a_grant_taken_away_ends_what_runs(site: Site, engine: ScriptedEngine) -> None:
    engine.play(head(), chunk("a"), HANG)
    async with site.run() as answer:
        await answer.until("message")
        await site.trust.grant(LAPTOP, may_use=False)
        assert (await answer.rest())[-1].json["code"] == "forbidden"
    await happens((await engine.request()).gone, 1.0)


async def test_sharing_switched_off_ends_what_runs(make_node: MakeNode, engine: ScriptedEngine) -> None:
    node = await make_node(engine)
    node.settings.update({"share": True})
    engine.play(head(), chunk("a"), HANG)
    async with surface_of(node) as site, site.run() as answer:
        await answer.until("message")
        node.settings.update({"share": False})
        assert (await answer.rest())[-1].json["code"] == "forbidden"


# -- nothing is kept


def files(folder: Path) -> list[tuple[str, bytes]]:
    return [(path.name, path.read_bytes()) for path in folder.rglob("*") if path.is_file()]


async def test_nothing_of_prompts_and_answers_is_stored_or_logged(
    site: Site, engine: ScriptedEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    secret, said = "tell nobody about the zebra", "zebras are striped"
    go_on = asyncio.Event()
    engine.play(head(), chunk(said), Wait(go_on), chunk(finish="stop") + DONE)
    body = ASK | {"messages": [{"role": "user", "content": secret}]}
    async with site.run(asked(body=body)) as answer:
        await answer.until("message")
        await site.node._store.run(lambda db: None)  # the row of the running job is on the disk
        assert rows(site.node._store.path, "SELECT count(*) FROM bodies") == [(0,)]
        go_on.set()
        await answer.rest()
    await site.node._store.run(lambda db: None)
    assert [name for name, held in files(tmp_path) if b"zebra" in held] == []
    assert "zebra" not in caplog.text
    [row] = rows(site.node._store.path, "SELECT origin, origin_node, origin_job, origin_try, person, keep FROM jobs")
    assert row == ("peer", LAPTOP, "J1", 1, "laptop", 0)
    assert rows(site.node._store.path, "SELECT count(*) FROM chunks") == [(0,)]


async def test_a_peers_job_ends_with_this_nodes_run(make_node: MakeNode, engine: ScriptedEngine) -> None:
    node = await make_node(engine, share=True)
    engine.play(HANG)
    async with surface_of(node) as site, site.run() as answer:
        await answer.next()
        await engine.request()
        await node._store.run(lambda db: None)
        assert await node._records.resumed(node._clock) == []  # what the next start does


async def test_what_the_page_lists_of_it_names_the_peer(site: Site, engine: ScriptedEngine) -> None:
    engine.play(HANG)
    async with site.run() as answer:
        await answer.next()
        [info] = site.node._view.jobs()
        assert (info.origin, info.key, info.model) == ("peer", "laptop", "m")
        assert info.state in (JobState.QUEUED, JobState.WORKING)
