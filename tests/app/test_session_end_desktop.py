"""The computer is switched off while the desktop runs: logind's word ends window, tray and node in order."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

from tests.app.conftest import StartDesk
from tests.app.rig import Screen, SessionBus
from tests.fakes import ScriptedEngine, Wait, chunk, head, stream
from tests.router.logind import Logind

pytestmark = pytest.mark.desktop

ASK = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "stream": True}


async def test_a_shutdown_of_the_computer_lets_the_running_answer_end_and_then_everything(
    start_desk: StartDesk, screen: Screen, bus: SessionBus
) -> None:
    logind = await Logind.on(bus.address)
    go = asyncio.Event()
    async with ScriptedEngine("m") as engine:
        engine.play(head(), chunk("half "), Wait(go), stream("whole"))
        desk = await start_desk(
            screen=screen,
            bus=bus,
            real=True,
            DBUS_SYSTEM_BUS_ADDRESS=bus.address,
            QUORUM_ENGINES=engine.url,
            QUORUM_PORT="0",
        )
        await desk.event("drawn")
        await logind.until(lambda: len(logind.held("delay")) == 1)
        (delay,) = logind.held("delay")
        address = json.loads((start_desk.data_dir / "node.json").read_text())["address"]
        async with (
            aiohttp.ClientSession(trust_env=False) as http,
            http.post(f"{address}/v1/chat/completions", json=ASK) as reply,
        ):
            await reply.content.readuntil(b"half ")
            logind.shut_down()
            refused = 0
            while refused != 503:  # the node stops: it takes nothing new
                async with http.post(f"{address}/v1/chat/completions", json=ASK) as other:
                    refused = other.status
            assert delay.held, "the system waits"
            go.set()
            assert (await reply.content.read()).endswith(b"data: [DONE]\n\n")
        assert await desk.ended() == 0
        await logind.until(lambda: not delay.held)
    await logind.close()
