"""The page as a person meets it, in a real browser."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from playwright.async_api import Page, ViewportSize, expect

from tests.fakes import Drip, ScriptedEngine, Wait, chunk, event, happens, head, stream, whole
from tests.ui.conftest import MakeNode, OpenPage, Watch

pytestmark = pytest.mark.browser

OUT = Path(__file__).resolve().parent.parent / "out"

HOSTILE = """# Title <script>window.hacked = 1</script>

<img src=x onerror="window.hacked = 2"><svg onload="window.hacked = 3"></svg>
<iframe srcdoc="<script>parent.hacked = 4</script>"></iframe><style>body { display: none }</style>

[link](javascript:window.hacked=5) ![pixel](https://remote.invalid/pixel.png) [web](https://remote.invalid/)

$\\href{javascript:window.hacked=6}{x}$ and $x^2$

```html
<script>window.hacked = 7</script>
```
"""


async def ask(page: Page, text: str) -> None:
    box = page.get_by_role("textbox", name="Message")
    await expect(box).to_be_focused()
    await page.keyboard.type(text)
    await page.keyboard.press("Enter")


def text_of(path: Path) -> str:
    return Path(path).read_text("utf-8")


def thought(text: str) -> bytes:
    return event({"choices": [{"index": 0, "delta": {"reasoning_content": text}}]})


async def test_the_printed_address_opens_the_page_and_its_token_is_nowhere_afterwards(
    make_node: MakeNode, open_page: OpenPage, engine: ScriptedEngine
) -> None:
    node = await make_node(engine)
    page = await open_page(node)

    assert node.control_token not in page.url
    stored = await page.evaluate(
        "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, history.state])"
    )
    assert node.control_token not in stored
    await page.reload()
    await expect(page.get_by_role("navigation")).to_be_visible()


async def test_without_the_address_the_page_says_how_to_open_it(
    make_node: MakeNode, open_page: OpenPage, engine: ScriptedEngine, watch: Watch
) -> None:
    watch.refused = 1
    page = await open_page(await make_node(engine), signed_in=False)

    await expect(page.get_by_role("heading", name="Open Quorum with its own address")).to_be_visible()
    await expect(page.get_by_role("navigation")).to_have_count(0)


async def test_a_typed_question_gets_a_streamed_answer_with_its_receipt(
    make_node: MakeNode, open_page: OpenPage, engine: ScriptedEngine
) -> None:
    go_on = asyncio.Event()
    rest = stream("world: ", "**bold** and `code`.", usage={"prompt_tokens": 3, "completion_tokens": 9})
    engine.play(head(), thought("Let me see."), chunk("Hello "), Wait(go_on), rest)
    page = await open_page(await make_node(engine))

    await ask(page, "Greet the world")
    log = page.get_by_role("log")
    await expect(log.get_by_text("Hello")).to_be_visible()
    await expect(page.get_by_role("button", name="Stop")).to_be_visible()
    go_on.set()
    await expect(log.locator("strong", has_text="bold")).to_be_visible()
    await expect(log.get_by_text("Thought for")).to_be_visible()
    await expect(log.get_by_text("Let me see.")).to_have_count(0)
    await page.get_by_title("Show the receipt").click()
    receipt = page.get_by_role("dialog", name="Receipt")
    await expect(receipt.get_by_text("OpenAI-compatible answered with parrot.")).to_be_visible()
    await expect(receipt.get_by_role("listitem").get_by_text("Answered", exact=True)).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("link", name="Greet the world")).to_be_visible()


async def test_hostile_output_shows_as_text_and_loads_nothing(
    make_node: MakeNode, open_page: OpenPage, watch: Watch
) -> None:
    name = "evil<img-src=x>"
    async with ScriptedEngine("evil", name) as engine:
        engine.play(head(), stream(*(HOSTILE[at : at + 7] for at in range(0, len(HOSTILE), 7))))
        page = await open_page(await make_node(engine))
        await ask(page, "<img src=x onerror='window.hacked = 8'>")
        log = page.get_by_role("log")

        await expect(page.get_by_title("Show the receipt")).to_be_visible()
        await expect(log.locator(".katex").first).to_be_visible()
        assert await page.evaluate("window.hacked") is None
        assert await log.locator("script, iframe, style, img, [onerror], [onload], a[href^=javascript]").count() == 0
        await expect(log.get_by_text("<script>window.hacked = 1</script>")).to_be_visible()
        picture = log.get_by_role("link", name="Picture: pixel")
        assert await picture.get_attribute("rel") == "noopener noreferrer"
        assert await picture.get_attribute("target") == "_blank"
    assert not watch.foreign


async def test_escape_stops_an_answer_and_the_engine(
    make_node: MakeNode, open_page: OpenPage, engine: ScriptedEngine
) -> None:
    engine.play(head(), Drip(chunk("on and "), every_s=0.02))
    page = await open_page(await make_node(engine))
    await ask(page, "Never end")
    await expect(page.get_by_text("on and on and")).to_be_visible()

    await page.keyboard.press("Escape")

    await expect(page.get_by_text("Stopped")).to_be_visible()
    await happens((await engine.request()).gone)
    await expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()


async def test_another_answer_and_an_edited_question_are_versions_that_stay(
    make_node: MakeNode, open_page: OpenPage, engine: ScriptedEngine
) -> None:
    for words in ("first answer", "second answer", "third answer"):
        engine.play(head(), stream(words))
    page = await open_page(await make_node(engine))
    await ask(page, "Question")
    await expect(page.get_by_text("first answer")).to_be_visible()

    await page.get_by_role("button", name="Answer again").click()
    await expect(page.get_by_text("second answer")).to_be_visible()
    await page.get_by_role("button", name="Previous version").click()
    await expect(page.get_by_text("first answer")).to_be_visible()

    await page.get_by_role("button", name="Edit and resend").click()
    await page.get_by_role("textbox", name="Edit your message").fill("Better question")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("third answer")).to_be_visible()
    sent = json.loads((await engine.request(2)).body)["messages"]
    assert [message["content"] for message in sent] == ["Better question"]
    await page.get_by_role("button", name="Previous version").first.click()
    await expect(page.get_by_text("second answer")).to_be_visible()


async def test_an_answer_goes_on_while_the_page_is_away(
    make_node: MakeNode, open_page: OpenPage, engine: ScriptedEngine
) -> None:
    go_on = asyncio.Event()
    engine.play(head(), chunk("before "), Wait(go_on), stream("after"))
    page = await open_page(await make_node(engine))
    await ask(page, "Wait for me")
    await expect(page.get_by_text("before")).to_be_visible()

    await page.reload()
    await expect(page.get_by_text("before")).to_be_visible()
    go_on.set()

    await expect(page.get_by_text("before after")).to_be_visible()
    await expect(page.get_by_title("Show the receipt")).to_be_visible()
    assert len(engine.asked) == 1


async def test_a_cut_answer_keeps_its_text_and_offers_another_try(
    make_node: MakeNode, open_page: OpenPage, engine: ScriptedEngine
) -> None:
    read = asyncio.Event()
    engine.play(head(), chunk("Half of "), chunk("it"), Wait(read), "reset")
    engine.play(head(), stream("All of it"))
    page = await open_page(await make_node(engine))
    await ask(page, "Tell me")
    await expect(page.get_by_text("Half of it")).to_be_visible()
    read.set()

    card = page.get_by_role("alert")
    await expect(card.get_by_text("interrupted")).to_be_visible()
    await expect(page.get_by_text("Half of it")).to_be_visible()
    await card.get_by_role("button", name="Retry").click()

    await expect(page.get_by_text("All of it")).to_be_visible()


async def test_a_refused_question_stays_in_the_box(
    make_node: MakeNode, open_page: OpenPage, engine: ScriptedEngine, watch: Watch
) -> None:
    engine.play(whole(json.dumps({"error": {"message": "No."}}).encode(), 400))
    engine.play(head(), stream("Fine"))
    node = await make_node(engine)
    page = await open_page(node)
    await ask(page, "Please")
    await expect(page.get_by_role("alert")).to_be_visible()
    await page.get_by_role("alert").get_by_role("button", name="Retry").click()
    await expect(page.get_by_text("Fine")).to_be_visible()


async def test_a_node_that_goes_and_comes_back_is_noticed(
    make_node: MakeNode, open_page: OpenPage, engine: ScriptedEngine, watch: Watch
) -> None:
    node = await make_node(engine)
    page = await open_page(node)
    port = int(node.address.rsplit(":", 1)[1])
    watch.refused = 1000

    await node.stop()
    await expect(page.get_by_text("Connection lost, reconnecting")).to_be_visible()
    engine.play(head(), stream("Back again"))
    await make_node(engine, port=port)

    await expect(page.get_by_text("Connection lost, reconnecting")).to_have_count(0)
    await page.get_by_role("textbox", name="Message").focus()
    await ask(page, "Are you there?")
    await expect(page.get_by_text("Back again")).to_be_visible()


async def test_conversations_are_found_renamed_exported_and_deleted(
    make_node: MakeNode, open_page: OpenPage, engine: ScriptedEngine
) -> None:
    engine.play(head(), stream("The word is xylophone."))
    page = await open_page(await make_node(engine))
    await ask(page, "Say a word")
    await expect(page.get_by_title("Show the receipt")).to_be_visible()

    await page.keyboard.press("Control+k")
    await page.keyboard.type("nowhere to be found")
    await expect(page.get_by_text("Nothing found for")).to_be_visible()
    await page.get_by_role("searchbox").fill("XYLOPHONE")
    await expect(page.get_by_role("link", name="Say a word")).to_be_visible()
    await page.keyboard.press("Escape")

    await page.get_by_role("button", name="Actions for Say a word").click()
    await page.get_by_role("menuitem", name="Rename").click()
    await page.keyboard.type("Words")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("link", name="Words")).to_be_visible()

    await page.get_by_role("button", name="Actions for Words").click()
    async with page.expect_download() as downloading:
        await page.get_by_role("menuitem", name="Export as Markdown").click()
    assert "xylophone" in text_of(await (await downloading.value).path())

    await page.get_by_role("button", name="Actions for Words").click()
    await page.get_by_role("menuitem", name="Delete").click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await expect(page.get_by_text("No conversations yet.")).to_be_visible()
    await expect(page.get_by_role("heading", name="What shall we work on?")).to_be_visible()


async def test_settings_are_saved_at_once_and_a_wrong_one_is_explained_beside_it(
    make_node: MakeNode, open_page: OpenPage, engine: ScriptedEngine, watch: Watch
) -> None:
    node = await make_node(engine)
    page = await open_page(node, "#/settings")
    watch.refused = 1

    await page.get_by_label("Appearance", exact=True).select_option("dark")
    await expect(page.locator("html[data-theme=dark]")).to_have_count(1)
    await page.get_by_label("Threads", exact=True).fill("9999")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("must lie between 0 and 512")).to_be_visible()
    await page.get_by_label("Attempts", exact=True).fill("many")
    await page.keyboard.press("Tab")
    await expect(page.get_by_text("Enter a whole number.")).to_be_visible()
    await expect(page.get_by_label("Port", exact=True)).to_be_disabled()
    await page.get_by_role("button", name="Reset Appearance to its default").click()
    await expect(page.locator("html[data-theme=light]")).to_have_count(1)


async def test_pause_and_resume_from_the_sidebar(
    make_node: MakeNode, open_page: OpenPage, engine: ScriptedEngine
) -> None:
    page = await open_page(await make_node(engine))

    await page.get_by_role("button", name="Running. Change").click()
    await page.get_by_role("menuitem", name="Pause for 1 hour").click()
    await expect(page.get_by_text("Takes no new work until")).to_be_visible()
    await page.get_by_role("button", name="Paused. Change").click()
    await page.get_by_role("menuitem", name="Resume").click()
    await expect(page.get_by_role("button", name="Running. Change")).to_be_visible()


async def test_a_computer_without_models_offers_to_add_one(make_node: MakeNode, open_page: OpenPage) -> None:
    page = await open_page(await make_node())

    await expect(page.get_by_role("heading", name="There is no model yet")).to_be_visible()
    await page.get_by_role("button", name="Add a model").click()
    await expect(page.get_by_label("File or folder")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await expect(page.get_by_role("button", name="Add a model")).to_be_focused()


async def test_a_broken_model_file_is_refused_with_its_reason(
    make_node: MakeNode, open_page: OpenPage, tmp_path: Path
) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF no more")
    page = await open_page(await make_node(builtin_engine=True), "#/models")

    await page.get_by_role("button", name="Add a model").click()
    await page.get_by_label("File or folder").fill(str(tmp_path / "broken.gguf"))
    await page.keyboard.press("Enter")

    dialog = page.get_by_role("dialog")
    await expect(dialog.get_by_text("No model was added.")).to_be_visible()
    await expect(dialog.get_by_text("1 file was refused:")).to_be_visible()
    await expect(dialog.get_by_text("broken.gguf")).to_be_visible()


async def test_a_broken_file_in_the_folder_of_models_is_shown_with_its_reason_and_offered_nowhere(
    make_node: MakeNode, open_page: OpenPage, tmp_path: Path
) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "Broken.gguf").write_bytes(b"GGUF no more")
    page = await open_page(await make_node(builtin_engine=True, models_dir=str(tmp_path / "theirs")), "#/models")

    await expect(page.get_by_text("Its file Broken.gguf is not a GGUF file.")).to_be_visible()
    await expect(page.get_by_role("button", name="Load broken")).to_have_count(0)
    await expect(page.get_by_role("button", name="Chat with broken")).to_have_count(0)


@pytest.mark.parametrize(
    "viewport",
    [{"width": 390, "height": 844}, {"width": 800, "height": 600}, {"width": 3840, "height": 2160}],
    ids=lambda size: f"{size['width']}x{size['height']}",
)
async def test_nothing_is_wider_than_the_window(
    make_node: MakeNode, open_page: OpenPage, engine: ScriptedEngine, viewport: ViewportSize
) -> None:
    long = "a" * 300
    engine.play(head(), stream(f"{long}\n\n```\n{long}\n```\n\n|{long}|b|\n|---|---|\n|c|d|\n\n$$x = {long}$$\n"))
    page = await open_page(await make_node(engine), viewport=viewport, dark=True)
    await ask(page, long)
    await expect(page.get_by_title("Show the receipt")).to_be_visible()

    for path in (page.url, "#/models", "#/queue", "#/settings"):
        await page.evaluate("path => { location.href = path }", path)
        await expect(page.locator("main h1, main [role=log]").first).to_be_visible()
        wide = "document.documentElement.scrollWidth - innerWidth"
        assert await page.evaluate(wide) <= 0
        inner = "(e => e.scrollWidth - e.clientWidth)(document.querySelector('.page, .scroller'))"
        assert await page.evaluate(inner) <= 0


@pytest.mark.engine
async def test_the_starter_model_answers_in_the_page(
    make_node: MakeNode, open_page: OpenPage, starter_model: Path
) -> None:
    node = await make_node(builtin_engine=True, models_dir=str(starter_model.parent), name="Studio")
    page = await open_page(node)
    await page.get_by_role("button", name="Options").click()
    await page.get_by_label("Temperature").fill("0")
    await page.get_by_label("Longest answer").fill("200")
    await page.get_by_role("button", name="Save").click()
    await page.get_by_role("textbox", name="Message").focus()

    await ask(page, "Give me three tips for staying focused while studying.")
    await expect(page.get_by_title("Show the receipt")).to_be_visible(timeout=60_000)
    await expect(page.get_by_role("log").locator("li")).to_have_count(3)
    await ask(page, "Write a Python function that returns the average of a list of numbers.")

    await expect(page.get_by_title("Show the receipt")).to_have_count(2, timeout=60_000)
    await expect(page.locator(".code-head", has_text="python").first).to_be_visible()
    await expect(page.locator("pre", has_text="def calculate_average").first).to_be_visible()
    OUT.mkdir(exist_ok=True)
    await page.screenshot(path=OUT / "chat.png")
    await page.goto(f"{node.address}/#/models")
    await page.get_by_role("button", name="Unload").first.click()
    await expect(page.get_by_role("button", name="Unload")).to_have_count(0)
