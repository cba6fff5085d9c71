"""A network of computers, with and without three that are paired."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cluster.kit import pair
from tests.cluster.net import Computer, Net, network
from tests.fakes import head, stream


@pytest.fixture
async def net(tmp_path: Path) -> AsyncIterator[Net]:
    async with network(tmp_path) as made:
        yield made


@pytest.fixture
async def three(net: Net) -> tuple[Computer, Computer, Computer]:
    """A laptop without the model, and two holders of it; the laptop is paired with both."""
    laptop = await net.computer("laptop", "other")
    studio, attic = await net.computer("studio", "llama"), await net.computer("attic", "llama")
    await asyncio.gather(laptop.start(), studio.start(), attic.start())
    for holder in (studio, attic):
        holder.engine.play(head(), stream(holder.name))
        await pair(laptop, holder)
    for holder in (studio, attic):
        await laptop.peer_is(holder, "healthy")
        await laptop.offers("llama", holder.name)
    return laptop, studio, attic
