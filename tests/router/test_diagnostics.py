"""The report says how things are, and nothing of what was asked, who asked, or where."""

from __future__ import annotations

import asyncio
import getpass
import json
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import aiohttp

from router.database import close_database, open_database
from router.diagnostics import as_json, report
from tests.fakes import ScriptedEngine
from tests.router.conftest import MakeNode
from tests.router.test_export import asked, call

LOG = """2026-11-25 02:10:37 INFO router.node: listening at http://192.168.7.31:7411
2026-11-25 02:10:38 WARNING router.library: {home}/models/x.gguf can't be read by {user} on {host}
"""


async def test_it_holds_no_canary(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    node = await make_node(engine, name="Canary-Anna-PC", hosts="canary.host.example")
    await asked(http, node)
    key = json.loads(await call(http, node, "POST", "/local/v1/keys", {"name": "canary person"}))["key"]
    log = LOG.format(home=tmp_path / "home", user=getpass.getuser(), host=socket.gethostname())
    with (tmp_path / "data" / "quorum.log").open("a") as file:
        file.write(log)

    content = (await call(http, node, "GET", "/local/v1/diagnostics")).decode()

    secret = [node.control_token, key, "Name three rivers.", "canary-of-a-webhook", node.info().id, "192.168.7.31"]
    secret += [str(tmp_path), f"by {getpass.getuser()} ", socket.gethostname(), "Rivers"]
    assert not [word for word in secret if word in content]
    assert "canary" not in content.lower()
    told = json.loads(content)
    assert told["node"]["id"] == node.info().id[:8]
    assert "2026-11-25 02:10:37 INFO router.node: listening at http://[address]:7411" in told["log"]
    assert told["database"]["check"] == "ok"
    assert told["database"]["version"] >= 1
    assert told["versions"]["quorum"] == node.info().version
    assert told["hardware"]["ram_total_bytes"] > 0
    assert [job["state"] for job in told["node"]["ended"]]
    assert told["node"]["engines"][0]["kind"] == "openai"
    assert told["doctor"]["here"]


async def test_without_a_node_the_folder_tells_what_it_can(tmp_path: Path) -> None:
    close_database(open_database(tmp_path / "quorum.db")[0])
    settings = {"engines": "canary@http://canary/v1", "models_dir": "/home/canary", "port": 7500, "theme": "dark"}
    (tmp_path / "settings.json").write_text(json.dumps(settings))

    told = json.loads(as_json(await asyncio.to_thread(report, tmp_path)))

    assert told["settings"] == {"engines": "(set)", "models_dir": "(set)", "port": 7500, "theme": "dark"}
    assert (told["node"], told["log"]) == (None, [])
    assert told["database"]["rows"]["jobs"] == 0


def test_what_is_broken_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "quorum.db").write_bytes(b"no database" * 100)
    (tmp_path / "settings.json").write_bytes(b"\xff")
    told = report(tmp_path)
    assert told["database"] == {"problem": "DatabaseError"}
    assert told["settings"] == {}

    (tmp_path / "quorum.db").unlink()
    with closing(sqlite3.connect(tmp_path / "quorum.db")) as db:
        db.execute('CREATE TABLE "odd; name" (x)')
        db.commit()
    assert report(tmp_path)["database"]["rows"] == {}
