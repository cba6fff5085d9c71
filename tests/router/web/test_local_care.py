"""The routes of care as the page uses them."""

from __future__ import annotations

import aiohttp

from tests.fakes import ScriptedEngine
from tests.router.conftest import MakeNode


async def test_a_node_that_can_not_update_itself_says_so(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession
) -> None:
    node = await make_node(engine)
    headers = {"Authorization": f"Bearer {node.control_token}"}
    for action in ("check", "install"):
        async with http.post(f"{node.address}/local/v1/update/{action}", json={}, headers=headers) as reply:
            assert reply.status == 409
            assert "does not update itself" in (await reply.json())["error"]["message"]
    async with http.get(f"{node.address}/local/v1/status", headers=headers) as reply:
        assert (await reply.json())["node"]["update"]["state"] == "off"


async def test_nobody_updates_without_the_token(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession
) -> None:
    node = await make_node(engine)
    async with http.post(f"{node.address}/local/v1/update/install", json={}) as reply:
        assert reply.status in (401, 403)
