"""An update with everything real but the program's packaging: node, feed, signature, processes, command."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from app.client import Client
from tests.app.serving import QUIET, environment
from tests.app.update import kit
from tests.app.update.kit import Feed, Signer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the installed program here is a script")

# The program of one version: the real command line, with what PyInstaller would set set by hand.
REAL = """#!{python}
import sys
from pathlib import Path
sys.path.insert(0, {repo!r})
here, words, version, manner = Path(__file__).resolve(), sys.argv[1:], {version!r}, {manner!r}
if words[:1] == ["selftest"]:
    sys.exit(0)
if manner == "breaks" and "serve" in words:
    sys.exit(7)
import router
router.__version__ = version
from app.update import manifest, start, updater
manifest.known_keys = lambda assets: [manifest.Key({key!r}, {public!r})]
place = updater.Installation(here.parent, here)
program, made = updater.Program, updater.Updater
updater.Updater = lambda: made(program(installation=place, version=version))
if words[:1] != ["--finish-update"]:
    start.begin(words, here)
from app.__main__ import main
sys.exit(main())
"""


class Site:
    """An installed 0.1.0 that serves, and a feed."""

    def __init__(self, folder: Path, feed: Feed) -> None:
        self.folder, self.feed, self.signer = folder, feed, Signer()
        self.root, self.data = folder / "quorum", folder / "data"
        self.processes: list[subprocess.Popen[str]] = []
        self.root.mkdir()
        self.program = self.root / "quorum"
        self.program.write_bytes(self.content("0.1.0"))
        self.program.chmod(0o755)
        self.environ = environment(**QUIET, QUORUM_BUILTIN_ENGINE="0", QUORUM_UPDATE_FEED=feed.address)

    def content(self, version: str, manner: str = "") -> bytes:
        key = self.signer.key
        return REAL.format(
            python=sys.executable,
            repo=str(kit.ROOT),
            version=version,
            manner=manner,
            key=key.id,
            public=key.public,
        ).encode()

    def release(self, version: str, manner: str = "") -> None:
        archive = kit.archive({"quorum/quorum": self.content(version, manner)})
        self.feed.files["manifest.json"] = kit.envelope(kit.told(version, archive, notes="Better."), self.signer)
        self.feed.files[f"quorum-{version}.tar.gz"] = archive

    def serve(self, **environ: str) -> subprocess.Popen[str]:
        words = ["serve", "--port", "0", "--peer-port", "0", "--no-discovery", "--data-dir", str(self.data)]
        process = subprocess.Popen(
            [str(self.program), *words], env=self.environ | environ, stdout=subprocess.PIPE, text=True
        )
        self.processes.append(process)
        assert process.stdout is not None
        assert "answers at" in process.stdout.readline()
        assert "Page:" in process.stdout.readline()
        return process

    async def quorum(self, *words: str) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "app", *words, "--data-dir", str(self.data)),
            cwd=kit.ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        async with asyncio.timeout(90):
            out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()

    def node(self) -> dict[str, Any]:
        status: dict[str, Any] = Client.find(self.data).call("GET", "/local/v1/status")
        return dict(status["node"])

    def close(self) -> None:
        for process in psutil.process_iter(["cmdline"]):
            if str(self.data) in (process.info["cmdline"] or []):
                process.terminate()
                process.wait(30)
        for one in self.processes:
            one.wait(30)
            if one.stdout is not None:
                one.stdout.close()


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with kit.feed() as feed:
        one = Site(tmp_path, feed)
        yield one
        one.close()


async def test_check_tells_and_update_installs_and_the_new_version_answers(site: Site) -> None:
    site.release("0.2.0")
    old = site.serve()

    code, out, err = await site.quorum("update", "--check")
    assert (code, out.splitlines()[0]) == (0, "Version 0.2.0 is there. Better."), err

    code, out, err = await site.quorum("update")
    assert (code, out) == (0, "Version 0.2.0 runs.\n"), err
    assert "Trying the new program on this computer." in err
    assert old.wait(20) == 0
    assert site.node()["version"] == "0.2.0"
    assert site.node()["mode"] == "running"
    assert (site.folder / ".quorum.update" / "previous" / "quorum").read_bytes() == site.content("0.1.0")
    code, out, err = await site.quorum("update")
    assert (code, out) == (0, "Version 0.2.0 is the newest.\n"), err


async def test_under_a_service_manager_the_process_id_stays(site: Site) -> None:
    site.release("0.2.0")
    process = site.serve(QUORUM_SERVICE="1")

    code, out, err = await site.quorum("update")
    assert (code, out) == (0, "Version 0.2.0 runs.\n"), err
    assert json.loads((site.data / "node.json").read_text())["pid"] == process.pid
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


async def test_a_new_version_that_does_not_start_is_rolled_back_and_the_command_says_so(site: Site) -> None:
    site.release("0.2.0", "breaks")
    site.serve()

    code, _, err = await site.quorum("update")
    assert code == 1
    assert "Updating to version 0.2.0 failed: The new program ended at its first start (code 7)." in err
    assert site.node()["version"] == "0.1.0"
    assert site.program.read_bytes() == site.content("0.1.0")


async def test_a_clone_only_tells(tmp_path: Path) -> None:
    from tests.app.serving import serving

    async with kit.feed() as feed:

        def asked() -> tuple[subprocess.CompletedProcess[str], subprocess.CompletedProcess[str]]:
            with serving(tmp_path / "data", QUORUM_BUILTIN_ENGINE="0") as one:
                off = one.quorum("update")
                one.quorum("status")
                Client.find(one.data_dir).call("PATCH", "/local/v1/settings", {"update_feed": feed.address})
                return off, one.quorum("update", "--check")

        off, found = await asyncio.to_thread(asked)
    assert off.returncode == 1
    assert "No address of updates is set" in off.stderr
    assert found.returncode == 1
    assert "The feed answers 404" in found.stderr
    assert feed.asked[0] == "manifest.json"
