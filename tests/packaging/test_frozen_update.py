"""The frozen program replaces itself: downloaded, verified, unpacked, tried, swapped, started again, by its own code.

The newer version is the same program behind a script that says a higher number: a second build would take minutes.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
import subprocess
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from app.client import Client, CommandError
from app.update import journal
from app.update.journal import Step
from tests.app.update import kit
from tests.packaging.program import QUIET, Frozen

pytestmark = [pytest.mark.package, pytest.mark.timeout(600)]

NEWER = "99.0.0"
SCRIPT = f"""#!/bin/sh
[ "$1" = --version ] && echo "quorum {NEWER}" && exit 0
{{broken}}exec "$(dirname "$(readlink -f "$0")")/quorum-real" "$@"
"""
BACK_S = 240.0


def link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def installed(frozen: Frozen, folder: Path, signer: kit.Signer) -> Path:
    """A copy of the frozen program that trusts ``signer``; its executable."""
    shutil.copytree(frozen.program.parent, folder, symlinks=True, copy_function=link)
    keys = next(folder.rglob("update-keys.json"))
    keys.unlink()
    keys.write_text(json.dumps({"keys": [{"id": signer.key.id, "public": signer.key.public}]}))
    return folder / "quorum"


def newer(program: Path, *, broken: bool) -> None:
    """Make an installed program one of a higher version."""
    program.rename(program.with_name("quorum-real"))
    program.write_text(SCRIPT.format(broken='[ "$1" = serve ] && exit 7\n' if broken else ""))
    program.chmod(0o755)


def packed(folder: Path, target: Path) -> bytes:
    with tarfile.open(target, "w:gz", compresslevel=1) as tar:
        tar.add(folder, arcname="quorum")
    return target.read_bytes()


def answering(data: Path, pid: int, state: str) -> dict[str, Any]:
    """The node once another process than ``pid`` is it and its updates are in ``state``."""
    deadline = time.monotonic() + BACK_S
    while time.monotonic() < deadline:
        try:
            client = Client.find(data)
            if json.loads((data / "node.json").read_text())["pid"] != pid:
                node = dict(client.call("GET", "/local/v1/status")["node"])
                if node["update"]["state"] == state:
                    return node
        except (CommandError, OSError, ValueError):
            pass
    raise AssertionError("nobody answers after the update")


@pytest.mark.parametrize("broken", [False, True], ids=["good", "broken"])
async def test_the_frozen_program_updates_itself_or_stays_as_it_was(
    frozen: Frozen, tmp_path: Path, broken: bool
) -> None:
    signer = kit.Signer()
    program = installed(frozen, tmp_path / "quorum", signer)
    newer(installed(frozen, tmp_path / "new" / "quorum", signer), broken=broken)
    content = packed(tmp_path / "new" / "quorum", tmp_path / "new.tar.gz")
    shutil.rmtree(tmp_path / "new")
    (tmp_path / "new.tar.gz").unlink()
    data, work = tmp_path / "data", tmp_path / ".quorum.update"
    async with kit.feed() as feed:
        told = kit.told(NEWER, content)
        next(iter(told["files"].values()))["unpacked_bytes"] = 2 * 2**30
        feed.files["manifest.json"] = kit.envelope(told, signer)
        feed.files[f"quorum-{NEWER}.tar.gz"] = content
        environ = QUIET | {"HOME": str(tmp_path / "home"), "QUORUM_UPDATE_FEED": feed.address}

        def act() -> dict[str, Any]:
            ports = ("--port", "0", "--peer-port", "0", "--no-discovery")
            old = subprocess.Popen([program, "serve", *ports, "--data-dir", data], env=environ, stdout=subprocess.PIPE)
            assert old.stdout is not None
            with old.stdout:
                assert b"answers at" in old.stdout.readline()
                assert b"Page:" in old.stdout.readline()
                chat = Client.find(data).call("POST", "/local/v1/chats", {"title": "kept"})
                Client.find(data).call("POST", "/local/v1/update/install", {})
                old.wait(BACK_S)
            node = answering(data, old.pid, "failed" if broken else "off")
            assert [c["id"] for c in Client.find(data).call("GET", "/local/v1/chats")] == [chat["id"]]
            ended = subprocess.run([program, "quit", "--data-dir", data], env=environ, capture_output=True, check=False)
            assert ended.returncode == 0, ended.stderr
            return node

        node = await asyncio.to_thread(act)

    if broken:
        assert f"Updating to version {NEWER} failed" in node["update"]["message"]
        assert not (program.parent / "quorum-real").exists()
    else:
        assert (program.parent / "quorum-real").exists()
        found = journal.read(work)
        assert found is not None
        assert found.step is Step.DONE
        assert (work / "previous" / "quorum").is_file()
    with sqlite3.connect(data / "quorum.db") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()
