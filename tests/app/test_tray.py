"""What the tray says and offers, as a pure description."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from app.service import NodeInfo, NodeMode
from app.tray import APP_ICON, ASSETS, PIXELS, Action, Item, Look, TrayState, make_tray, menu
from router.wire_care import UpdateInfo, UpdateState


def state(mode: NodeMode = NodeMode.RUNNING, *, login: bool = False, **values: object) -> TrayState:
    info = NodeInfo(id="n", name="n", version="0", mode=mode, address="", port=1, started_at=0.0, **values)  # type: ignore[arg-type]
    return TrayState(info, login)


def items(shown: TrayState) -> dict[str, Item]:
    return {item.key: item for item in menu(shown) if item is not None}


@pytest.mark.parametrize(
    ("shown", "line"),
    [
        (TrayState(), "Starting…"),
        (state(models=2, running=1), "Running · 2 models · 1 job"),
        (state(models=1), "Running · 1 model"),
        (state(running=2, waiting=3), "Running · 0 models · 2 jobs · 3 waiting"),
        (state(NodeMode.PAUSED, models=2), "Paused · 2 models"),
        (state(NodeMode.DRAINING, models=2, running=1), "Draining · 2 models · 1 job"),
        (state(NodeMode.DRAINED, models=2), "Drained: safe to shut down"),
    ],
)
def test_the_first_line_says_what_the_node_does(shown: TrayState, line: str) -> None:
    assert shown.status == line
    assert items(shown)["status"].enabled is False


def test_a_pause_with_an_end_says_when() -> None:
    until = time.mktime((2026, 11, 24, 14, 30, 0, 0, 0, -1))

    assert state(NodeMode.PAUSED, paused_until=until).status.startswith("Paused until 14:30 ·")


@pytest.mark.parametrize(
    ("mode", "key", "label", "action"),
    [
        (NodeMode.RUNNING, "pause", "Pause", Action.PAUSE),
        (NodeMode.PAUSED, "pause", "Resume", Action.RESUME),
        (NodeMode.DRAINING, "pause", "Resume", Action.RESUME),
        (NodeMode.RUNNING, "drain", "Drain", Action.DRAIN),
        (NodeMode.PAUSED, "drain", "Drain", Action.DRAIN),
        (NodeMode.DRAINING, "drain", "Draining…", Action.RESUME),
        (NodeMode.DRAINED, "drain", "Drained: safe to shut down", Action.RESUME),
    ],
)
def test_pause_and_drain_offer_what_can_be_done(mode: NodeMode, key: str, label: str, action: Action) -> None:
    item = items(state(mode))[key]

    assert (item.label, item.action) == (label, action)
    assert items(state(mode))["drain"].checked is (mode in {NodeMode.DRAINING, NodeMode.DRAINED})
    assert items(state(mode))["pause-hour"].enabled is (mode is NodeMode.RUNNING)


def test_the_menu_keeps_its_lines_so_that_it_can_be_updated_in_place() -> None:
    lines = [[item and item.key for item in menu(state(mode))] for mode in NodeMode]

    assert all(line == lines[0] for line in [*lines, [item and item.key for item in menu(TrayState())]])
    assert [item.key for item in menu(state()) if item and item.default] == ["open"]


def test_while_the_node_starts_only_quit_works() -> None:
    usable = {key for key, item in items(TrayState()).items() if item.enabled}

    assert usable == {"quit"}


def test_a_notice_is_shown_shortened_and_changes_the_icon() -> None:
    shown = state(notice="The disk\nis full. " + "x" * 200)

    assert shown.look is Look.PROBLEM
    assert items(shown)["notice"].visible
    assert items(shown)["notice"].label.startswith("The disk is full. x")
    assert len(items(shown)["notice"].label) == 80
    assert not items(state())["notice"].visible


def test_start_at_login_shows_its_setting() -> None:
    assert items(state(login=True))["login"].checked is True
    assert items(state())["login"].checked is False


@pytest.mark.parametrize("look", Look)
@pytest.mark.parametrize("dark", [True, False])
def test_every_state_has_its_pictures(look: Look, dark: bool) -> None:
    seen = set()
    for pixels in PIXELS:
        with Image.open(look.picture(dark, pixels)) as picture:
            assert picture.size == (pixels, pixels)
            assert picture.mode == "RGBA"
            seen.add(picture.tobytes())
    assert len(seen) == len(PIXELS)


@pytest.mark.parametrize("look", Look)
def test_the_menu_bar_of_a_mac_gets_a_picture_of_shape_alone(look: Look) -> None:
    for pixels in PIXELS:
        with Image.open(look.template(pixels)) as picture:
            assert picture.size == (pixels, pixels)
            red, green, blue, opaque = picture.split()
        assert [band.getextrema() for band in (red, green, blue)] == [(0, 0)] * 3
        assert opaque.getextrema() == (0, 255)
    shapes = {Image.open(other.template(44)).tobytes() for other in Look}
    assert len(shapes) == len(Look)


def test_the_programs_icon_is_there_in_every_size_each_drawn_for_itself() -> None:
    with Image.open(APP_ICON) as picture:
        assert picture.size == (256, 256)
    sizes = (16, 24, 32, 48, 64, 128, 256)
    with Image.open(ASSETS / "icon.ico") as windows:
        assert sorted(windows.info["sizes"]) == [(pixels, pixels) for pixels in sizes]
        for pixels in sizes:
            with Image.open(ASSETS / f"icon-{pixels}.png") as drawn:
                assert windows.ico.getimage((pixels, pixels)).convert("RGBA").tobytes() == drawn.tobytes()
    with Image.open(ASSETS / "icon.icns") as mac:
        assert {(points * scale, scale) for points, _, scale in mac.info["sizes"]} >= {
            (32, 2), (64, 2), (128, 1), (256, 1), (256, 2), (512, 1), (512, 2), (1024, 2),
        }  # fmt: skip


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_the_tray_of_windows_and_macos_asks_the_platform_for_the_panel(
    system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    monkeypatch.setattr("sys.platform", system)
    monkeypatch.setitem(sys.modules, "app.tray_pystray", SimpleNamespace(PystrayTray=lambda *parts: made.append(parts)))
    window: Any = SimpleNamespace(platform=SimpleNamespace(dark_panel=True))

    make_tray(window, lambda action: None)

    assert made[0][1]() is True


def test_a_newer_version_is_a_line_that_leads_to_it() -> None:
    there = UpdateInfo(state=UpdateState.AVAILABLE, version="0.2.0")

    item = items(state(update=there))["update"]
    assert (item.label, item.action, item.visible) == ("Version 0.2.0 is there", Action.UPDATE, True)
    for shown in (TrayState(), state(), state(update=UpdateInfo(state=UpdateState.CURRENT))):
        assert not items(shown)["update"].visible
