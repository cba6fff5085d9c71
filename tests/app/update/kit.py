"""A small release: throw-away keys, an archive of a program that is a script, and a feed on this computer."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import sys
import tarfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from app.update import manifest
from app.update.installation import platform_name

ROOT = Path(__file__).resolve().parent.parent.parent.parent

# Stands for the frozen program: the update's own code is the real one, the rest is what a test needs of a program.
PROGRAM = """#!{python}
import json, os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {repo!r})
words, here, version, manner = sys.argv[1:], Path(__file__).resolve(), {version!r}, {manner!r}
if words[:1] == ["--finish-update"]:
    from app.update import finish
    sys.exit(finish.main(words[1:]))
if words[:1] == ["--version"]:
    print("quorum " + version)
    sys.exit(0)
if words[:1] == ["selftest"]:
    print(json.dumps({{"ok": manner != "sick"}}))
    sys.exit(1 if manner == "sick" else 0)
from app.update import start
start.begin(words, here)
with open(words[0], "a") as log:
    log.write(f"{{version}} started {{os.getpid()}}\\n")
if manner == "breaks":
    sys.exit(7)
from app.update import finish
problem = finish.confirm(start.work_of(here))
with open(words[0], "a") as log:
    log.write(f"{{version}} ready {{problem}}\\n")
if "--stay" in words:
    signal.sigwait({{signal.SIGTERM}})
"""


def program(version: str, manner: str = "") -> bytes:
    """The script of one version; ``manner`` is ``sick`` (its selftest fails) or ``breaks`` (it ends at its start)."""
    return PROGRAM.format(python=sys.executable, repo=str(ROOT), version=version, manner=manner).encode()


def install(folder: Path, version: str, manner: str = "") -> Path:
    """An installed program in ``folder``; its executable."""
    folder.mkdir(parents=True)
    path = folder / "quorum"
    path.write_bytes(program(version, manner))
    path.chmod(0o755)
    (folder / "VERSION").write_text(version)
    return path


def archive(files: Mapping[str, bytes], *extra: tarfile.TarInfo) -> bytes:
    """A ``.tar.gz`` of executables and odd entries."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
        for entry in extra:
            tar.addfile(entry)
    return out.getvalue()


def entry(name: str, kind: bytes, aim: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, aim
    return made


def release_archive(version: str, manner: str = "") -> bytes:
    """The archive of one version of the program, padded a little."""
    files = {"quorum/quorum": program(version, manner), "quorum/VERSION": version.encode()}
    return archive(files | {"quorum/_internal/pad": os.urandom(100_000)}, entry("quorum/q", tarfile.SYMTYPE, "quorum"))


class Signer:
    """A key of those who release."""

    def __init__(self, name: str = "test-1") -> None:
        self.name = name
        self.private = Ed25519PrivateKey.generate()

    @property
    def key(self) -> manifest.Key:
        return manifest.Key(self.name, base64.b64encode(self.private.public_key().public_bytes_raw()).decode())

    def sign(self, told: Mapping[str, Any]) -> dict[str, str]:
        signature = self.private.sign(manifest.canonical(told))
        return {"key": self.name, "signature": base64.b64encode(signature).decode()}


def told(version: str, content: bytes, **changes: Any) -> dict[str, Any]:
    """What the manifest of a release says."""
    file = {
        "name": f"quorum-{version}.tar.gz",
        "bytes": len(content),
        "unpacked_bytes": 10_000_000,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    now = int(time.time())
    return {
        "format": 1,
        "product": "quorum",
        "version": version,
        "released_at": now,
        "expires_at": now + 86_400,
        "minimum_version": "0.1.0",
        "notes": "",
        "files": {platform_name(): file},
    } | changes


def envelope(manifest_told: Mapping[str, Any], *signers: Signer) -> bytes:
    signatures = [signer.sign(manifest_told) for signer in signers]
    return json.dumps({"manifest": manifest_told, "signatures": signatures}).encode()


class Feed:
    """What the feed answers by path; a callable is asked at each call."""

    def __init__(self) -> None:
        self.files: dict[str, bytes | web.Response | Callable[[web.Request], Any]] = {}
        self.asked: list[str] = []
        self.address = ""

    def release(self, version: str, signer: Signer, manner: str = "", **changes: Any) -> None:
        content = release_archive(version, manner)
        self.files["manifest.json"] = envelope(told(version, content, **changes), signer)
        self.files[f"quorum-{version}.tar.gz"] = content

    async def answer(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        self.asked.append(name)
        found = self.files.get(name)
        if found is None:
            raise web.HTTPNotFound
        if callable(found) and not isinstance(found, web.Response):
            answered: web.StreamResponse = await found(request)
            return answered
        return found if isinstance(found, web.Response) else web.Response(body=found)


@asynccontextmanager
async def feed() -> AsyncIterator[Feed]:
    made = Feed()
    app = web.Application()
    app.router.add_get("/feed/{name}", made.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.address = f"http://127.0.0.1:{runner.addresses[0][1]}/feed/manifest.json"
    try:
        yield made
    finally:
        await runner.cleanup()
