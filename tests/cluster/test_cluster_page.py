"""The product's promise on the page: three computers, llama.cpp on two, one killed before its first word, then both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Locator, Page, async_playwright, expect

from router.library import STARTER_NAME
from tests.cluster.kit import pair
from tests.cluster.net import Computer, network
from tests.cluster.test_cluster_engine import LOAD_S, begin
from tests.ui.conftest import DESK, FLAGS, Watch, chromium

__all__ = ["chromium"]
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

OUT = Path(__file__).resolve().parent.parent / "out"
ANSWER_MS = 90_000
LONG = "Here is a list of words. " + "river stone cloud apple window " * 150 + "Say one of them."


@asynccontextmanager
async def page_of(computer: Computer, program: str, folder: Path) -> AsyncIterator[Page]:
    """The page of ``computer`` in a browser that runs there."""
    inside = folder / "browser"
    inside.write_text(f'#!/bin/sh\nexec ip netns exec {computer.namespace} {program} "$@"\n')
    inside.chmod(0o755)
    watch = Watch()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=inside, args=FLAGS)
        page = await browser.new_page(viewport=DESK)
        page.set_default_timeout(ANSWER_MS)
        watch.attend(page, "http://127.0.0.1:7411")
        await page.goto(f"http://127.0.0.1:7411/#token={(computer.data_dir / 'control.token').read_text()}")
        await page.wait_for_selector("nav", state="attached")
        yield page
        await browser.close()
    assert not watch.errors
    assert not watch.foreign


async def ask(page: Page, text: str) -> None:
    await page.get_by_role("link", name="Chat", exact=True).click()
    await page.get_by_label("Message", exact=True).fill(text)
    await page.keyboard.press("Enter")


async def who_works(holders: tuple[Computer, Computer]) -> tuple[Computer, Computer]:
    """The one of two that has a job running, and the other."""

    async def works(one: Computer) -> Computer:
        await one.until(lambda told: bool(told["node"]["running"]), LOAD_S)
        return one

    looking = [asyncio.ensure_future(works(one)) for one in holders]
    done, rest = await asyncio.wait(looking, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    busy = done.pop().result()
    return busy, next(one for one in holders if one is not busy)


async def receipt_of(page: Page, number: int) -> Locator:
    """Of the answer with that number, once it has come."""
    lines = page.get_by_title("Show the receipt")
    await expect(lines).to_have_count(number + 1, timeout=ANSWER_MS)
    await lines.nth(number).click()
    return page.get_by_role("dialog", name="Receipt")


async def test_the_page_shows_who_answered_while_one_computer_after_the_other_dies(
    tmp_path: Path, starter_model: Path, chromium: str
) -> None:
    async with network(tmp_path) as net:
        laptop, studio, attic = [await net.computer(name) for name in ("laptop", "studio", "attic")]
        await laptop.start(QUORUM_BUILTIN_ENGINE="1", QUORUM_STARTER_MODEL="", QUORUM_ENGINES="http://127.0.0.1:9/v1")
        for holder in (studio, attic):
            await begin(holder, starter_model)
            await pair(laptop, holder)
            await laptop.peer_is(holder, "healthy")
            await laptop.offers(STARTER_NAME, holder.name, LOAD_S)
        async with page_of(laptop, chromium, tmp_path) as page:
            await page.get_by_role("link", name="Peers").click()
            await expect(page.get_by_text("3 computers, 1 model, all reachable.")).to_be_visible()
            OUT.mkdir(exist_ok=True)
            await page.screenshot(path=OUT / "cluster-peers.png")

            await ask(page, LONG)
            dying, last = await who_works((studio, attic))
            await dying.kill()
            receipt = await receipt_of(page, 0)
            await expect(receipt.get_by_text(f"{last.name} answered with {STARTER_NAME}.")).to_be_visible()
            tried = receipt.get_by_role("list").first.get_by_role("listitem")
            await expect(tried).to_have_count(2)
            await expect(tried.first).to_contain_text(dying.name)
            await expect(tried.first).to_contain_text("Failed")
            await page.screenshot(path=OUT / "cluster-receipt.png")
            await page.keyboard.press("Escape")

            await last.kill()
            await laptop.peer_is(last, "unhealthy")
            body = {"path": str(starter_model)}
            async with laptop.http.post("/local/v1/models/add", json=body, headers=laptop.control) as reply:
                assert reply.status == 200, await reply.text()
            await laptop.until(lambda told: any(m["local"] and m["digest"] for m in told.get("models", ())), LOAD_S)
            await ask(page, "And who are you?")
            receipt = await receipt_of(page, 1)
            await page.screenshot(path=OUT / "cluster-receipt-here.png")
            await expect(receipt.get_by_text("laptop · Built-in answered with")).to_be_visible()
            await page.keyboard.press("Escape")
            await expect(page.get_by_role("button", name=f"Model: {STARTER_NAME}", exact=True)).to_be_visible()
            await page.get_by_role("link", name="Peers").click()
            await expect(page.get_by_text("3 computers, 1 model, 2 not reachable.")).to_be_visible()
            await expect(page.get_by_text("Not answering")).to_have_count(2)
            await page.screenshot(path=OUT / "cluster-peers-dead.png")
