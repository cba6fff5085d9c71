"""What a node that was stopped in the middle leaves, and what its next start makes of it."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import aiohttp
import pytest

from tests.fakes import HANG, ScriptedEngine, chunk, head, stream, whole
from tests.router.conftest import MakeNode
from tests.router.test_conversation import Page
from tests.router.test_node import BODY, _read, control


async def test_a_job_that_was_interrupted_by_a_stop_runs_at_the_next_start(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.node.GRACE_S", 0.05)
    engine.play(HANG)
    node = await make_node(engine)
    waiting = asyncio.ensure_future(_read(http, node))
    await engine.request()
    engine.scripts.clear()
    engine.play(whole(BODY))
    await node.stop()
    with pytest.raises(aiohttp.ClientError):
        await waiting
    again = await make_node(engine)
    await engine.request(1)
    async with control(http, again, "GET", "events") as events:
        seen = await events.content.readuntil(b"\n\n")
        while b'"state":"done"' not in seen:
            seen = await events.content.readuntil(b"\n\n")


async def test_an_answer_interrupted_by_a_restart_is_given_again_in_its_place(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.node.GRACE_S", 0.05)
    engine.play(head(), chunk("lost"), HANG)
    engine.play(head(), stream("whole"))
    node = await make_node(engine)
    page = Page(http, node)
    chat = await page.call("POST", "chats")
    answering = await page.call("POST", f"chats/{chat['id']}/messages", content="Hi", model="m")
    await engine.request()
    await node.stop()
    again = Page(http, await make_node(engine))
    answer = await again.ended(chat["id"], answering["answer"]["id"])
    assert answer["content"] == "whole"
    assert answer["job_id"] == answering["job_id"]


async def test_an_answer_whose_job_is_gone_ends_with_the_reason(
    make_node: MakeNode,
    engine: ScriptedEngine,
    http: aiohttp.ClientSession,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("router.node.GRACE_S", 0.05)
    engine.play(head(), chunk("half"), HANG)
    node = await make_node(engine)
    page = Page(http, node)
    chat = await page.call("POST", "chats")
    answering = await page.call("POST", f"chats/{chat['id']}/messages", content="Hi", model="m")
    await engine.request()
    await node.stop()
    with sqlite3.connect(tmp_path / "data" / "quorum.db") as db:
        db.execute("DELETE FROM jobs WHERE id = ?", (answering["job_id"],))

    again = Page(http, await make_node(engine))

    answer = await again.ended(chat["id"], answering["answer"]["id"])
    assert answer["error"]["code"] == "interrupted"
    assert len(engine.asked) == 1
