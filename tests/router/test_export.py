"""The archive has everything of the user and no secret, also while the node writes on."""

from __future__ import annotations

import asyncio
import io
import json
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path

import aiohttp
import pytest

from router.database import close_database, open_database
from router.errors import StartError
from router.export import export, without_keys
from router.node import Node
from router.settings import NodeOptions
from tests.fakes import ScriptedEngine
from tests.router.conftest import MakeNode


def exported(folder: Path) -> zipfile.ZipFile:
    out = io.BytesIO()
    export(folder, out)
    return zipfile.ZipFile(out)


async def call(http: aiohttp.ClientSession, node: Node, method: str, path: str, body: object = None) -> bytes:
    headers = {"Authorization": f"Bearer {node.control_token}"}
    async with http.request(method, f"{node.address}{path}", json=body, headers=headers) as reply:
        content = await reply.read()
        assert reply.status < 300, content
        return content


async def asked(http: aiohttp.ClientSession, node: Node) -> None:
    """One conversation, one API key, one job with a webhook, one setting that holds a key."""
    chat = json.loads(await call(http, node, "POST", "/local/v1/chats", {"title": "Rivers"}))
    message = {"content": "Name three rivers.", "model": "m"}
    told = json.loads(await call(http, node, "POST", f"/local/v1/chats/{chat['id']}/messages", message))
    await call(http, node, "GET", f"/local/v1/jobs/{told['answer']['job_id']}/events")
    job = {"model": "m", "messages": [{"role": "user", "content": "x"}], "webhook": "http://127.0.0.1:9/"}
    await call(http, node, "POST", "/jobs", job | {"webhook_secret": "canary-of-a-webhook"})
    file = aiohttp.FormData()
    file.add_field("purpose", "batch")
    file.add_field("file", b"a line", filename="lines.jsonl")
    async with http.post(f"{node.address}/v1/files", data=file) as reply:
        assert reply.status == 200, await reply.text()


async def test_a_running_node_is_exported_and_its_copy_starts_elsewhere(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    node = await make_node(engine)
    node.settings.update({"theme": "dark"})
    await asked(http, node)

    archive = await asyncio.to_thread(exported, tmp_path / "data")

    names = archive.namelist()
    assert {"README.txt", "settings.json", "quorum.db"} <= set(names)
    text = next(name for name in names if name.endswith(".md"))
    assert "rivers" in text
    assert "Name three rivers." in archive.read(text).decode()
    assert json.loads(archive.read(text.replace(".md", ".json")))["info"]["title"] == "Rivers"
    assert json.loads(archive.read("settings.json")) == {"theme": "dark"}
    assert b"a line" in [archive.read(name) for name in names if name.startswith("files/")]
    assert not list((tmp_path / "data").glob(".export-*"))

    other = tmp_path / "other"
    other.mkdir()
    (other / "quorum.db").write_bytes(archive.read("quorum.db"))
    again = Node(NodeOptions(other, {"port": 0, "builtin_engine": False, "engines": engine.url}, discovery=False))
    await again.start()
    try:
        chats = json.loads(await call(http, again, "GET", "/local/v1/chats"))
        assert [chat["title"] for chat in chats] == ["Rivers"]
        assert again.info().notice == ""
    finally:
        await again.stop()


async def test_no_secret_is_in_it(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    node = await make_node(engine)
    await asked(http, node)
    key = json.loads(await call(http, node, "POST", "/local/v1/keys", {"name": "Anna"}))["key"]
    async with http.post(f"{node.address}/local/v1/session", json={"token": node.control_token}) as reply:
        cookie = reply.cookies["quorum_session"].value
    (tmp_path / "data" / "peers.secrets").write_text('{"x": "canary-of-a-peer"}')

    archive = await asyncio.to_thread(exported, tmp_path / "data")

    private = [node.control_token, key, cookie, "canary-of-a-webhook", "canary-of-a-peer"]
    private += [(tmp_path / "data" / name).read_text().strip() for name in ("webhook.secret", "node.key")]
    for name in archive.namelist():
        content = archive.read(name)
        assert not [secret for secret in private if secret.encode() in content], name
    with closing(sqlite3.connect(":memory:")) as db:
        db.deserialize(archive.read("quorum.db"))
        assert db.execute("SELECT count(*) FROM sessions").fetchone() == (0,)
        assert db.execute("SELECT count(*) FROM jobs WHERE webhook IS NOT NULL").fetchone() == (0,)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_keys_before_addresses_are_left_out() -> None:
    assert without_keys("sk-1@https://a/v1, http://b:8000,k@c") == "https://a/v1, http://b:8000, c"
    assert without_keys("") == ""


def test_a_stopped_folder_can_be_exported(tmp_path: Path) -> None:
    close_database(open_database(tmp_path / "quorum.db")[0])
    (tmp_path / "settings.json").write_text('{"engines": "canary@http://a/v1", "unknown": 1}')

    archive = exported(tmp_path)
    assert json.loads(archive.read("settings.json")) == {"engines": "http://a/v1"}


def test_nothing_and_newer_versions_are_told(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="nothing of Quorum"):
        exported(tmp_path)
    with closing(sqlite3.connect(tmp_path / "quorum.db")) as db:
        db.execute("PRAGMA user_version = 9999")
        db.commit()
    with pytest.raises(StartError, match="newer version"):
        exported(tmp_path)
    (tmp_path / "quorum.db").write_bytes(b"no database" * 100)
    with pytest.raises(OSError, match="can't be copied"):
        exported(tmp_path)
    assert not list(tmp_path.glob(".export-*"))


def test_a_disk_that_fills_leaves_nothing_behind(tmp_path: Path) -> None:
    class Full(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    close_database(open_database(tmp_path / "quorum.db")[0])
    with pytest.raises(OSError, match="No space"):
        export(tmp_path, Full())  # type: ignore[arg-type] # as much of a file as it needs
    assert not list(tmp_path.glob(".export-*"))
