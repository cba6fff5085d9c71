"""A real node in this process, over real sockets, with engines that do as they are told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

from router.node import Node
from router.settings import NodeOptions, Value
from tests.fakes import ScriptedEngine

MakeNode = Callable[..., Awaitable[Node]]


@pytest.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    """An OpenAI-compatible engine with one model, ``m``."""
    async with ScriptedEngine("m") as scripted:
        yield scripted


@pytest.fixture
async def make_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MakeNode]:
    """Start nodes; all are stopped afterwards. ``await make_node(engine, setting=value)``."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    nodes: list[Node] = []

    async def make(*engines: ScriptedEngine, data: str = "data", **settings: Value) -> Node:
        overrides: dict[str, Value] = {"port": 0, "builtin_engine": False, "find_models": False}
        overrides["engines"] = ",".join(engine.url for engine in engines) or "http://127.0.0.1:9/v1"
        node = Node(NodeOptions(tmp_path / data, overrides | settings, discovery=False, log_level="warning"))
        await node.start()
        nodes.append(node)
        await node.ready()
        return node

    yield make
    for node in nodes:
        await node.stop()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client that follows no proxies."""
    async with aiohttp.ClientSession(trust_env=False) as session:
        yield session
