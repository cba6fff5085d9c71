"""What every adapter offers, and the plain way of reading a reply."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from router.aio import Tasks
from router.engines.base import Engine, Kind, Reply
from router.engines.llama import LlamaEngine
from router.engines.ollama import OllamaEngine
from router.engines.openai import OpenAIEngine


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@pytest.mark.parametrize("adapter", [LlamaEngine, OllamaEngine, OpenAIEngine])
def test_every_adapter_offers_the_whole_protocol(adapter: type) -> None:
    offered = {name for name in vars(Engine) if not name.startswith("_")} - {"id", "url", "label", "kind", "width"}
    assert offered
    assert all(callable(getattr(adapter, name)) for name in offered)


def test_a_kind_is_its_path() -> None:
    assert [kind.value for kind in Kind] == ["chat/completions", "completions", "embeddings"]


async def test_pieces_are_given_until_one_is_the_last() -> None:
    got: list[bytes] = []

    def took(piece: bytes) -> bool:
        got.append(piece)
        return piece == b"2"

    await Reply(200, "text/event-stream", pieces(b"1", b"2", b"3")).each(took)
    assert got == [b"1", b"2"]


async def test_a_paused_reply_waits_until_it_is_resumed(tasks: Tasks) -> None:
    reply = Reply(200, "text/event-stream", pieces(b"1", b"2"))
    got: list[bytes] = []

    def took(piece: bytes) -> bool:
        got.append(piece)
        reply.pause()
        return False

    reading = tasks.spawn("read", reply.each(took))
    for expected in ([b"1"], [b"1", b"2"]):
        for _ in range(5):
            await asyncio.sleep(0)
        assert got == expected
        reply.resume()
    await asyncio.wait_for(reading, 1)
