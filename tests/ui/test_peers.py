"""The Peers page: pairing from both sides, what is told of each computer, grants, unpairing."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from playwright.async_api import Page, expect

from router.node import Node
from router.settings import NodeOptions, Value
from router.states import PeerState
from router.web.network import lan_addresses
from router.wire_peers import DoctorReport, Finding, Fix, Level, PairingAnswer, PeerInfo
from tests.fakes import BOUND_S, ScriptedEngine, head, stream
from tests.ui.conftest import MakeNode, OpenPage, Watch

pytestmark = pytest.mark.browser

OUT = Path(__file__).resolve().parent.parent / "out"
FITS = "document.documentElement.scrollWidth <= innerWidth"
GIB = 2**30

Other = Callable[..., Awaitable[Node]]


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[Other]:
    """Start another computer's node, beside the one of ``make_node``."""
    if not [address for address in lan_addresses() if ":" not in address]:
        pytest.skip("this computer has no address in a network")
    nodes: list[Node] = []

    async def make(name: str, *engines: ScriptedEngine) -> Node:
        given: dict[str, Value] = {"port": 0, "peer_port": 0, "builtin_engine": False, "find_models": False}
        given |= {"engines": ",".join(one.url for one in engines) or "http://127.0.0.1:9/v1", "name": name}
        node = Node(NodeOptions(tmp_path / name, given, discovery=False, log_level="warning"))
        await node.start()
        nodes.append(node)
        await node.ready()
        return node

    yield make
    for node in nodes:
        await node.stop()


async def peers_page(open_page: OpenPage, node: Node, **more: Any) -> Page:
    page = await open_page(node, "#/peers", **more)
    await expect(page.get_by_role("heading", name="Peers", exact=True)).to_be_visible()
    return page


async def digits(page: Page) -> tuple[str, str]:
    """Open pairing; the six digits and the address that the dialog shows."""
    await page.get_by_role("button", name="Pair a computer").click()
    command = page.get_by_role("dialog").locator("code")
    await expect(command).to_contain_text("quorum pair ")
    code, _, address = (await command.inner_text()).removeprefix("quorum pair ").partition("@")
    assert len(code) == 6
    return code, address


async def type_digits(page: Page, code: str, address: str) -> None:
    await page.get_by_role("button", name="Pair a computer").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_text("The other one").click()
    await dialog.get_by_label("Its address").fill(address)
    await dialog.get_by_label("Six digits that it shows").fill(code)
    await dialog.get_by_role("button", name="Pair", exact=True).click()


async def test_two_computers_are_paired_on_their_pages(
    make_node: MakeNode, other: Other, open_page: OpenPage, engine: ScriptedEngine
) -> None:
    here, there = await make_node(engine, name="laptop", peer_port=0), await other("studio")
    one, two = await peers_page(open_page, here), await peers_page(open_page, there)
    await expect(one.get_by_text("Only this computer so far.")).to_be_visible()
    code, address = await digits(two)
    await type_digits(one, code, address)

    asked = two.get_by_role("dialog")
    await expect(asked.get_by_text("laptop typed the right digits.")).to_be_visible()
    await expect(asked.get_by_label("Let laptop use this computer's models")).to_be_checked()
    await asked.get_by_role("button", name="Accept").click()

    for page, name in ((one, "studio"), (two, "laptop")):
        await expect(page.get_by_role("dialog").get_by_text(f"Paired with {name}.")).to_be_visible()
        await page.get_by_role("dialog").get_by_role("button", name="Done").click()
        row = page.get_by_role("listitem").filter(has_text=name).first
        await expect(row.get_by_role("switch", name="Use this computer's models")).to_be_checked()
    assert (here.settings["share"], there.settings["share"]) == (True, True)


async def test_an_answer_from_another_computer_says_so_in_the_chat(
    make_node: MakeNode, other: Other, open_page: OpenPage, engine: ScriptedEngine
) -> None:
    engine.play(head(), stream("Hello from there."))
    here, there = await make_node(name="laptop", peer_port=0), await other("studio", engine)
    page = await peers_page(open_page, here)
    opened = await there._peers.open_pairing()
    await type_digits(page, opened.code, opened.addresses[0])
    async with asyncio.timeout(BOUND_S):
        with there._bus.queue() as told:
            while there._peers.pairing().state != "asking":
                await told.get()
    there._peers.answer(PairingAnswer(accept=True))
    await page.get_by_role("dialog").get_by_role("button", name="Done").click()
    await expect(page.get_by_text("2 computers, 1 model, all reachable.")).to_be_visible()
    row = page.get_by_role("listitem").filter(has_text="studio").first
    await expect(row.get_by_text("Reachable")).to_be_visible()
    await expect(row.get_by_text("parrot")).to_be_visible()
    OUT.mkdir(exist_ok=True)
    await page.screenshot(path=OUT / "peers-paired.png")

    await page.get_by_role("link", name="Models").click()
    await expect(page.get_by_role("region", name="On studio").get_by_text("parrot").first).to_be_visible()
    await page.get_by_role("link", name="Chat", exact=True).click()
    await page.get_by_label("Message", exact=True).fill("Where are you?")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("Hello from there.")).to_be_visible()
    line = page.get_by_title("Show the receipt")
    await expect(line).to_contain_text("studio ·")
    await line.click()
    receipt = page.get_by_role("dialog", name="Receipt")
    await expect(receipt.get_by_text("studio answered with parrot.")).to_be_visible()
    await page.screenshot(path=OUT / "peers-receipt.png")


async def test_wrong_digits_are_told_where_they_were_typed(
    make_node: MakeNode, other: Other, open_page: OpenPage, engine: ScriptedEngine, watch: Watch
) -> None:
    here, there = await make_node(engine, name="laptop", peer_port=0), await other("studio")
    one, two = await peers_page(open_page, here), await peers_page(open_page, there)
    code, address = await digits(two)
    watch.refused = 1
    await type_digits(one, f"{(int(code) + 1) % 1_000_000:06}", address)
    await expect(one.get_by_role("dialog").get_by_text("The code is wrong.")).to_be_visible()


async def test_closing_the_dialog_takes_the_digits_back(
    make_node: MakeNode, other: Other, open_page: OpenPage, engine: ScriptedEngine
) -> None:
    page = await peers_page(open_page, await other("studio"))
    await digits(page)
    async with page.expect_response("**/pairing/close") as closed:
        await page.keyboard.press("Escape")
    assert (await (await closed.value).json())["state"] == "closed"


def a_peer(name: str, **more: Any) -> PeerInfo:
    given: dict[str, Any] = {
        "id": name.ljust(52, "a"),
        "name": name,
        "state": PeerState.HEALTHY,
        "paired": True,
        "may_use": True,
        "addresses": ["192.168.1.20"],
        "port": 7412,
        "version": "0.1.0",
        "width": 4,
        "in_flight": 1,
        "ram_total_bytes": 64 * GIB,
        "ram_free_bytes": 20 * GIB,
        "gpu": "GeForce RTX 4090",
        "vram_total_bytes": 24 * GIB,
        "vram_free_bytes": 6 * GIB,
        "models": ["llama-3.1-8b", "qwen3-30b-a3b"],
        "loaded": ["llama-3.1-8b"],
        "latency_s": 0.0021,
        "latencies_s": [0.0019, 0.0024, 0.0041, 0.002, 0.0018, 0.0022, 0.0021],
    }
    return PeerInfo(**(given | more))


def several() -> list[PeerInfo]:
    return [
        a_peer("studio"),
        a_peer("attic", state=PeerState.OFFLINE, reason="It said goodbye 3 minutes ago.", latency_s=None, width=0),
        a_peer("kitchen", state=PeerState.DISCOVERED, paired=False, models=[], loaded=[]),
        a_peer("<img src=x onerror='window.hacked = 1'>", state=PeerState.DISCOVERED, paired=False),
        a_peer("neighbour", state=PeerState.DISCOVERED, paired=False, ignored=True),
    ]


@pytest.mark.parametrize("look", ["light", "dark", "narrow"])
async def test_the_page_says_how_all_computers_are(
    make_node: MakeNode, open_page: OpenPage, engine: ScriptedEngine, look: str
) -> None:
    node = await make_node(engine)
    node._view.peers = several
    size = {"width": 390, "height": 844} if look == "narrow" else {"width": 1280, "height": 900}
    page = await peers_page(open_page, node, viewport=size, dark=look == "dark")

    await expect(page.get_by_text("3 computers, 1 model, attic is away.")).to_be_visible()
    studio = page.get_by_role("listitem").filter(has_text="GeForce").filter(has_text="studio")
    await expect(studio.get_by_text("1 of 4 running")).to_be_visible()
    await expect(studio.get_by_text("2.1 ms away")).to_be_visible()
    await expect(studio.get_by_role("meter", name="GPU memory: 6.4 GB free of 26 GB")).to_be_visible()
    await expect(page.get_by_text("It said goodbye 3 minutes ago.")).to_be_visible()
    await expect(page.get_by_role("button", name="Pair with kitchen")).to_be_visible()
    await expect(page.get_by_text("1 ignored")).to_be_visible()
    assert await page.evaluate("window.hacked") is None
    assert await page.evaluate(FITS)
    OUT.mkdir(exist_ok=True)
    await page.screenshot(path=OUT / f"peers-{look}.png")


async def test_a_computer_is_unpaired_only_after_a_question(
    make_node: MakeNode, open_page: OpenPage, engine: ScriptedEngine
) -> None:
    node = await make_node(engine)
    node._view.peers = several
    page = await peers_page(open_page, node)
    asked: list[str] = []

    async def answer(route: Any) -> None:
        asked.append(route.request.method)
        await route.fulfill(json=json.loads('{"name": "studio"}'))

    await page.route("**/local/v1/peers/*", answer)
    await page.get_by_role("button", name="More for studio").click()
    await page.get_by_role("menuitem", name="Unpair").click()
    await page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    assert asked == []
    await page.get_by_role("button", name="More for studio").click()
    await page.get_by_role("menuitem", name="Unpair").click()
    await page.get_by_role("dialog", name="Unpair studio?").get_by_role("button", name="Unpair").click()
    await expect(page.get_by_text("studio is no longer paired.")).to_be_visible()
    assert asked == ["DELETE"]


async def test_a_refused_grant_springs_back(
    make_node: MakeNode, open_page: OpenPage, engine: ScriptedEngine, watch: Watch
) -> None:
    node = await make_node(engine)
    node._view.peers = several
    page = await peers_page(open_page, node)
    switch = page.get_by_role("switch", name="Use this computer's models").first
    watch.refused = 1
    await switch.click()
    await expect(page.get_by_text("This computer is not paired.")).to_be_visible()
    await expect(switch).to_be_checked()


async def test_who_asks_is_answered_on_the_page_wherever_the_digits_were_shown(
    make_node: MakeNode, other: Other, open_page: OpenPage, engine: ScriptedEngine, watch: Watch
) -> None:
    here, there = await make_node(engine, name="laptop", peer_port=0), await other("studio")
    page = await peers_page(open_page, there)
    opened = await there._peers.open_pairing()
    joining = await peers_page(open_page, here)
    watch.refused = 1
    await type_digits(joining, opened.code, opened.addresses[0])
    await expect(page.get_by_role("dialog").get_by_text("laptop typed the right digits.")).to_be_visible()
    await page.get_by_role("dialog").get_by_role("button", name="Refuse").click()
    await expect(joining.get_by_role("dialog").get_by_text("declined")).to_be_visible()


# -- many states, and the doctor


def in_every_state() -> list[PeerInfo]:
    """Two of one name, and one of each thing that can be wrong."""
    now = time.time()
    return [
        a_peer("studio"),
        a_peer("studio", id="z" * 52, shared=False, models=[], loaded=[], gpu="", vram_total_bytes=0),
        a_peer(
            "attic",
            state=PeerState.UNHEALTHY,
            reason="attic can't be reached.",
            heard_at=now - 200,
            models=["gemma-3-27b-it-q4_k_m-with-a-very-long-name-that-goes-on"],
            loaded=[],
        ),
        a_peer("hall", state=PeerState.OFFLINE, reason="It is asleep.", heard_at=now - 7260, width=0, latency_s=None),
        a_peer("office", state=PeerState.DRAINING, reason="It is paused.", waiting=3),
        a_peer("guest", granted=False, models=[], loaded=[]),
    ]


def found(peer: PeerInfo, level: Level, code: str, sentence: str, hint: str = "", fix: Fix = Fix.NONE) -> Finding:
    return Finding(
        id=peer.id, name=peer.name, level=level, code=code, sentence=sentence, hint=hint, at="10.0.0.7:7412", fix=fix
    )


def a_report(peers: list[PeerInfo]) -> DoctorReport:
    studio, other, attic, hall, office, guest = peers
    return DoctorReport(
        at=time.time(),
        green=False,
        here=[
            Finding(
                level=Level.NOTE,
                code="sharing-off",
                sentence="Sharing is off: nothing is announced, and nobody can use this computer's models.",
                hint="Share its models if others should use them.",
                fix=Fix.SHARE,
            )
        ],
        peers=[
            found(studio, Level.GOOD, "good", "studio is fine: both ways work."),
            found(other, Level.NOTE, "not-shared", "studio does not share its models.", "Switch on sharing there."),
            found(
                attic,
                Level.BAD,
                "silent",
                "attic does not answer at 10.0.0.7:7412.",
                "It is off, asleep, in another network, or its firewall drops port 7412.",
                Fix.ADDRESS,
            ),
            found(hall, Level.NOTE, "away", "hall is asleep.", "It comes back by itself."),
            found(office, Level.NOTE, "paused", "office is paused by its owner and takes no new work."),
            found(
                guest,
                Level.BAD,
                "changed",
                "At 10.0.0.7:7412 another certificate is shown than that of guest.",
                "If Quorum was set up anew there, pair again and unpair the old guest.",
                Fix.PAIR,
            ),
        ],
    )


async def answer_with(page: Page, path: str, payload: object, asked: list[Any] | None = None) -> None:
    async def answer(route: Any) -> None:
        if asked is not None:
            asked.append(route.request.post_data_json)
        await route.fulfill(json=msgspec.to_builtins(payload))

    await page.route(f"**/local/v1/{path}", answer)


LOOKS = {
    "light": {"viewport": {"width": 1280, "height": 900}},
    "dark": {"viewport": {"width": 1280, "height": 900}, "dark": True},
    "narrow": {"viewport": {"width": 390, "height": 844}, "dark": True},
    "small": {"viewport": {"width": 800, "height": 600}},
    "wide": {"viewport": {"width": 1920, "height": 1080}},
}


@pytest.mark.parametrize("look", LOOKS)
async def test_every_state_has_its_reason_and_the_doctor_its_sentences(
    make_node: MakeNode, open_page: OpenPage, engine: ScriptedEngine, look: str
) -> None:
    node = await make_node(engine)
    peers = in_every_state()
    node._view.peers = lambda: peers
    page = await peers_page(open_page, node, **LOOKS[look])
    await answer_with(page, "doctor", a_report(peers))

    for text in ("attic can't be reached. Last heard of 3 min", "It is asleep. Last heard of 2 h", "It is paused."):
        await expect(page.get_by_text(text)).to_be_visible()
    await expect(page.get_by_text("It does not share its models.")).to_be_visible()
    await expect(page.get_by_text("It does not let this computer use its models.")).to_be_visible()
    await expect(page.get_by_text("z" * 8, exact=True)).to_be_visible()
    await expect(page.get_by_role("img", name="between 1.8 ms and 4.1 ms").first).to_be_visible()
    assert await page.evaluate(FITS)
    OUT.mkdir(exist_ok=True)
    await page.screenshot(path=OUT / f"peers-states-{look}.png")
    await page.get_by_role("button", name="Check connections").click()
    doctor = page.get_by_role("region", name="Connections")
    await expect(doctor.get_by_text("2 things are wrong.")).to_be_visible()
    await expect(doctor.get_by_text("studio is fine: both ways work.")).to_be_visible()
    assert await page.evaluate(FITS)
    await page.screenshot(path=OUT / f"peers-doctor-{look}.png")


async def test_what_the_doctor_found_is_mended_from_its_panel(
    make_node: MakeNode, open_page: OpenPage, engine: ScriptedEngine, watch: Watch
) -> None:
    node = await make_node(engine)
    peers = in_every_state()
    node._view.peers = lambda: peers
    page = await peers_page(open_page, node)
    looked: list[Any] = []
    await answer_with(page, "doctor", a_report(peers), looked)
    await page.get_by_role("button", name="Check the connection to attic").click()
    doctor = page.get_by_role("region", name="Connections")

    tried: list[Any] = []
    await doctor.get_by_label("Address of attic").fill("10.0.0.9")
    watch.refused = 1
    await doctor.get_by_role("button", name="Try there").click()
    await expect(doctor.get_by_text("This computer is not paired.")).to_be_visible()
    await answer_with(page, "peers/*/address", peers[2], tried)
    async with page.expect_response("**/local/v1/doctor"):
        await doctor.get_by_role("button", name="Try there").click()
    await expect(doctor.get_by_text("This computer is not paired.")).to_be_hidden()
    assert tried == [{"address": "10.0.0.9"}]
    assert looked == [{"id": peers[2].id}] * 2

    async with page.expect_response("**/local/v1/settings"):
        await doctor.get_by_role("button", name="Share them").click()
    assert node.settings["share"] is True

    await doctor.get_by_role("button", name="Pair again").click()
    dialog = page.get_by_role("dialog", name="Pair with guest")
    await expect(dialog.get_by_label("Its address")).to_have_value("10.0.0.7:7412")
    await page.keyboard.press("Escape")
    await doctor.get_by_role("button", name="Close").click()
    await expect(doctor).to_be_hidden()


async def test_the_doctor_of_two_real_computers_says_that_all_is_in_order(
    make_node: MakeNode, other: Other, open_page: OpenPage, engine: ScriptedEngine
) -> None:
    here, there = await make_node(engine, name="laptop", peer_port=0, share=True), await other("studio")
    page = await peers_page(open_page, here)
    OUT.mkdir(exist_ok=True)
    await page.get_by_role("button", name="Check connections").click()
    await expect(page.get_by_text("Looking for other computers is switched off.")).to_be_visible()
    await page.screenshot(path=OUT / "peers-none.png")
    opened = await there._peers.open_pairing()
    await type_digits(page, opened.code, opened.addresses[0])
    async with asyncio.timeout(BOUND_S):
        with there._bus.queue() as told:
            while there._peers.pairing().state != "asking":
                await told.get()
    there._peers.answer(PairingAnswer(accept=True))
    await page.get_by_role("dialog").get_by_role("button", name="Done").click()
    await expect(page.get_by_text("Reachable", exact=True)).to_be_visible()
    await expect(page.get_by_text(" away").first).to_be_visible()
    doctor = page.get_by_role("region", name="Connections")
    await doctor.get_by_role("button", name="Look again").click()
    await expect(doctor.get_by_text("studio is fine: both ways work.")).to_be_visible()
    await page.screenshot(path=OUT / "peers-one.png")


async def test_a_paired_computer_can_be_ignored(
    make_node: MakeNode, open_page: OpenPage, engine: ScriptedEngine
) -> None:
    node = await make_node(engine)
    node._view.peers = several
    page = await peers_page(open_page, node)
    asked: list[Any] = []
    await answer_with(page, "peers/*", a_peer("studio"), asked)
    await page.get_by_role("button", name="More for studio").click()
    await page.get_by_role("menuitem", name="Ignore").click()
    await expect(page.get_by_role("menu")).to_be_hidden()
    assert asked == [{"ignored": True}]
