"""The receipt of an answer: who gave it and why, what was expected, who else could have, and what was tried."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from playwright.async_api import Locator, Page, expect

from router.node import Node
from router.wire_peers import JoinPairing, PairingAnswer
from tests.fakes import BOUND_S, ScriptedEngine, chunk, head, stream, whole
from tests.ui.conftest import MakeNode, OpenPage
from tests.ui.test_peers import FITS, Other
from tests.ui.test_peers import other as other

pytestmark = pytest.mark.browser

OUT = Path(__file__).resolve().parent.parent / "out"
BROKEN = whole(b'{"error": {"message": "The engine ran out of memory."}}', 500)
MEASURED = {"prompt_n": 40, "prompt_per_second": 400.0, "predicted_n": 60, "predicted_per_second": 30.0}


def answer(*words: str) -> bytes:
    """An answer of an engine that tells how fast it was."""
    said = stream(*words).partition(chunk(finish="stop"))[0]
    return said + chunk(finish="stop", timings=MEASURED) + b"data: [DONE]\n\n"


async def pair(here: Node, there: Node) -> None:
    """``there`` shows the digits, ``here`` types them."""
    opened = await there._peers.open_pairing()
    with there._bus.queue() as told:
        asking = JoinPairing(code=opened.code, address=opened.addresses[0], may_use=False)
        joining = asyncio.ensure_future(here._peers.join(asking))
        async with asyncio.timeout(BOUND_S):
            while there._peers.pairing().state != "asking":
                await told.get()
        there._peers.answer(PairingAnswer(accept=True))
        await joining


async def ask(page: Page, text: str) -> None:
    await page.get_by_label("Message", exact=True).fill(text)
    await page.keyboard.press("Enter")


async def receipt_of(page: Page, number: int) -> Locator:
    await page.get_by_title("Show the receipt").nth(number).click()
    return page.get_by_role("dialog", name="Receipt")


@pytest.fixture
async def engines() -> AsyncIterator[tuple[ScriptedEngine, ...]]:
    async with AsyncExitStack() as stack:
        yield tuple([await stack.enter_async_context(ScriptedEngine("parrot")) for _ in range(3)])


async def test_a_receipt_after_a_failover_tells_it_in_words_that_a_newcomer_understands(
    make_node: MakeNode, other: Other, open_page: OpenPage, engines: tuple[ScriptedEngine, ...]
) -> None:
    own, one, two = engines
    here = await make_node(own, name="laptop", peer_port=0)
    studio, attic, pantry = await other("studio", one), await other("attic", two), await other("pantry")
    for there in (studio, attic, pantry):
        await pair(here, there)
    page = await open_page(here)
    two.play(head() + answer("From ", "here."))
    one.play(head() + answer("From ", "here."))
    await ask(page, "Where are you?")
    await expect(page.get_by_text("From here.")).to_be_visible()
    first = await receipt_of(page, 0)
    await expect(first.get_by_text("had not been measured there before")).to_be_visible()
    await page.keyboard.press("Escape")

    for failing in (one, two):
        failing.scripts.clear()
        failing.play(BROKEN)
    own.play(head() + answer("At ", "home."))
    await ask(page, "And now?")
    await expect(page.get_by_text("At home.")).to_be_visible()
    receipt = await receipt_of(page, 1)
    await expect(receipt.get_by_text("laptop · OpenAI-compatible answered with parrot.")).to_be_visible()
    tried = receipt.get_by_role("list").first
    await expect(tried.get_by_role("listitem")).to_have_count(3)
    await expect(tried.get_by_text("Failed")).to_have_count(2)
    await expect(tried.get_by_text("ran out of memory").first).to_be_visible()
    able = receipt.get_by_role("list").last
    for name, word in (("laptop", "Answered"), ("studio", "Tried"), ("attic", "Tried"), ("pantry", "No copy")):
        await expect(able.get_by_role("listitem").filter(has_text=name).get_by_text(word, exact=True)).to_be_visible()
    await expect(receipt.get_by_text("this engine does not tell the fingerprint")).to_be_visible()
    await page.keyboard.press("Escape")

    own.play(head() + answer("Still ", "at home."))
    here.settings.update({"route": "local-first"})
    await ask(page, "Are you sure?")
    await expect(page.get_by_text("Still at home.")).to_be_visible()
    receipt = await receipt_of(page, 2)
    row = receipt.get_by_role("row", name="Altogether")
    await expect(receipt.get_by_role("columnheader", name="Expected")).to_be_visible()
    assert await row.get_by_role("cell").count() == 2
    await expect(receipt.get_by_text("expected", exact=False).nth(1)).to_be_visible()


async def test_a_computer_can_be_called_as_its_owner_likes_and_be_sent_nothing(
    make_node: MakeNode, other: Other, open_page: OpenPage, engines: tuple[ScriptedEngine, ...]
) -> None:
    own, one, _ = engines
    here, studio = await make_node(own, name="laptop", peer_port=0), await other("studio", one)
    await pair(here, studio)
    page = await open_page(here, "#/peers")
    row = page.get_by_role("listitem").filter(has=page.get_by_role("switch")).first
    await row.get_by_text("Details").click()
    await row.get_by_label("My name for it").fill("Big box")
    await page.keyboard.press("Enter")
    await expect(row.get_by_text("Big box", exact=True)).to_be_visible()
    await row.get_by_role("switch", name="Send questions to it").click()
    await expect(row.get_by_text("You send it no questions.")).to_be_visible()
    OUT.mkdir(exist_ok=True)
    await page.screenshot(path=OUT / "peers-own.png")

    await page.get_by_role("link", name="Chat", exact=True).click()
    own.play(head() + answer("At ", "home."))
    await ask(page, "Where are you?")
    await expect(page.get_by_text("At home.")).to_be_visible()
    receipt = await receipt_of(page, 0)
    line = receipt.get_by_role("listitem").filter(has_text="Big box")
    await expect(line.get_by_text("Paused", exact=True)).to_be_visible()
    await expect(line.get_by_text("You send it no work.")).to_be_visible()


@pytest.mark.parametrize(
    ("size", "dark"), [((1280, 900), False), ((1280, 900), True), ((390, 800), False), ((390, 800), True)]
)
async def test_a_receipt_fits_into_any_window(
    make_node: MakeNode,
    other: Other,
    open_page: OpenPage,
    engines: tuple[ScriptedEngine, ...],
    size: tuple[int, int],
    dark: bool,
) -> None:
    own, one, _ = engines
    here = await make_node(own, name="laptop", peer_port=0)
    here.settings.update({"route": "local-first"})
    studio, pantry = await other("studio with a long name that goes on and on", one), await other("pantry")
    for there in (studio, pantry):
        await pair(here, there)
    page = await open_page(here, viewport={"width": size[0], "height": size[1]}, dark=dark)
    own.play(head() + answer("Hello."))
    await ask(page, "Are you there?")
    await expect(page.get_by_text("Hello.")).to_be_visible()
    here.settings.update({"route": "peers-first"})
    one.play(BROKEN)
    own.play(head() + answer("Hello ", "again."))
    await ask(page, "Still there?")
    await expect(page.get_by_title("Show the receipt")).to_have_count(2)
    receipt = await receipt_of(page, 1)
    await expect(receipt.get_by_text("answered with parrot")).to_be_visible()
    assert await page.evaluate(FITS)
    box = await receipt.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= size[0]
    OUT.mkdir(exist_ok=True)
    name = f"receipt-{size[0]}-{'dark' if dark else 'light'}"
    await page.screenshot(path=OUT / f"{name}.png")
    await receipt.locator(".body").evaluate("body => body.scrollTo(0, body.scrollHeight)")
    await page.screenshot(path=OUT / f"{name}-end.png")
