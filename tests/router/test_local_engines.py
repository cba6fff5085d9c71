"""The engines of this computer and the model files a user adds."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest

from router.local_engines import STARTER, _starter
from router.node import Node
from router.settings import NodeOptions
from router.wire import NodeInfo
from tests.fakes import ScriptedEngine, happens
from tests.router.conftest import MakeNode
from tests.router.gguf_files import File


def test_the_starter_model_is_where_the_environment_says(
    tmp_path: Path, starter_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUORUM_STARTER_MODEL", str(starter_model))
    assert _starter() == starter_model
    monkeypatch.setenv("QUORUM_STARTER_MODEL", str(tmp_path / "gone.gguf"))
    assert _starter() is None
    monkeypatch.delenv("QUORUM_STARTER_MODEL")
    assert (found := _starter()) is None or found.name == STARTER


@pytest.mark.engine
async def test_an_added_file_is_offered_now_and_after_a_restart(
    make_node: MakeNode,
    http: aiohttp.ClientSession,
    tmp_path: Path,
    starter_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("QUORUM_STARTER_MODEL", str(tmp_path / "none.gguf"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "My Model.gguf").symlink_to(starter_model)
    (tmp_path / "mine" / "broken.gguf").write_bytes(b"GGUF" + b"\xff" * 64)
    node = await make_node(builtin_engine=True)
    url, headers = f"{node.address}/local/v1/models/add", {"Authorization": f"Bearer {node.control_token}"}
    async with http.post(url, json={"path": str(tmp_path / "mine")}, headers=headers) as reply:
        added = json.loads(await reply.text())
    assert "my-model" in added["names"], added
    assert any(path.endswith("broken.gguf") for path in added["refused"])
    async with http.post(url, json={"path": str(tmp_path / "nowhere")}, headers=headers) as reply:
        assert (await reply.json())["names"] == []
    await node.stop()
    again = await make_node(builtin_engine=True)
    async with http.get(f"{again.address}/v1/models") as reply:
        assert "my-model" in [model["id"] for model in (await reply.json())["data"]]


async def test_an_engine_that_comes_and_goes_is_followed(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession
) -> None:
    node = await make_node(engine)
    engine.models = ("m", "fresh")
    async with http.post(
        f"{node.address}/v1/chat/completions",
        json={"model": "fresh", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1},
    ) as reply:
        assert reply.status != 404


async def test_engines_and_folders_count_from_the_moment_they_are_set(
    tmp_path: Path, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("QUORUM_STARTER_MODEL", str(tmp_path / "none.gguf"))
    File().write(home / ".lmstudio" / "models" / "org" / "repo" / "theirs.gguf")
    File().write(tmp_path / "mine" / "mine.gguf")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "settings.json").write_text(
        json.dumps({"engines": "http://127.0.0.1:9", "find_models": False})
    )
    node = Node(NodeOptions(tmp_path / "data", {"port": 0}, discovery=False, log_level="warning"))
    await node.start()
    try:
        await node.ready()
        wanted, came = 0, asyncio.Event()

        def told(info: NodeInfo) -> None:
            if info.models == wanted:
                came.set()

        node.on_info = told
        steps: list[dict[str, object]] = [
            {"engines": engine.url},
            {"models_dir": str(tmp_path / "mine")},
            {"find_models": True},
        ]
        for number, changes in enumerate(steps, 1):
            wanted, came = number, asyncio.Event()
            node.settings.update(changes)
            await happens(came, 5)
        wanted, came = 1, asyncio.Event()
        node.settings.update({"engines": "http://127.0.0.1:9", "find_models": False})
        await happens(came, 5)
    finally:
        await node.stop()
