"""Paired computers in the tray's menu: what each line says, and that it follows the node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.service import PeerInfo, PeerState
from app.tray import PEERS_SHOWN, Action, TrayState, menu
from app.tray_peers import peer_lines
from tests.app.rig import Desk, Screen
from tests.app.statusnotifier import FakeTray


def peer(name: str, state: PeerState = PeerState.HEALTHY, **more: Any) -> PeerInfo:
    given: dict[str, Any] = {"id": name.ljust(52, "x"), "paired": True, "models": ["a", "b"]}
    return PeerInfo(name=name, state=state, **(given | more))


@pytest.mark.parametrize(
    ("shown", "line"),
    [
        (peer("studio"), "studio: ready, 2 models"),
        (peer("studio", models=["a"]), "studio: ready, 1 model"),
        (peer("studio", models=[]), "studio: ready, no models"),
        (peer("studio", PeerState.DRAINING, reason="It is paused."), "studio: paused"),
        (peer("studio", PeerState.DRAINING, reason="It is draining."), "studio: draining"),
        (peer("studio", PeerState.UNHEALTHY), "studio: not answering"),
        (peer("studio", PeerState.OFFLINE, reason="It was closed."), "studio: away"),
        (peer("studio", PeerState.OFFLINE, reason="It is asleep."), "studio: asleep"),
        (peer("a\n\nb" + "c" * 60), "a b" + "c" * 36 + "…: ready, 2 models"),
    ],
)
def test_a_line_says_who_and_how(shown: PeerInfo, line: str) -> None:
    assert peer_lines([shown]) == [line]


def test_only_paired_ones_are_listed_by_name_and_equal_names_with_their_ids() -> None:
    shown = [
        peer("studio", id="b" * 52),
        peer("seen", PeerState.DISCOVERED, paired=False),
        peer("ignored", ignored=True),
        peer("studio", id="a" * 52),
        peer("attic"),
    ]
    assert [line.partition(":")[0] for line in peer_lines(shown)] == ["attic", "studio (aaaaaaaa)", "studio (bbbbbbbb)"]


@pytest.mark.parametrize("count", [0, 1, PEERS_SHOWN, PEERS_SHOWN + 3])
def test_the_menu_has_room_for_some_and_counts_the_others(count: int) -> None:
    state = TrayState(peers=tuple(peer(f"p{number:02}") for number in range(count)))
    items = [item for item in menu(state) if item is not None and item.key.startswith("peer")]

    assert len(items) == PEERS_SHOWN + 1
    assert sum(item.visible for item in items[:-1]) == min(count, PEERS_SHOWN)
    assert (items[-1].visible, items[-1].label) == (count > PEERS_SHOWN, f"and {max(0, count - PEERS_SHOWN)} more")
    assert {item.action for item in items} == {Action.PEERS}
    assert [item and item.key for item in menu(state)] == [item and item.key for item in menu(TrayState())]


@pytest.mark.desktop
@pytest.mark.timeout(120)
async def test_the_menu_follows_what_the_node_knows(desk: Desk, tray: FakeTray, screen: Screen, out: Path) -> None:
    studio = {"id": "s" * 52, "name": "studio", "state": "healthy", "paired": True, "models": ["a", "b"]}
    attic = {"id": "t" * 52, "name": "attic", "state": "unhealthy", "paired": True}
    assert not [entry.label for entry in await tray.menu() if "studio" in entry.label]

    await desk.do("node", "meet", studio, attic)
    await tray.entry("studio: ready, 2 models")
    await tray.entry("attic: not answering")
    await desk.do("menu_on_screen")
    screen.picture(out / "tray-peers.png")
    screen.key("Escape")
    await desk.do("node", "meet", studio | {"state": "draining", "reason": "It is paused."})
    await tray.entry("studio: paused")
    assert not [entry.label for entry in await tray.menu() if "attic" in entry.label]


@pytest.mark.desktop
@pytest.mark.timeout(120)
async def test_a_click_on_a_computer_shows_the_page_of_them(desk: Desk, tray: FakeTray) -> None:
    await desk.do("node", "meet", {"id": "s" * 52, "name": "studio", "state": "healthy", "paired": True})
    await tray.entry("studio: ready, no models")
    await desk.do("close")
    await desk.event("window hidden")
    await tray.click("studio: ready, no models")
    await desk.event("window shown")
    await desk.do("js", "new Promise(done => done(1))")
    assert await desk.do("js", "location.hash") == "#/peers"
