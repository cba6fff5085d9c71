"""Keys on the Settings page: made and shown once, their use, revoked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import pytest
from playwright.async_api import Page, expect

from router.node import Node
from router.web.network import lan_addresses
from tests.fakes import ScriptedEngine, whole
from tests.ui.conftest import MakeNode, OpenPage, Watch

pytestmark = pytest.mark.browser

OUT = Path(__file__).resolve().parent.parent / "out"
SAID = b'"choices":[{"message":{"role":"assistant","content":"hi"}}]'
BODY = b'{%b,"usage":{"prompt_tokens":1234,"completion_tokens":56}}' % SAID
FITS = "panel => [...panel.querySelectorAll('*')].every(part => part.scrollWidth <= panel.clientWidth + 1)"


async def settings_page(open_page: OpenPage, node: Node, **more: Any) -> Page:
    page = await open_page(node, "#/settings", **more)
    await expect(page.get_by_role("heading", name="API keys")).to_be_visible()
    return page


async def make_key(page: Page, name: str) -> str:
    """As a person makes it; the key is copied off the dialog, which is closed."""
    await page.get_by_role("button", name="Make a key").click()
    await page.keyboard.type(name)
    await page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name=f"The key of {name}")
    await expect(dialog.get_by_text("shown this once")).to_be_visible()
    key = await dialog.locator("code").first.inner_text()
    await dialog.get_by_role("button", name="I have it").click()
    await expect(dialog).to_have_count(0)
    return key


async def used_by(node: Node, key: str) -> int:
    body = {"model": "parrot", "messages": [{"role": "user", "content": "hello"}]}
    async with (
        aiohttp.ClientSession(trust_env=False) as http,
        http.post(
            f"{node.address}/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {key}"}
        ) as reply,
    ):
        await reply.read()
        return reply.status


async def test_a_key_is_shown_once_and_what_it_was_used_for_is_shown_after(
    make_node: MakeNode, open_page: OpenPage, engine: ScriptedEngine
) -> None:
    engine.play(whole(BODY))
    node = await make_node(engine, require_key=True)
    page = await settings_page(open_page, node)
    await expect(page.get_by_text("There are no keys.")).to_be_visible()

    key = await make_key(page, "Anna's laptop")
    assert key.startswith("qk_")
    assert len(key) == 46
    assert key not in await page.content()
    row = page.get_by_role("listitem").filter(has_text="Anna's laptop")
    await expect(row.get_by_text("Never used")).to_be_visible()
    await expect(row.get_by_text(f"…{key[-4:]}")).to_be_visible()

    assert await used_by(node, key) == 200
    await page.reload()
    await expect(row.get_by_text("1 request", exact=True).first).to_be_visible()
    await expect(row.get_by_text("1,234 tokens in, 56 out").first).to_be_visible()
    await expect(row.get_by_text("Last used")).to_be_visible()


async def test_the_copy_button_copies_the_key(make_node: MakeNode, open_page: OpenPage, engine: ScriptedEngine) -> None:
    page = await settings_page(open_page, await make_node(engine))
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await page.get_by_role("button", name="Make a key").click()
    await page.keyboard.type("Ben")
    await page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="The key of Ben")
    await dialog.get_by_role("button", name="Copy the key").click()
    copied = await page.evaluate("navigator.clipboard.readText()")
    assert copied == await dialog.locator("code").first.inner_text()


async def test_a_key_is_revoked_only_after_a_question(
    make_node: MakeNode, open_page: OpenPage, engine: ScriptedEngine
) -> None:
    engine.play(whole(BODY))
    node = await make_node(engine)
    page = await settings_page(open_page, node)
    key = await make_key(page, "Old phone")
    for choice, status in (("Cancel", 200), ("Revoke", 401)):
        await page.get_by_role("button", name="Revoke the key of Old phone").click()
        dialog = page.get_by_role("dialog", name="Revoke the key of Old phone?")
        await dialog.get_by_role("button", name=choice).click()
        if choice == "Revoke":
            await expect(page.get_by_text("There are no keys.")).to_be_visible()
        assert await used_by(node, key) == status


async def test_a_name_that_is_taken_is_told_in_the_dialog(
    make_node: MakeNode, open_page: OpenPage, engine: ScriptedEngine, watch: Watch
) -> None:
    page = await settings_page(open_page, await make_node(engine))
    await make_key(page, "Anna")
    watch.refused = 1
    await page.get_by_role("button", name="Make a key").click()
    await page.keyboard.type("Anna")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog").get_by_text("There is a key named 'Anna'.")).to_be_visible()


async def test_a_hostile_name_is_text(make_node: MakeNode, open_page: OpenPage, engine: ScriptedEngine) -> None:
    name = "<img src=x onerror='window.hacked = 1'>"
    page = await settings_page(open_page, await make_node(engine))
    await make_key(page, name)
    await expect(page.get_by_text(name, exact=True)).to_be_visible()
    assert await page.evaluate("window.hacked") is None


async def test_switching_the_network_on_shows_where_others_reach_this_computer(
    make_node: MakeNode, open_page: OpenPage, engine: ScriptedEngine
) -> None:
    found = [address for address in lan_addresses() if ":" not in address]
    if not found:
        pytest.skip("this computer has no address in a network")
    node = await make_node(engine)
    page = await settings_page(open_page, node)
    switch = page.get_by_role("switch", name="Answer on the network")
    await switch.check()
    address = f"http://{found[0]}:{node.info().port}/v1"
    await expect(page.get_by_text(address, exact=True)).to_be_visible()
    await switch.uncheck()
    await expect(page.get_by_text(address, exact=True)).to_have_count(0)


@pytest.mark.parametrize("look", ["light", "dark", "narrow"])
async def test_the_panel_fits_and_reads_in_every_look(
    make_node: MakeNode, open_page: OpenPage, engine: ScriptedEngine, look: str
) -> None:
    engine.play(whole(BODY))
    node = await make_node(engine, listen_lan=True)
    size = {"width": 390, "height": 844} if look == "narrow" else {"width": 1280, "height": 900}
    page = await settings_page(open_page, node, viewport=size, dark=look == "dark")
    key = await make_key(page, "Anna's laptop")
    await make_key(page, "Open WebUI in the container with a rather long name, 64 letters")
    assert await used_by(node, key) == 200
    await page.reload()
    panel = page.get_by_role("region", name="API keys")
    await expect(panel.get_by_text("1,234 tokens in").first).to_be_visible()
    await panel.scroll_into_view_if_needed()
    OUT.mkdir(exist_ok=True)
    await page.screenshot(path=OUT / f"keys-{look}.png")
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert await panel.evaluate(FITS)
    await page.get_by_role("button", name="Make a key").click()
    await page.keyboard.type("Ben")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog", name="The key of Ben")).to_be_visible()
    await page.screenshot(path=OUT / f"key-made-{look}.png")
