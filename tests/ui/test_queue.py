"""The Queue page: what runs, what waits and why, and what a person can do about it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from playwright.async_api import Locator, Page, ViewportSize, expect

from router.node import Node
from tests.fakes import Drip, MemoryEngine, ScriptedEngine, Wait, chunk, happens, head, stream, whole
from tests.ui.conftest import MakeNode, OpenPage

pytestmark = pytest.mark.browser

OUT = Path(__file__).resolve().parent.parent / "out"

Ask = Callable[..., Awaitable[str]]


@pytest.fixture
async def ask() -> AsyncIterator[Ask]:
    """``await ask(node, model, text)`` asks in a new conversation and gives the job's id."""
    async with aiohttp.ClientSession() as client:

        async def post(node: Node, path: str, body: dict[str, Any]) -> Any:
            headers = {"Authorization": f"Bearer {node.control_token}"}
            async with client.post(f"{node.address}/local/v1{path}", json=body, headers=headers) as answer:
                assert answer.status < 300, await answer.text()
                return await answer.json()

        async def ask_it(node: Node, model: str = "parrot", text: str = "Hello") -> str:
            chat = await post(node, "/chats", {"title": text, "model": model})
            answering = await post(node, f"/chats/{chat['id']}/messages", {"content": text, "model": model})
            return str(answering["job_id"])

        yield ask_it


@pytest.fixture
async def birds() -> AsyncIterator[ScriptedEngine]:
    """An engine with two models, ``parrot`` and ``owl``."""
    async with ScriptedEngine("parrot", "owl") as scripted:
        yield scripted


def section(page: Page, name: str) -> Locator:
    return page.get_by_role("region", name=name)


def rows(page: Page, name: str) -> Locator:
    return section(page, name).get_by_role("listitem")


async def become(page: Page, name: str, titles: list[str]) -> None:
    """Wait until one part of the queue has exactly these rows."""
    await expect(rows(page, name).get_by_role("link")).to_have_text(titles)


async def test_before_anything_was_asked_the_page_says_what_will_be_here(
    make_node: MakeNode, open_page: OpenPage, engine: ScriptedEngine
) -> None:
    node = await make_node(engine)
    page = await open_page(node, "#/queue")

    await expect(page.get_by_role("heading", name="Nothing has been asked yet")).to_be_visible()
    await expect(page.get_by_role("main").get_by_text(f"{node.address}/v1")).to_be_visible()
    await page.get_by_role("main").get_by_role("link", name="New chat").click()
    await expect(page.get_by_role("textbox", name="Message")).to_be_focused()


async def test_the_line_is_shown_in_order_with_place_start_and_reason_and_follows_every_move(
    make_node: MakeNode, open_page: OpenPage, birds: ScriptedEngine, ask: Ask
) -> None:
    node = await make_node(birds, concurrency=1)
    page = await open_page(node, "#/queue")
    ends = [asyncio.Event() for _ in range(4)]
    for end in ends:
        birds.play(head(), chunk("on"), Wait(end), stream("end"))
    await ask(node, text="first")
    for text in ("second", "third", "fourth"):
        await ask(node, text=text)

    await become(page, "Running", ["first"])
    await become(page, "Waiting", ["second", "third", "fourth"])
    await expect(page.get_by_text("1 running, 3 waiting.")).to_be_visible()
    for place, row in zip(("1st", "2nd", "3rd"), await rows(page, "Waiting").all(), strict=True):
        await expect(row.get_by_text(place, exact=True)).to_be_visible()
        await expect(row.get_by_text("Waits for its turn · waiting for")).to_be_visible()
        await expect(row.get_by_text("Starts ")).to_be_visible()

    await rows(page, "Waiting").nth(2).get_by_role("button", name="Move the job for parrot to the front").click()
    await become(page, "Waiting", ["fourth", "second", "third"])
    await expect(rows(page, "Waiting").nth(0).get_by_text("1st", exact=True)).to_be_visible()
    await expect(rows(page, "Waiting").nth(0).get_by_role("button", name="Move the job")).to_have_count(0)

    ends[0].set()
    await become(page, "Running", ["fourth"])
    await become(page, "Waiting", ["second", "third"])
    await become(page, "Last 50", ["first"])
    for place, row in zip(("1st", "2nd"), await rows(page, "Waiting").all(), strict=True):
        await expect(row.get_by_text(place, exact=True)).to_be_visible()
    asked = [json.loads(request.body)["messages"][-1]["content"] for request in birds.asked]
    assert asked == ["first", "fourth"]
    for end in ends:
        end.set()


async def test_a_job_says_whose_key_asked_for_it(
    make_node: MakeNode, open_page: OpenPage, birds: ScriptedEngine
) -> None:
    node = await make_node(birds)
    end = asyncio.Event()
    birds.play(head(), chunk("on"), Wait(end), stream("end"))
    page = await open_page(node, "#/queue")
    async with aiohttp.ClientSession() as client:
        control = {"Authorization": f"Bearer {node.control_token}"}
        async with client.post(f"{node.address}/local/v1/keys", json={"name": "Anna"}, headers=control) as made:
            key = (await made.json())["key"]
        body = {"model": "parrot", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
        bearer = {"Authorization": f"Bearer {key}"}
        async with client.post(f"{node.address}/v1/chat/completions", json=body, headers=bearer) as answer:
            await expect(rows(page, "Running").get_by_text("API · Anna · OpenAI-compatible")).to_be_visible()
            end.set()
            await answer.read()
    await expect(rows(page, "Last 50").get_by_text("API · Anna · OpenAI-compatible")).to_be_visible()


async def test_jobs_are_cancelled_where_they_stand(
    make_node: MakeNode, open_page: OpenPage, birds: ScriptedEngine, ask: Ask
) -> None:
    node = await make_node(birds, concurrency=1)
    birds.play(head(), Drip(chunk("on "), every_s=0.02))
    page = await open_page(node, "#/queue")
    await ask(node, text="running")
    await ask(node, "owl", text="waiting")

    await page.get_by_role("button", name="Cancel the job for owl").click()
    await expect(section(page, "Waiting").get_by_text("Nothing is waiting.")).to_be_visible()
    await page.get_by_role("button", name="Cancel the job for parrot").click()

    await expect(section(page, "Running").get_by_text("Nothing is running.")).to_be_visible()
    await expect(rows(page, "Last 50").get_by_text("Cancelled")).to_have_count(2)
    await happens((await birds.request()).gone)
    assert len(birds.asked) == 1


async def test_a_pause_is_the_reason_for_everybody_and_can_be_ended_here(
    make_node: MakeNode, open_page: OpenPage, birds: ScriptedEngine, ask: Ask
) -> None:
    node = await make_node(birds, concurrency=1)
    birds.play(head(), stream("done"))
    page = await open_page(node, "#/queue")
    node.pause()
    for text in ("one", "two"):
        await ask(node, text=text)

    waiting = section(page, "Waiting")
    await expect(waiting.get_by_text("Takes no new work until you resume.")).to_be_visible()
    await expect(waiting.get_by_text("Waits until Quorum is resumed", exact=True)).to_have_count(2)
    await waiting.get_by_role("button", name="Resume").click()

    await expect(rows(page, "Last 50").get_by_text("Done")).to_have_count(2)
    await expect(waiting.get_by_role("button")).to_have_count(0)


async def test_a_job_to_be_tried_again_says_when_and_what_went_wrong(
    make_node: MakeNode, open_page: OpenPage, birds: ScriptedEngine, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await make_node(birds)
    monkeypatch.setattr(node._scheduler._rounds, "_jitter", lambda low, high: 30.0)
    birds.play("reset")
    page = await open_page(node, "#/queue")
    await ask(node, text="unlucky")

    row = rows(page, "Waiting").first
    await expect(row.get_by_text("Tried again in about")).to_be_visible()
    await expect(row.get_by_text("1 failed attempt")).to_be_visible()
    await expect(row.get_by_text("(engine_failed)")).to_be_visible()
    await row.get_by_role("button", name="Cancel the job for parrot").click()
    await expect(rows(page, "Last 50").get_by_text("Cancelled")).to_be_visible()


async def test_a_model_on_its_way_into_memory_shows_how_far_it_is_and_who_waits_for_it(
    make_node: MakeNode, open_page: OpenPage, birds: ScriptedEngine, ask: Ask
) -> None:
    node = await make_node(birds)
    memory = MemoryEngine("memory", ["large", "small"])
    memory.load_gate = asyncio.Event()
    memory.percents = [40]
    await node._roster.add(memory)
    page = await open_page(node, "#/queue")
    for model in ("large", "large", "small"):
        await ask(node, model, text=model)

    running = section(page, "Running")
    await expect(running.get_by_text("Loading 40 %")).to_be_visible()
    await expect(running.get_by_role("progressbar", name="Loading 40 %")).to_be_visible()
    await expect(rows(page, "Waiting").nth(0).get_by_text("Its model is being loaded")).to_be_visible()
    await expect(rows(page, "Waiting").nth(1).get_by_text("Another model is being loaded")).to_be_visible()
    for gone in (1, 2, 3):
        await page.get_by_role("button", name="Cancel the job").first.click()
        await expect(rows(page, "Last 50").get_by_text("Cancelled")).to_have_count(gone)


async def test_what_ended_has_its_time_tokens_code_and_receipt(
    make_node: MakeNode, open_page: OpenPage, birds: ScriptedEngine, ask: Ask
) -> None:
    node = await make_node(birds)
    birds.play(head(), stream("fine", usage={"prompt_tokens": 3, "completion_tokens": 1234}))
    birds.play(whole(json.dumps({"error": {"message": "No such thing."}}).encode(), 400))
    page = await open_page(node, "#/queue")
    await ask(node, text="good")
    await become(page, "Last 50", ["good"])
    await ask(node, "owl", text="bad")
    await become(page, "Last 50", ["bad", "good"])

    bad, good = rows(page, "Last 50").nth(0), rows(page, "Last 50").nth(1)
    await expect(bad.get_by_text("Failed")).to_be_visible()
    await expect(bad.get_by_text("(bad_request)")).to_be_visible()
    await expect(good.get_by_text("Done")).to_be_visible()
    await expect(good.get_by_text("1,234 tokens")).to_be_visible()
    await expect(good.get_by_text("ms · ")).to_be_visible()
    await good.get_by_role("button", name="Receipt").click()
    await expect(page.get_by_role("dialog", name="Receipt").get_by_text("1,234")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(good.get_by_role("button", name="Receipt")).to_be_focused()
    await good.get_by_role("link", name="good").click()
    await expect(page.get_by_role("log").get_by_text("fine")).to_be_visible()


async def test_what_ended_before_a_restart_is_still_listed(
    make_node: MakeNode, open_page: OpenPage, birds: ScriptedEngine, ask: Ask
) -> None:
    node = await make_node(birds)
    birds.play(head(), stream("fine"))
    page = await open_page(node, "#/queue")
    for text in ("one", "two"):
        await ask(node, text=text)
        await expect(rows(page, "Last 50").get_by_role("link", name=text)).to_be_visible()
    await page.close()
    await node.stop()

    page = await open_page(await make_node(birds), "#/queue")

    await become(page, "Last 50", ["two", "one"])


async def test_the_keyboards_focus_stays_with_a_row_that_moves(
    make_node: MakeNode, open_page: OpenPage, birds: ScriptedEngine, ask: Ask
) -> None:
    node = await make_node(birds, concurrency=1)
    end = asyncio.Event()
    birds.play(head(), chunk("on"), Wait(end), stream("end"))
    page = await open_page(node, "#/queue")
    for text in ("first", "second", "third", "fourth"):
        await ask(node, text=text)
    await become(page, "Waiting", ["second", "third", "fourth"])

    await rows(page, "Waiting").nth(2).get_by_role("button", name="Move the job").focus()
    await page.keyboard.press("Enter")
    await become(page, "Waiting", ["fourth", "second", "third"])
    cancel = rows(page, "Waiting").nth(0).get_by_role("button", name="Cancel the job")
    await expect(cancel).to_be_focused()
    await page.keyboard.press("Enter")

    await become(page, "Waiting", ["second", "third"])
    await expect(section(page, "Waiting")).to_be_focused()
    end.set()


async def test_of_a_long_line_the_first_hundred_are_shown_and_the_rest_counted(
    make_node: MakeNode, open_page: OpenPage, birds: ScriptedEngine, ask: Ask
) -> None:
    node = await make_node(birds)
    node.pause()
    page = await open_page(node, "#/queue")
    await asyncio.gather(*(ask(node, text=str(number)) for number in range(130)))

    await expect(section(page, "Waiting").get_by_text("and 30 more")).to_be_visible()
    await expect(section(page, "Waiting").get_by_role("heading", name="Waiting 130")).to_be_visible()
    await expect(rows(page, "Waiting").get_by_role("link")).to_have_count(100)


@pytest.mark.parametrize(
    ("viewport", "dark"),
    [
        ({"width": 390, "height": 844}, False),
        ({"width": 390, "height": 844}, True),
        ({"width": 800, "height": 600}, False),
        ({"width": 1280, "height": 800}, False),
        ({"width": 1280, "height": 800}, True),
        ({"width": 3840, "height": 2160}, False),
    ],
    ids=lambda value: f"{value['width']}" if isinstance(value, dict) else ("dark" if value else "light"),
)
async def test_nothing_is_cut_off_in_any_window(
    make_node: MakeNode, open_page: OpenPage, ask: Ask, viewport: ViewportSize, dark: bool
) -> None:
    long = "a-model-with-quite-a-long-name-" * 4
    async with ScriptedEngine("parrot", long) as engine:
        node = await make_node(engine, concurrency=1)
        end = asyncio.Event()
        engine.play(head(), stream("fine", usage={"prompt_tokens": 3, "completion_tokens": 1234}))
        engine.play(whole(json.dumps({"error": {"message": f"No such {long * 2}."}}).encode(), 400))
        engine.play(head(), chunk("on"), Wait(end), stream("end"))
        page = await open_page(node, "#/queue", viewport=viewport, dark=dark)
        for model, text in (("parrot", "A good question"), (long, "A bad one, asked with a rather long title")):
            await ask(node, model, text)
            await expect(rows(page, "Last 50").get_by_role("link", name=text)).to_be_visible()
        for model in ("parrot", "parrot", long, "parrot"):
            await ask(node, model, "Explain how a refrigerator works")
        await expect(rows(page, "Waiting")).to_have_count(3)

        for box in ("document.documentElement", "document.querySelector('.page')"):
            assert await page.evaluate(f"{box}.scrollWidth - {box}.clientWidth") <= 0
        ends = "[...document.querySelectorAll('.page li *')].map((e) => e.getBoundingClientRect().right)"
        assert max(await page.evaluate(ends)) <= viewport["width"]
        OUT.mkdir(exist_ok=True)
        await page.screenshot(path=OUT / f"queue-{viewport['width']}-{'dark' if dark else 'light'}.png")
        end.set()
