"""``quorum jobs`` against a real node with a busy engine: who waits where, for how long and why, and who goes first."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from app.client import Client
from tests.app.serving import Serving, serving
from tests.fakes import ScriptedEngine, Wait, chunk, head, stream


class Busy:
    """A node of its own whose one engine is busy with the first of four jobs until ``go_on`` is set."""

    def __init__(self, node: Serving, engine: ScriptedEngine, go_on: asyncio.Event) -> None:
        self.engine = engine
        self.go_on = go_on
        self.ids: list[str] = []
        self._node = node
        self._client = Client.find(node.data_dir)

    async def quorum(self, *arguments: str) -> CompletedProcess[str]:
        return await asyncio.to_thread(self._node.quorum, *arguments)

    async def ask(self, text: str) -> None:
        def post(path: str, body: dict[str, Any]) -> Any:
            return self._client.call("POST", f"/local/v1{path}", body)

        chat = await asyncio.to_thread(post, "/chats", {"title": text, "model": "parrot"})
        body = {"content": text, "model": "parrot"}
        self.ids.append((await asyncio.to_thread(post, f"/chats/{chat['id']}/messages", body))["job_id"])

    async def rows(self) -> dict[str, tuple[list[str], str]]:
        """The lines of the table by job: the words before the column WHY, and what stands in it."""
        head, *lines = (await self.quorum("jobs")).stdout.splitlines()
        why = head.find("WHY") if "WHY" in head else None
        return {line.split()[0]: (line[:why].split(), line[why:] if why else "") for line in lines}


@pytest.fixture
async def busy(tmp_path: Path) -> AsyncIterator[Busy]:
    async with ScriptedEngine("parrot") as engine:
        go_on = asyncio.Event()
        engine.play(head(), chunk("on"), Wait(go_on), stream("end"))
        with serving(
            tmp_path / "data", QUORUM_ENGINES=engine.url, QUORUM_BUILTIN_ENGINE="0", QUORUM_CONCURRENCY="1"
        ) as node:
            made = Busy(node, engine, go_on)
            for text in ("first", "second", "third", "fourth"):
                await made.ask(text)
            await engine.request()
            yield made
            go_on.set()


async def test_those_who_wait_are_listed_in_their_order_with_place_start_and_reason(busy: Busy) -> None:
    rows = await busy.rows()

    assert list(rows) == busy.ids
    words, why = rows[busy.ids[0]]
    assert (words[1], why) == ("working", "")
    for place, job_id in enumerate(busy.ids[1:], 1):
        words, why = rows[job_id]
        assert words[1:4] == ["queued", str(place), "in"]
        assert why == "its turn"


async def test_a_waiting_job_is_moved_to_the_front(busy: Busy) -> None:
    done = await busy.quorum("jobs", "--front", busy.ids[3])
    assert (done.returncode, done.stdout) == (0, f"{busy.ids[3]} is next in line\n")

    moved = json.loads((await busy.quorum("jobs", "--front", busy.ids[2], "--json")).stdout)
    assert (moved["id"], moved["place"]) == (busy.ids[2], 1)
    assert list(await busy.rows()) == [busy.ids[0], busy.ids[2], busy.ids[3], busy.ids[1]]
    busy.go_on.set()
    texts = [json.loads((await busy.engine.request(number)).body)["messages"][-1]["content"] for number in range(4)]
    assert texts == ["first", "third", "fourth", "second"]


async def test_a_job_that_does_not_wait_can_not_be_moved(busy: Busy) -> None:
    for job_id in (busy.ids[0], "../settings"):
        done = await busy.quorum("jobs", "--front", job_id)
        assert done.returncode == 1
        assert "does not wait" in done.stderr or "no such" in done.stderr.lower()


async def test_a_pause_is_named_with_the_way_out(busy: Busy) -> None:
    await busy.quorum("pause")
    rows = await busy.rows()

    for job_id in busy.ids[1:]:
        words, why = rows[job_id]
        assert "in" not in words
        assert why == "paused: 'quorum resume'"
