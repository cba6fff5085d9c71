"""The product's promise with real engines: llama.cpp and the starter model on three paired computers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from router.library import STARTER_NAME
from tests.cluster.kit import Asking, pair
from tests.cluster.net import Computer, network
from tests.fakes import happens

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

BODY = {
    "model": STARTER_NAME,
    "messages": [{"role": "user", "content": "Count from one to fifty."}],
    "stream": True,
    "temperature": 0,
    "max_tokens": 48,
}
LOAD_S = 60.0


async def begin(computer: Computer, starter_model: Path) -> None:
    await computer.start(
        QUORUM_BUILTIN_ENGINE="1", QUORUM_STARTER_MODEL=str(starter_model), QUORUM_ENGINES="http://127.0.0.1:9/v1"
    )
    await computer.offers(STARTER_NAME, computer.name, LOAD_S)


async def test_the_starter_model_is_asked_on_another_computer_and_here_when_all_are_gone(
    tmp_path: Path, starter_model: Path
) -> None:
    async with network(tmp_path) as net:
        laptop, studio, attic = [await net.computer(name) for name in ("laptop", "studio", "attic")]
        await asyncio.gather(*(begin(one, starter_model) for one in (laptop, studio, attic)))
        for holder in (studio, attic):
            await pair(laptop, holder)
            await laptop.peer_is(holder, "healthy")
            await laptop.offers(STARTER_NAME, holder.name, LOAD_S)
        ids = {peer["id"]: peer for peer in await laptop.look("peers")}
        own = (await laptop.look("status"))["node"]["id"]

        first = await Asking(laptop, BODY)()
        receipt = await first.receipt()
        assert first.status == 200, first.got
        assert first.got.endswith(b"data: [DONE]\n\n")
        assert receipt["node"] == first.headers["X-Quorum-Node"]
        assert receipt["node"] in ids
        assert len(receipt["digest"]) == 64
        assert receipt["completion_tokens"] == 48

        holders = {one.name: one for one in (studio, attic)}
        await holders.pop(ids[receipt["node"]]["name"]).kill()
        second = await Asking(laptop, BODY)()
        (last,) = holders.values()
        assert ids[(await second.receipt())["node"]]["name"] == last.name
        assert second.text == first.text

        asking = Asking(laptop, BODY | {"max_tokens": 400})
        running = asyncio.ensure_future(asking())
        await happens(asking.begun, LOAD_S)
        await last.kill()
        cut = await running
        assert b'"interrupted"' in cut.got
        assert b"[DONE]" not in cut.got

        third = await Asking(laptop, BODY)()
        assert third.status == 200, third.got
        assert (await third.receipt())["node"] == third.headers["X-Quorum-Node"] == own
        assert third.text == first.text
