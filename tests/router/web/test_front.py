"""The front door: health, readiness, the page, and further addresses."""

from __future__ import annotations

import aiohttp
import pytest

from router.errors import StartError
from router.web.front import _addresses
from tests.fakes import ScriptedEngine, free_port
from tests.router.conftest import MakeNode


async def test_ready_means_that_a_request_could_be_served(make_node: MakeNode, http: aiohttp.ClientSession) -> None:
    node = await make_node()
    async with http.get(f"{node.address}/healthz") as reply:
        assert reply.status == 200
    async with http.get(f"{node.address}/readyz") as reply:
        assert (reply.status, (await reply.json())["error"]["code"]) == (503, "no_holder_available")


async def test_the_page_is_served_with_a_strict_policy(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession
) -> None:
    node = await make_node(engine)
    async with http.get(node.address, headers={"Accept": "text/html"}) as reply:
        assert reply.content_type == "text/html"
        assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
    async with http.get(node.address) as reply:
        assert await reply.text() == "Quorum is running"


async def test_a_further_address_answers_too(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession
) -> None:
    port = free_port()
    await make_node(engine, also_listen=f"127.0.0.1:{port}")
    async with http.get(f"http://127.0.0.1:{port}/api/tags") as reply:
        assert reply.status == 200


def test_further_addresses_are_read_strictly() -> None:
    assert _addresses(" 127.0.0.1:11434, [::1]:11434 ,") == [("127.0.0.1", 11434), ("::1", 11434)]
    for wrong in ("nonsense", "host:", ":80", "host:99999999", "host:x"):
        with pytest.raises(StartError):
            _addresses(wrong)
