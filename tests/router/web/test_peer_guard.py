"""Who may call the peer surface, decided before a byte of a body is read; hostile heads over real TLS."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from router.web.peer_guard import PAIR_BYTES, SMALL_BYTES, body_limit
from tests.fakes import ScriptedEngine
from tests.router.conftest import MakeNode
from tests.router.web.peer_kit import DESKTOP, LAPTOP, SECRET, Site, asked, surface_of
from tests.router.web.web_kit import Answer, closed, read_answer

MIB = 1024 * 1024


@pytest.fixture
async def site(make_node: MakeNode, engine: ScriptedEngine) -> AsyncIterator[Site]:
    async with surface_of(await make_node(engine, share=True)) as made:
        yield made


def code(answer: Answer) -> tuple[int, str]:
    return answer.status, json.loads(answer.body)["error"]["code"]


async def said(site: Site, data: bytes) -> Answer:
    async with site.raw() as (reader, writer):
        writer.write(data)
        async with asyncio.timeout(5):
            return await read_answer(reader)


# -- who


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": f"Bearer {SECRET}"},
        {"Authorization": f"Quorum {LAPTOP} {'x' * 64}"},
        {"Authorization": f"Quorum {DESKTOP} {SECRET}"},
        {"Authorization": f"Quorum {LAPTOP}"},
    ],
)
@pytest.mark.parametrize(("method", "path"), [("POST", "run"), ("GET", "state"), ("POST", "cancel"), ("GET", "no")])
async def test_who_is_not_paired_gets_401_everywhere(
    site: Site, headers: dict[str, str], method: str, path: str
) -> None:
    async with site.call(path, b"{}" if method == "POST" else None, headers=headers, method=method) as answer:
        assert answer.status == 401
        assert json.loads(await answer.read())["error"]["code"] == "unauthorized"


async def test_a_stranger_is_refused_before_its_body_is_read(site: Site) -> None:
    head = (
        "POST /peer/v1/run HTTP/1.1\r\nHost: peer\r\nContent-Type: application/json\r\nContent-Length: 5000000\r\n\r\n"
    )
    assert code(await said(site, head.encode())) == (401, "unauthorized")


async def test_a_refused_connection_is_closed(site: Site) -> None:
    async with site.raw() as (reader, writer):
        writer.write(b"GET /peer/v1/state HTTP/1.1\r\nHost: peer\r\n\r\n")
        assert b"401" in await closed(reader)


async def test_a_connection_belongs_to_one_computer(site: Site) -> None:
    from tests.router.peer_kit import peer_of

    await site.trust.add(peer_of(DESKTOP, "other"))
    async with site.raw() as (reader, writer):
        writer.write(site.head("GET", "nothing"))
        assert (await read_answer(reader)).status == 404
        writer.write(site.head("GET", "nothing").replace(f"{LAPTOP} {SECRET}".encode(), f"{DESKTOP} other".encode()))
        assert code(await read_answer(reader)) == (401, "unauthorized")


async def test_a_computer_with_too_many_connections_is_told_so(site: Site) -> None:
    listener = site.surface._listener
    assert listener is not None
    listener.doors.of_peer[LAPTOP] = set(range(512))  # type: ignore[arg-type]
    assert code(await said(site, site.head("GET", "nothing"))) == (429, "queue_full")
    listener.doors.of_peer.clear()


# -- what


async def test_hello_is_for_everybody_and_says_who_and_which_protocol(site: Site) -> None:
    status, told = await site.status("hello", method="GET", headers={})
    assert (status, told["node_id"], told["protocol"]) == (200, site.id, 1)
    assert set(told) == {"node_id", "protocol", "version"}


@pytest.mark.parametrize("version", [None, "", "0", "2", "1.0", "one"])
async def test_another_version_of_the_protocol_is_said_so(site: Site, version: str | None) -> None:
    headers = {"Authorization": f"Quorum {LAPTOP} {SECRET}"} | (
        {} if version is None else {"X-Quorum-Protocol": version}
    )
    status, told = await site.status("run", asked(), headers=headers)
    assert (status, told["error"]["code"]) == (400, "bad_request")
    assert f"speaks version 1 of the protocol, the one that calls {_named(version)}." in told["error"]["message"]
    assert "update the older one" in told["error"]["hint"]
    async with site.call("run", asked(), headers=headers) as answer:
        assert answer.headers["X-Quorum-Protocol"] == "1"


def _named(version: str | None) -> str:
    return f"version {version}" if version in ("0", "2") else "none that is known"


@pytest.mark.parametrize(
    ("extra", "status"),
    [
        ("Origin: https://evil.example\r\n", 403),
        ("Origin: null\r\n", 403),
        ("Sec-Fetch-Site: same-origin\r\n", 403),
        ("Content-Encoding: gzip\r\n", 415),
        ("Upgrade: websocket\r\nConnection: Upgrade\r\n", 400),
        ("Transfer-Encoding: gzip\r\n", 400),
        ("Content-Length: 1\r\nContent-Length: 2\r\n", 400),
        ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", 400),
        ("X: a\x00b\r\n", 400),
    ],
)
async def test_hostile_heads_are_refused(site: Site, extra: str, status: int) -> None:
    known = site.head("POST", "cancel", extra + "Content-Type: application/json\r\n")
    assert (await said(site, known)).status == status


@pytest.mark.parametrize(
    "target",
    ["/", "/v1/models", "/local/v1/status", "/peer/v1/../local/v1/status", "/peer/v1/%2e%2e", "https://x/peer/v1/state",
     "/peer/v1/state?a=1", "/peer/v2/state", "/peer/v1/" + "a" * 100],
)  # fmt: skip
async def test_no_other_surface_is_behind_this_port(site: Site, target: str) -> None:
    head = site.head("GET", "state").replace(b"/peer/v1/state", target.encode(), 1)
    assert (await said(site, head)).status in (400, 404)


async def test_http_1_0_is_not_spoken(site: Site) -> None:
    assert (await said(site, site.head().replace(b"HTTP/1.1", b"HTTP/1.0"))).status == 400


async def test_what_is_not_json_is_415(site: Site) -> None:
    status, _ = await site.status("run", b"{}", headers=site.known() | {"Content-Type": "text/plain"})
    assert status == 415


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "run", 405), ("POST", "state", 405), ("GET", "x", 404)])
async def test_unknown_routes_answer_in_the_surfaces_own_shape(site: Site, method: str, path: str, status: int) -> None:
    found, told = await site.status(path, method=method)
    assert found == status
    assert set(told["error"]) >= {"code", "message", "hint", "status"}


# -- how much


def test_bounds_of_bodies() -> None:
    assert body_limit("/peer/v1/run") == 32 * MIB + 64 * 1024
    assert body_limit("/peer/v1/pair/1") == body_limit("/peer/v1/pair/2") == PAIR_BYTES
    assert body_limit("/peer/v1/cancel") == body_limit("/anything") == SMALL_BYTES


@pytest.mark.parametrize(("path", "limit"), [("cancel", SMALL_BYTES), ("run", 32 * MIB + 64 * 1024)])
async def test_a_declared_length_over_the_bound_is_413_at_once(site: Site, path: str, limit: int) -> None:
    extra = f"Content-Type: application/json\r\nContent-Length: {limit + 1}\r\nExpect: 100-continue\r\n"
    answer = await said(site, site.head("POST", path, extra))
    assert code(answer) == (413, "payload_too_large")


async def test_a_body_without_a_length_is_cut_at_the_bound(site: Site) -> None:
    async with site.raw() as (reader, writer):
        extra = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
        writer.write(site.head("POST", "cancel", extra))
        piece = b"10000\r\n" + b" " * 65_536 + b"\r\n"
        writer.write(piece + piece)
        async with asyncio.timeout(5):
            assert code(await read_answer(reader)) == (413, "payload_too_large")


async def test_pairing_routes_are_closed_unless_pairing_is_open(site: Site) -> None:
    for path in ("pair/1", "pair/2"):
        status, told = await site.status(path, {}, headers={"X-Quorum-Protocol": "1"})
        assert (status, told["error"]["code"]) == (403, "forbidden")

    async def accept(ask: Any) -> Any:
        raise AssertionError

    site.desk.open(accept)
    assert (await site.status("pair/1", {}, headers={"X-Quorum-Protocol": "1"}))[0] == 400
    status, _ = await site.status("pair/1", b" " * (PAIR_BYTES + 1), headers={"X-Quorum-Protocol": "1"})
    assert status == 413
