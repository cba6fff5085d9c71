"""The Settings page about updates and the data folder, in a real browser."""

from __future__ import annotations

import asyncio
import json
import zipfile
from pathlib import Path

import pytest
from playwright.async_api import Download, Page, ViewportSize, expect

from router.node import Node
from router.wire_care import UpdateInfo, UpdateState
from tests.fakes import ScriptedEngine, free_port
from tests.ui.conftest import MakeNode, OpenPage, Watch

pytestmark = pytest.mark.browser

OUT = Path(__file__).resolve().parent.parent / "out"
PHONE: ViewportSize = {"width": 390, "height": 844}
FITS = "panel => [...panel.querySelectorAll('*')].every(part => part.scrollWidth <= panel.clientWidth + 1)"
AVAILABLE = UpdateInfo(
    state=UpdateState.AVAILABLE, version="0.2.0", notes="Answers begin sooner.", checked_at=1_795_000_000.0
)


class Scripted:
    """Updates that are what a test says they are; ``asked`` is what the page wanted."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.asked: list[str] = []
        updates = node.updates
        updates.check = lambda: self.asked.append("check")  # type: ignore[method-assign] # the page's wish is noted
        updates.install = lambda: self.asked.append("install")  # type: ignore[method-assign] # the same

    def tell(self, info: UpdateInfo) -> None:
        self.node.updates.info = info
        self.node._view.changed("node")


async def settings_page(open_page: OpenPage, node: Node, **more: object) -> Page:
    page = await open_page(node, "#/settings", **more)
    await expect(page.get_by_role("heading", name="Your data")).to_be_visible()
    return page


async def saved(page: Page, button: str, folder: Path) -> Path:
    async with page.expect_download() as coming:
        await page.get_by_role("button", name=button, exact=True).click()
    download: Download = await coming.value
    target = folder / download.suggested_filename
    await download.save_as(target)
    return target


async def test_an_update_is_told_installed_after_a_question_and_followed(
    make_node: MakeNode, open_page: OpenPage, engine: ScriptedEngine
) -> None:
    node = await make_node(engine, update_feed="https://example.org/quorum/manifest.json")
    script = Scripted(node)
    page = await settings_page(open_page, node)
    await expect(page.get_by_role("button", name="Look now")).to_have_count(0)

    script.tell(AVAILABLE)
    await expect(page.get_by_text("Version 0.2.0 is there.")).to_be_visible()
    await expect(page.get_by_text("Answers begin sooner.")).to_be_visible()
    await page.get_by_role("button", name="Look now").click()
    await page.get_by_role("button", name="Install 0.2.0").click()
    dialog = page.get_by_role("dialog", name="Install version 0.2.0?")
    await expect(dialog.get_by_text("What runs finishes first.")).to_be_visible()
    assert script.asked == ["check"]
    await dialog.get_by_role("button", name="Install 0.2.0").click()
    await expect(dialog).to_have_count(0)
    async with asyncio.timeout(10):
        while "install" not in script.asked:
            await page.evaluate("1")

    script.tell(UpdateInfo(state=UpdateState.DOWNLOADING, version="0.2.0", download_pct=40))
    bar = page.get_by_role("progressbar", name="Downloading and verifying…")
    await expect(bar).to_have_attribute("value", "40")
    await expect(page.get_by_role("button", name="Install 0.2.0")).to_have_count(0)
    script.tell(UpdateInfo(state=UpdateState.FAILED, version="0.2.0", message="The disk is too full.", hint="Tidy up."))
    await expect(page.get_by_text("The disk is too full.")).to_be_visible()
    await expect(page.get_by_role("button", name="Install 0.2.0")).to_be_visible()


async def test_a_package_is_only_told_how_to_update(
    make_node: MakeNode, open_page: OpenPage, engine: ScriptedEngine
) -> None:
    node = await make_node(engine)
    page = await settings_page(open_page, node)
    Scripted(node).tell(
        UpdateInfo(state=UpdateState.AVAILABLE, version="0.2.0", refusal="Update it with your package manager.")
    )

    await expect(page.get_by_text("Update it with your package manager.")).to_be_visible()
    await expect(page.get_by_role("button", name="Install 0.2.0")).to_have_count(0)


async def test_export_and_diagnostics_are_saved_as_files(
    make_node: MakeNode, open_page: OpenPage, engine: ScriptedEngine, tmp_path: Path
) -> None:
    page = await settings_page(open_page, await make_node(engine))

    archive = await saved(page, "Export", tmp_path)
    report = await saved(page, "Diagnostics", tmp_path)

    assert archive.name.startswith("quorum-")
    with zipfile.ZipFile(archive) as whole:
        assert "quorum.db" in whole.namelist()
    assert json.loads(await asyncio.to_thread(report.read_text))["node"]["mode"] == "running"
    data = tmp_path / "data"
    assert not [path.name for path in data.iterdir() if path.name.startswith((".export-", ".archive-"))]


async def test_after_an_update_the_page_is_that_of_the_new_version(
    make_node: MakeNode, open_page: OpenPage, engine: ScriptedEngine, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    old = await make_node(engine, port=port)
    page = await settings_page(open_page, old)
    watch.refused = 1_000_000  # while no node runs the browser says so on its console
    async with page.expect_event("load", timeout=30_000):
        await old.stop()
        monkeypatch.setattr("router.own_look.__version__", "9.9.9")
        await make_node(engine, port=port)

    await expect(page.get_by_text("9.9.9")).to_be_visible()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("small", [False, True], ids=["desk", "phone"])
async def test_the_panels_fit_and_are_drawn(
    make_node: MakeNode, open_page: OpenPage, engine: ScriptedEngine, dark: bool, small: bool
) -> None:
    node = await make_node(engine)
    more = {"viewport": PHONE} if small else {}
    page = await settings_page(open_page, node, dark=dark, **more)
    Scripted(node).tell(AVAILABLE)
    await expect(page.get_by_text("Version 0.2.0 is there.")).to_be_visible()

    OUT.mkdir(exist_ok=True)
    look = f"{'phone' if small else 'desk'}-{'dark' if dark else 'light'}"
    for name, picture in (("Updates", "updates"), ("Your data", "data")):
        panel = page.get_by_role("region", name=name)
        assert await panel.evaluate(FITS)
        await panel.screenshot(path=OUT / f"care-{picture}-{look}.png")
