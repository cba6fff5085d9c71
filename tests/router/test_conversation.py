"""The chat page's questions and answers, kept by the node and not by the page."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from router import conversation
from router.errors import StoreError
from router.node import Node
from tests.fakes import HANG, RESET, ScriptedEngine, chunk, happens, head, stream, whole
from tests.router.conftest import MakeNode


class Page:
    """What the page does, over HTTP."""

    def __init__(self, http: aiohttp.ClientSession, node: Node) -> None:
        self._http, self._node = http, node

    async def call(self, method: str, path: str, **body: Any) -> Any:
        headers = {"Authorization": f"Bearer {self._node.control_token}"}
        url = f"{self._node.address}/local/v1/{path}"
        async with self._http.request(
            method, url, json=body if method in ("POST", "PATCH") else None, headers=headers
        ) as reply:
            text = await reply.text()
            assert reply.status < 300, text
            return json.loads(text) if text else None

    async def ask(self, chat_id: str, content: str, **more: Any) -> Any:
        answering = await self.call("POST", f"chats/{chat_id}/messages", content=content, model="m", **more)
        return await self.ended(chat_id, answering["answer"]["id"])

    async def ended(self, chat_id: str, message_id: str) -> Any:
        headers = {"Authorization": f"Bearer {self._node.control_token}"}
        async with self._http.get(f"{self._node.address}/local/v1/events", headers=headers) as events:
            while True:
                for message in (await self.call("GET", f"chats/{chat_id}"))["messages"]:
                    if message["id"] == message_id and message["state"] == "ended":
                        return message
                await asyncio.wait_for(events.content.readuntil(b"\n\n"), 5)


@pytest.fixture
async def node(make_node: MakeNode, engine: ScriptedEngine) -> Node:
    return await make_node(engine)


@pytest.fixture
def page(node: Node, http: aiohttp.ClientSession) -> Page:
    return Page(http, node)


def sent(engine: ScriptedEngine, number: int) -> Any:
    return json.loads(engine.asked[number].body)


async def test_a_branch_goes_to_the_model_with_its_options(page: Page, engine: ScriptedEngine) -> None:
    engine.play(head(), stream("Paris."))
    engine.play(head(), stream("Seine."))
    chat = await page.call("POST", "chats", model="m")
    options = {"system": "Be short.", "temperature": 0.5, "max_tokens": 99}
    await page.call("PATCH", f"chats/{chat['id']}", options=options)
    first = await page.ask(chat["id"], "Capital of France?")
    await page.ask(chat["id"], "Its river?", parent_id=first["id"])
    assert sent(engine, 1) == {
        "model": "m",
        "stream": True,
        "temperature": 0.5,
        "max_tokens": 99,
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "Capital of France?"},
            {"role": "assistant", "content": "Paris."},
            {"role": "user", "content": "Its river?"},
        ],
    }


async def test_asking_again_stands_beside_the_first_answer(page: Page, engine: ScriptedEngine) -> None:
    engine.play(head(), stream("one"))
    engine.play(head(), stream("two"))
    chat = await page.call("POST", "chats")
    first = await page.ask(chat["id"], "Hi")
    again = await page.call("POST", f"chats/{chat['id']}/regenerate", message_id=first["id"])
    second = await page.ended(chat["id"], again["answer"]["id"])
    assert (first["content"], second["content"]) == ("one", "two")
    assert first["parent_id"] == second["parent_id"]
    assert sent(engine, 0)["messages"] == sent(engine, 1)["messages"]


async def test_thinking_is_kept_apart(page: Page, engine: ScriptedEngine) -> None:
    thought = b'data: {"choices":[{"index":0,"delta":{"reasoning_content":"hmm"}}]}\n\n'
    engine.play(head(), thought, stream("done"))
    chat = await page.call("POST", "chats")
    answer = await page.ask(chat["id"], "Think")
    assert (answer["reasoning"], answer["content"]) == ("hmm", "done")
    assert answer["reasoning_s"] is not None


async def test_what_was_asked_around_a_failed_answer_goes_as_one_message(page: Page, engine: ScriptedEngine) -> None:
    engine.play(whole(b'{"error": {"message": "no"}}', 400))
    engine.play(head(), stream("Both."))
    chat = await page.call("POST", "chats")
    failed = await page.ask(chat["id"], "First half")
    assert failed["error"]["code"] == "bad_request"
    await page.ask(chat["id"], "Second half", parent_id=failed["id"])
    assert sent(engine, 1)["messages"] == [{"role": "user", "content": "First half\n\nSecond half"}]


async def test_an_answer_that_nobody_can_give_now_is_there_with_its_error_to_be_asked_for_again(
    page: Page, engine: ScriptedEngine, node: Node
) -> None:
    node._scheduler.stop_accepting()
    chat = await page.call("POST", "chats")
    answering = await page.call("POST", f"chats/{chat['id']}/messages", content="Hi", model="m")
    assert (answering["answer"]["state"], answering["answer"]["error"]["code"]) == ("ended", "no_holder_available")
    kept = (await page.call("GET", f"chats/{chat['id']}"))["messages"]
    assert [message["id"] for message in kept] == [answering["message"]["id"], answering["answer"]["id"]]
    assert kept[1]["error"] == answering["answer"]["error"]
    node._scheduler.stopping = False
    engine.play(head(), stream("Hello"))
    again = await page.call("POST", f"chats/{chat['id']}/regenerate", message_id=answering["answer"]["id"])
    assert (await page.ended(chat["id"], again["answer"]["id"]))["content"] == "Hello"


PICTURE = "data:image/png;base64,iVBORw0KGgo="


async def test_pictures_are_refused_before_anything_is_stored_where_the_model_cannot_see(
    page: Page, engine: ScriptedEngine, http: aiohttp.ClientSession, node: Node
) -> None:
    chat = await page.call("POST", "chats")
    headers = {"Authorization": f"Bearer {node.control_token}"}
    body = {"content": "What is it?", "model": "m", "images": [PICTURE]}
    async with http.post(f"{node.address}/local/v1/chats/{chat['id']}/messages", json=body, headers=headers) as reply:
        assert reply.status == 400
        assert "can't see pictures" in (await reply.json())["error"]["message"]
    assert (await page.call("GET", f"chats/{chat['id']}"))["messages"] == []
    assert engine.asked == []


async def test_a_model_that_cannot_see_is_told_of_earlier_pictures_in_words(
    page: Page, engine: ScriptedEngine, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.play(head(), stream("A cat."))
    engine.play(head(), stream("Black."))
    chat = await page.call("POST", "chats")
    with monkeypatch.context() as seeing:
        seeing.setattr(node._intake, "sees", lambda model: True)
        first = await page.ask(chat["id"], "What is it?", images=[PICTURE])
    await page.ask(chat["id"], "Its colour?", parent_id=first["id"])
    assert sent(engine, 0)["messages"][0]["content"][1] == {"type": "image_url", "image_url": {"url": PICTURE}}
    assert sent(engine, 1)["messages"][0] == {"role": "user", "content": "What is it?\n\n[a picture]"}


async def test_an_answer_that_broke_off_keeps_what_it_said_and_why(page: Page, engine: ScriptedEngine) -> None:
    engine.play(head(), chunk("half"), RESET)
    chat = await page.call("POST", "chats")
    answer = await page.ask(chat["id"], "Hi")
    assert answer["content"] == "half"
    assert answer["error"]["code"] == "engine_failed"
    assert len(engine.asked) == 3  # nobody followed it: it could be said anew


async def test_the_answer_goes_on_when_the_page_closes(page: Page, engine: ScriptedEngine) -> None:
    engine.play(head(), stream("still here"))
    chat = await page.call("POST", "chats")
    answering = await page.call("POST", f"chats/{chat['id']}/messages", content="Hi", model="m")
    assert (await page.ended(chat["id"], answering["answer"]["id"]))["content"] == "still here"


async def test_stopping_keeps_what_was_said(page: Page, engine: ScriptedEngine) -> None:
    engine.play(head(), chunk("so far"), HANG)
    chat = await page.call("POST", "chats")
    answering = await page.call("POST", f"chats/{chat['id']}/messages", content="Hi", model="m")
    asked = await engine.request()
    while not (await page.call("GET", "jobs"))[0]["tokens"]:
        pass
    await page.call("DELETE", f"jobs/{answering['job_id']}")
    answer = await page.ended(chat["id"], answering["answer"]["id"])
    assert (answer["content"], answer["error"]["code"]) == ("so far", "cancelled")
    await happens(asked.gone, 1.0)


async def test_an_answer_that_ended_while_the_disk_was_full_is_there_once_it_has_room(
    page: Page, node: Node, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "AGAIN_S", 0.01)
    finish, full = node._chats.finish_answer, 2

    async def finish_answer(*message: Any, **facts: Any) -> Any:
        nonlocal full
        if full:
            full -= 1
            raise StoreError("The disk of the data folder is full; nothing was stored.")
        return await finish(*message, **facts)

    monkeypatch.setattr(node._chats, "finish_answer", finish_answer)
    engine.play(head(), stream("Kept."))
    chat = await page.call("POST", "chats", model="m")
    assert (await page.ask(chat["id"], "Well?"))["content"] == "Kept."


async def test_deleting_a_conversation_stops_its_answer(page: Page, engine: ScriptedEngine) -> None:
    engine.play(head(), chunk("a"), HANG)
    chat = await page.call("POST", "chats")
    await page.call("POST", f"chats/{chat['id']}/messages", content="Hi", model="m")
    asked = await engine.request()
    await page.call("DELETE", f"chats/{chat['id']}")
    await happens(asked.gone, 1.0)
    assert await page.call("GET", "chats") == []
