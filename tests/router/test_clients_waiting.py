"""The official clients wait, are told where they stand, and get their whole answer in the end."""

from __future__ import annotations

import asyncio
import re

import aiohttp
import anthropic
import ollama
import openai
import pytest

from router.node import Node
from tests.router.conftest import MakeNode
from tests.router.loading_engine import LoadingEngine

PLACE = re.compile(rb": queued place=(\d+) eta_s=\d+(\.\d+)? node=")


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


async def by_openai(node: Node) -> str:
    async with openai.AsyncOpenAI(base_url=f"{node.address}/v1", api_key="unused", max_retries=0) as client:
        stream = await client.chat.completions.create(model="m", messages=ask("by openai"), stream=True)  # type: ignore[call-overload]
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])


async def by_ollama(node: Node) -> str:
    client = ollama.AsyncClient(host=node.address, trust_env=False)
    try:
        stream = await client.chat(model="m", messages=ask("by ollama"), stream=True)
        return "".join([part.message.content or "" async for part in stream])
    finally:
        await client._client.aclose()


async def by_anthropic(node: Node) -> str:
    async with anthropic.AsyncAnthropic(base_url=node.address, api_key="unused", max_retries=0) as client:
        asked = ask("by anthropic")
        async with client.messages.stream(model="m", max_tokens=9, messages=asked) as stream:  # type: ignore[arg-type]
            return "".join([text async for text in stream.text_stream])


async def test_official_clients_that_wait_in_line_and_for_a_load_get_every_word_and_nothing_else(
    make_node: MakeNode, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.web.sink.HOLD_S", 0.01)
    monkeypatch.setattr("router.web.sink.NEWS_S", 0.02)
    async with LoadingEngine("m") as engine:
        engine.load_gate.clear()
        node = await make_node(engine)  # type: ignore[arg-type]
        url = f"{node.address}/v1/chat/completions"
        async with http.post(url, json={"model": "m", "messages": ask("first"), "stream": True}) as first:
            assert await first.content.readuntil(b": loading")
            clients = [asyncio.ensure_future(by(node)) for by in (by_openai, by_ollama, by_anthropic)]
            while node.info().waiting < len(clients):
                assert await first.content.readuntil(b": loading")
            async with http.post(url, json={"model": "m", "messages": ask("last"), "stream": True}) as last:
                told = [await last.content.readuntil(b"\n\n") for _ in range(5)]
                places = [match[1] for one in told if (match := PLACE.match(one))]
                assert places
                assert set(places) == {b"4"}, told
                engine.load_gate.set()
                said = await asyncio.gather(*clients)
                assert b"last" in await last.content.read()

    assert said == ["by openai", "by ollama", "by anthropic"]
    assert engine.loads == ["m"]
    assert (engine.chats[0], sorted(engine.chats[1:4]), engine.chats[4]) == ("first", sorted(said), "last")
