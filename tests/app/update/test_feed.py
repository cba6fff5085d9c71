"""The feed may be down, lie, stall or send something else: nothing unverified stays on the disk."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from app.update import feed as calls
from app.update.errors import UpdateError
from app.update.installation import platform_name
from app.update.manifest import MANIFEST_MAX_BYTES, File
from tests.app.update.kit import Feed, told

CONTENT = bytes(range(256)) * 4000


def promised(**changes: Any) -> File:
    return File(**told("0.2.0", CONTENT)["files"][platform_name()] | changes)


async def test_a_file_is_fetched_verified_and_its_progress_told(feed: Feed, tmp_path: Path) -> None:
    feed.files["quorum-0.2.0.tar.gz"] = CONTENT
    percents: list[int] = []

    await calls.download(feed.address, promised(), tmp_path / "x", percents.append)

    assert (tmp_path / "x").read_bytes() == CONTENT
    assert percents == sorted(percents)
    assert percents[-1] == 100


async def refused(feed: Feed, target: Path, match: str, file: File | None = None, **more: Any) -> None:
    with pytest.raises(UpdateError, match=match):
        await calls.download(feed.address, file or promised(), target, lambda percent: None, **more)
    assert not list(await asyncio.to_thread(os.listdir, target.parent))


async def test_another_content_is_deleted(feed: Feed, tmp_path: Path) -> None:
    feed.files["quorum-0.2.0.tar.gz"] = CONTENT[:-1] + b"?"

    await refused(feed, tmp_path / "x", "not what those who release")


async def test_a_longer_and_a_shorter_file_are_refused(feed: Feed, tmp_path: Path) -> None:
    feed.files["quorum-0.2.0.tar.gz"] = CONTENT

    await refused(feed, tmp_path / "x", "longer than it was announced", promised(bytes=len(CONTENT) - 1))
    await refused(feed, tmp_path / "x", "broke off", promised(bytes=len(CONTENT) + 1))


async def test_a_connection_that_breaks_is_told(feed: Feed, tmp_path: Path) -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(CONTENT))})
        await response.prepare(request)
        await response.write(CONTENT[:5000])
        assert request.transport is not None
        request.transport.abort()
        return response

    feed.files["quorum-0.2.0.tar.gz"] = cut
    await refused(feed, tmp_path / "x", "broke off|can't be reached")


async def test_a_full_disk_is_told_and_nothing_is_left(feed: Feed, tmp_path: Path) -> None:
    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    feed.files["quorum-0.2.0.tar.gz"] = CONTENT
    await refused(feed, tmp_path / "x", "disk is too full", create=lambda path: Full())


async def test_it_never_writes_through_what_is_there_already(feed: Feed, tmp_path: Path) -> None:
    feed.files["quorum-0.2.0.tar.gz"] = CONTENT
    (tmp_path / "other").write_text("mine")
    (tmp_path / "x").symlink_to(tmp_path / "other")

    with pytest.raises(UpdateError, match="can't be written"):
        await calls.download(feed.address, promised(), tmp_path / "x", lambda percent: None)
    assert (tmp_path / "other").read_text() == "mine"


async def test_a_manifest_is_bounded(feed: Feed) -> None:
    feed.files["manifest.json"] = b"x" * MANIFEST_MAX_BYTES
    assert len(await calls.manifest(feed.address)) == MANIFEST_MAX_BYTES
    feed.files["manifest.json"] = b"x" * (MANIFEST_MAX_BYTES + 1)
    with pytest.raises(UpdateError, match="too large"):
        await calls.manifest(feed.address)


async def test_a_feed_that_is_down_or_answers_otherwise_is_told(feed: Feed) -> None:
    with pytest.raises(UpdateError, match="answers 404"):
        await calls.manifest(feed.address)
    feed.files["manifest.json"] = web.Response(status=302, headers={"Location": feed.address.replace("manifest", "o")})
    feed.files["o.json"] = b"elsewhere"
    with pytest.raises(UpdateError, match="sends on to another address"):
        await calls.manifest(feed.address)
    assert feed.asked == ["manifest.json"] * 2
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(UpdateError, match="can't be reached"):
            await calls.manifest(f"http://127.0.0.1:{closed.getsockname()[1]}/manifest.json")


async def test_the_proxy_of_the_environment_is_not_used(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    feed.files["manifest.json"] = b"here"

    assert await calls.manifest(feed.address) == b"here"


@pytest.mark.parametrize(
    "address",
    [
        "http://example.org/manifest.json",
        "http://192.168.1.2/manifest.json",
        "ftp://127.0.0.1/manifest.json",
        "file:///etc/manifest.json",
        "https://user:word@example.org/manifest.json",
        "https://example.org/",
        "https://example.org/m#x",
        "https://:443/m",
        "https://[::1/m",
        "manifest.json",
    ],
)
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(UpdateError):
        calls.checked(address)


def test_files_lie_beside_the_manifest() -> None:
    assert calls.checked("https://a.example/b/c.json?d=1") == "https://a.example/b/c.json?d=1"
    assert calls.beside("https://a.example/b/c.json?d=1", "e+f.tar.gz") == "https://a.example/b/e%2Bf.tar.gz?d=1"
