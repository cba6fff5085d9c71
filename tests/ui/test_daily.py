"""What people do with the page every day, in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.fakes import ScriptedEngine, head, stream
from tests.ui.conftest import MakeNode, OpenPage, Watch

pytestmark = pytest.mark.browser


async def ask(page: Page, text: str) -> None:
    box = page.get_by_role("textbox", name="Message")
    await box.fill(text)
    await box.press("Enter")


async def test_a_new_user_is_told_what_the_starter_model_is_and_how_to_get_a_better_one(
    make_node: MakeNode, open_page: OpenPage, starter_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUORUM_STARTER_MODEL", str(starter_model))
    page = await open_page(await make_node(builtin_engine=True))

    await expect(page.get_by_text("came with Quorum")).to_be_visible()
    await page.get_by_role("button", name="Get a better model").click()
    await expect(page.get_by_text("Where do I get one?")).to_be_visible()
    await expect(page.get_by_text("take a file of at most about")).to_be_visible()
    await page.keyboard.press("Escape")
    await page.get_by_role("link", name="Models").click()
    await expect(page.get_by_text("A very small model to start with")).to_be_visible()


async def test_models_of_a_program_that_loads_by_itself_offer_no_load_and_no_unload(
    make_node: MakeNode, open_page: OpenPage, engine: ScriptedEngine
) -> None:
    page = await open_page(await make_node(engine), "#/models")

    await expect(page.get_by_role("button", name="Chat with parrot")).to_be_visible()
    await expect(page.get_by_role("button", name="Unload")).to_have_count(0)
    await expect(page.get_by_role("button", name="Load")).to_have_count(0)


async def test_a_path_is_taken_as_file_managers_copy_it(
    make_node: MakeNode, open_page: OpenPage, engine: ScriptedEngine, tmp_path: Path
) -> None:
    (tmp_path / "my models").mkdir()
    page = await open_page(await make_node(engine), "#/models")
    for form in (f"'{tmp_path}/my models/none.gguf'", f"file://{tmp_path}/my%20models/none.gguf"):
        await page.get_by_role("button", name="Add a model").click()
        await page.get_by_label("File or folder").fill(form)
        await page.get_by_role("button", name="Add", exact=True).click()
        await expect(page.get_by_text(f"{tmp_path}/my models/none.gguf", exact=True)).to_be_visible()
        await page.get_by_role("button", name="Done").click()


async def test_a_question_asked_while_paused_offers_to_resume(
    make_node: MakeNode, open_page: OpenPage, engine: ScriptedEngine
) -> None:
    engine.play(head(), stream("Here I am."))
    node = await make_node(engine)
    node.pause()
    page = await open_page(node)
    await ask(page, "Are you there?")

    await expect(page.get_by_text("Waits until Quorum is resumed")).to_be_visible()
    await page.get_by_role("log").get_by_role("button", name="Resume").click()
    await expect(page.get_by_text("Here I am.")).to_be_visible()


async def test_a_pasted_file_shows_its_beginning_until_all_of_it_is_wanted(
    make_node: MakeNode, open_page: OpenPage, engine: ScriptedEngine
) -> None:
    engine.play(head(), stream("Long."))
    page = await open_page(await make_node(engine))
    await ask(page, "\n".join(f"line {number} of a long file" for number in range(500)))

    await expect(page.get_by_text("Long.")).to_be_visible()
    log = page.get_by_role("log")
    await expect(log.get_by_text("line 499 of")).to_have_count(0)
    await page.get_by_role("button", name="Show all").click()
    await expect(log.get_by_text("line 499 of")).to_be_visible()
    await page.get_by_role("button", name="Show less").click()
    await expect(log.get_by_text("line 499 of")).to_have_count(0)


async def test_an_engine_that_went_away_is_an_error_at_the_answer_and_retry_works_once_it_is_back(
    make_node: MakeNode, open_page: OpenPage, engine: ScriptedEngine
) -> None:
    node = await make_node(engine)
    page = await open_page(node)
    node._scheduler.stop_accepting()
    await ask(page, "Hello?")

    await expect(page.get_by_role("log").get_by_role("alert")).to_contain_text("no_holder_available")
    await expect(page.get_by_text("Your message was not sent.")).to_have_count(0)
    await expect(page.get_by_role("textbox", name="Message")).to_have_value("")
    node._scheduler.stopping = False
    engine.play(head(), stream("Back again."))
    await page.get_by_role("button", name="Retry").click()
    await expect(page.get_by_text("Back again.")).to_be_visible()


async def test_a_setting_that_cannot_be_right_is_refused_where_it_is_typed(
    make_node: MakeNode, open_page: OpenPage, engine: ScriptedEngine, watch: Watch
) -> None:
    page = await open_page(await make_node(engine), "#/settings")
    field = page.get_by_label("Also answer on")
    await expect(field).to_have_attribute("placeholder", "e.g. 127.0.0.1:11434")
    watch.refused = 1
    await field.fill("somewhere")
    await field.press("Enter")

    await expect(page.get_by_text("'somewhere' can't be used here")).to_be_visible()
    await field.press("Escape")
    await expect(field).to_have_value("")
    await page.get_by_label("Keep ended jobs for").fill("7200")
    await page.get_by_label("Keep ended jobs for").press("Enter")
    await expect(page.get_by_text("That is 2 h.")).to_be_visible()
