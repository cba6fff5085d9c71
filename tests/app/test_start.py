"""Starting the desktop where it runs already, can't run, or can't say so in a terminal."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.app.conftest import StartDesk
from tests.app.rig import Desk, Screen, SessionBus
from tests.app.serving import serving

pytestmark = [pytest.mark.desktop, pytest.mark.timeout(120)]


async def test_a_second_start_shows_the_firsts_window_and_ends(
    desk: Desk, start_desk: StartDesk, screen: Screen, bus: SessionBus
) -> None:
    await desk.do("close")
    await desk.event("window hidden")

    second = await start_desk(screen=screen, bus=bus)

    await desk.event("window shown")
    assert await second.ended() == 0


async def test_a_second_start_at_login_leaves_the_firsts_window_alone(
    desk: Desk, start_desk: StartDesk, screen: Screen, bus: SessionBus
) -> None:
    await desk.do("close")
    await desk.event("window hidden")

    second = await start_desk(screen=screen, bus=bus, hidden=True)

    assert await second.ended() == 0
    assert await desk.do("visible") is False


async def test_a_folder_that_cannot_be_written_is_explained_in_a_dialog_too(
    start_desk: StartDesk, screen: Screen, bus: SessionBus
) -> None:
    start_desk.data_dir = Path("/proc/quorum")  # nobody can write there, not even root
    desk = await start_desk(screen=screen, bus=bus)

    question = await desk.event("question")
    assert question["text"].startswith("The data folder /proc/quorum can't be used: ")
    assert "--data-dir" in question["text"]
    assert "can't be used" in desk.errors
    assert "Traceback" not in desk.errors
    desk.send(signal.SIGTERM)
    assert await desk.ended() != 0


async def test_a_desktop_on_the_folder_of_a_headless_node_says_where_that_one_answers(
    start_desk: StartDesk, screen: Screen, bus: SessionBus
) -> None:
    with serving(start_desk.data_dir, QUORUM_BUILTIN_ENGINE="0") as node:
        desk = await start_desk(screen=screen, bus=bus)

        question = await desk.event("question")
        assert f"already runs without a window at {node.address}." in question["text"]
        assert str(node.process.pid) in question["text"]
        desk.send(signal.SIGTERM)
        await desk.ended()
