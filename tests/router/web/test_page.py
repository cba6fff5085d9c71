"""The page's files: from a table, with a strict policy; a sign of life for everybody else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from router.web.page import CSP, Page
from tests.router.web.web_kit import Served, serving

HTML = b"Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n"


@pytest.fixture
def built(tmp_path: Path) -> Path:
    page = tmp_path / "page"
    (page / "assets").mkdir(parents=True)
    (page / "index.html").write_bytes(b"<!doctype html><title>Quorum</title>")
    (page / "favicon.svg").write_bytes(b"<svg/>")
    (page / "assets" / "index-B1x2.js").write_bytes(b"console.log(1)")
    (page / "assets" / "index-C3.css").write_bytes(b"body{}")
    (page / "assets" / "katex-D4.woff2").write_bytes(b"wOF2")
    (tmp_path / "secret.txt").write_text("canary")
    (page / ".env").write_text("canary")
    (page / "link.txt").symlink_to(tmp_path / "secret.txt")
    return page


def app_of(directory: Path) -> web.Application:
    app = web.Application()
    Page(directory).add_to(app)
    return app


@pytest.fixture
async def served(built: Path) -> AsyncIterator[Served]:
    async with serving(app=app_of(built)) as one:
        yield one


async def test_a_browser_gets_the_page_under_the_strict_policy(served: Served) -> None:
    answer = await served.ask(served.get(b"/", HTML))
    assert answer.body.startswith(b"<!doctype html>")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"] == CSP
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "unsafe" not in CSP
    assert "http" not in CSP


@pytest.mark.parametrize("extra", [b"", b"Accept: */*\r\n", b"Accept: application/json\r\n"])
async def test_other_clients_are_told_that_quorum_runs(served: Served, extra: bytes) -> None:
    answer = await served.ask(served.get(b"/", extra))
    assert answer.body == b"Quorum is running"
    assert answer.headers["content-type"].startswith("text/plain")


async def test_head_answers_without_a_body(served: Served) -> None:
    async with served.connection() as (reader, writer):
        writer.write(b"HEAD / HTTP/1.1\r\n" + served.host + b"Connection: close\r\n\r\n")
        everything = await reader.read(-1)
    assert everything.startswith(b"HTTP/1.1 200 ")
    assert everything.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("path", "kind", "cache"),
    [
        (b"/assets/index-B1x2.js", "text/javascript; charset=utf-8", "immutable"),
        (b"/assets/index-C3.css", "text/css; charset=utf-8", "immutable"),
        (b"/assets/katex-D4.woff2", "font/woff2", "immutable"),
        (b"/favicon.svg", "image/svg+xml; charset=utf-8", "no-cache"),
    ],
)
async def test_files_have_their_type_and_hashed_ones_are_kept(
    served: Served, path: bytes, kind: str, cache: str
) -> None:
    answer = await served.ask(served.get(path))
    assert answer.status == 200
    assert answer.headers["content-type"] == kind
    assert cache in answer.headers["cache-control"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "content-security-policy" in answer.headers


@pytest.mark.parametrize(
    "path",
    [
        b"/../secret.txt",
        b"/assets/../../secret.txt",
        b"/assets/%2e%2e/%2e%2e/secret.txt",
        b"/assets/..%2f..%2fsecret.txt",
        b"/assets%2f..%2f..%2fsecret.txt",
        b"//secret.txt",
        b"/.env",
        b"/link.txt",
        b"/etc/passwd",
        b"/assets/",
        b"/assets",
        b"/index.html",
        b"/Assets/index-B1x2.js",
        b"/assets/index-B1x2.js/",
        b"/assets/index-B1x2.js%00",
    ],
)
async def test_nothing_else_is_served(served: Served, path: bytes) -> None:
    answer = await served.ask(served.get(path, HTML))
    assert answer.status in (400, 404)
    assert b"canary" not in answer.body


async def test_a_file_that_appears_later_is_not_served(served: Served, built: Path) -> None:
    (built / "assets" / "late.js").write_text("x")
    (built / "index.html").write_text("changed")
    assert (await served.ask(served.get(b"/assets/late.js"))).status == 404
    assert b"changed" not in (await served.ask(served.get(b"/", HTML))).body


async def test_a_page_that_was_not_built_says_so(tmp_path: Path) -> None:
    assert not Page(tmp_path / "none").built
    async with serving(app=app_of(tmp_path / "none")) as served:
        answer = await served.ask(served.get(b"/", HTML))
        assert answer.status == 200
        assert b"dev.py setup" in answer.body
        assert (await served.ask(served.get(b"/"))).body == b"Quorum is running"
