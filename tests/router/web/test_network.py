"""Answering on the network: where, for whom, and what stays on this computer."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from router.aio import Tasks
from router.node import Node
from router.web.network import Network, is_lan, lan_addresses
from tests.fakes import BOUND_S, ScriptedEngine, free_port, happens, whole
from tests.router.conftest import MakeNode
from tests.router.web.web_kit import Served, serving

ASK = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
BODY = b'{"choices":[{"message":{"role":"assistant","content":"hi"}}],"usage":{"prompt_tokens":3}}'


@pytest.mark.parametrize(
    "address",
    ["192.168.1.5", "10.0.0.1", "172.17.0.1", "100.64.1.2", "fd00::2", "fd12:3456::1"],
)
def test_private_shared_and_vpn_addresses_are_of_the_network(address: str) -> None:
    assert is_lan(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.0.0.2",
        "::1",
        "8.8.8.8",
        "2606:4700:4700::1111",
        "169.254.3.4",
        "fe80::1",
        "fe80::1%eth0",
        "224.0.0.251",
        "ff02::fb",
        "0.0.0.0",
        "::",
        "255.255.255.255",
        "::ffff:192.168.1.5",
        "02:fc:00:00:00:01",
        "",
    ],
)
def test_loopback_public_and_scoped_addresses_are_not(address: str) -> None:
    assert not is_lan(address)


# -- following the setting and the addresses of this computer, with further loopback addresses as the network


class Cables:
    """The addresses that this computer seems to have."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self.told = 0

    def changed(self) -> None:
        self.told += 1


@asynccontextmanager
async def following(cables: Cables, *, on: bool) -> AsyncIterator[tuple[Served, Network]]:
    async with serving(keys=True, listen_lan=on) as served:
        network = Network(served.listener, served.settings, cables.changed, lambda: cables.addresses)
        tasks = Tasks()
        await network.start(tasks)
        yield served, network
        await network.stop()
        assert not len(tasks)


def hosts(served: Served) -> list[str]:
    return [host for host, _ in served.listener.addresses]


async def test_nothing_is_open_on_the_network_until_it_is_asked_for() -> None:
    async with following(Cables("127.0.0.2"), on=False) as (served, network):
        assert hosts(served) == ["127.0.0.1", "::1"]
        assert network.addresses == []


async def test_each_address_of_the_network_answers_at_the_same_port_under_its_own_name() -> None:
    async with following(Cables("127.0.0.2", "127.0.0.3"), on=True) as (served, _):
        assert hosts(served) == ["127.0.0.1", "::1", "127.0.0.2", "127.0.0.3"]
        own = b"Host: 127.0.0.2:%d\r\n" % served.port
        assert (await served.ask(served.get(host=own), "127.0.0.2")).status == 200
        assert (await served.ask(served.get(host=b"Host: evil:%d\r\n" % served.port), "127.0.0.2")).status == 403


async def test_switching_it_counts_at_once_and_open_connections_lose_their_name() -> None:
    cables = Cables("127.0.0.2")
    async with following(cables, on=False) as (served, network):
        served.settings.update({"listen_lan": True})
        assert await network.look()
        own = b"Host: 127.0.0.2:%d\r\n" % served.port
        async with served.connection("127.0.0.2") as (reader, writer):
            served.settings.update({"listen_lan": False})
            assert await network.look()
            writer.write(served.get(host=own))
            assert b"403" in await asyncio.wait_for(reader.readline(), BOUND_S)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.2", served.port)


async def test_addresses_that_come_and_go_are_followed() -> None:
    cables = Cables("127.0.0.2")
    async with following(cables, on=True) as (served, network):
        cables.addresses = ["127.0.0.3"]
        assert await network.look()
        assert hosts(served) == ["127.0.0.1", "::1", "127.0.0.3"]
        assert not await network.look()


async def test_an_address_that_can_not_be_had_is_told_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with following(Cables("127.0.0.2", "127.0.0.3"), on=False) as (served, network):
        add = served.listener.add

        async def refuses(host: str, port: int) -> None:
            if host == "127.0.0.2":
                raise OSError(errno.EADDRINUSE, "Address already in use")
            await add(host, port)

        monkeypatch.setattr(served.listener, "add", refuses)
        served.settings.update({"listen_lan": True})
        assert await network.look()
        assert network.refused == [f"Port {served.port} can't be had at 127.0.0.2: Address already in use."]
        assert "127.0.0.3" in hosts(served)
        monkeypatch.undo()
        assert await network.look()
        assert network.refused == []
        assert "127.0.0.2" in hosts(served)


async def test_an_address_of_also_listen_stays_when_the_network_is_switched_off() -> None:
    cables = Cables("127.0.0.2")
    async with following(cables, on=False) as (served, network):
        await served.listener.add("127.0.0.2", served.port)
        for on in (True, False):
            served.settings.update({"listen_lan": on})
            await network.look()
            assert "127.0.0.2" in hosts(served)


# -- a whole node at this computer's own address of the network


@pytest.fixture
def lan() -> str:
    found = [address for address in lan_addresses() if ":" not in address]
    if not found:
        pytest.skip("this computer has no address in a network")
    return found[0]


async def opened(node: Node) -> list[str]:
    """The addresses of the network, once ``node`` told that they changed."""
    before, told = node.info().network, asyncio.Event()
    node.on_info = lambda info: told.set() if info.network != before else None
    await happens(told)
    node.on_info = None
    return node.info().network


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def make_key(http: aiohttp.ClientSession, node: Node, name: str) -> str:
    headers = bearer(node.control_token)
    async with http.post(f"{node.address}/local/v1/keys", json={"name": name}, headers=headers) as reply:
        assert reply.status == 201
        return str((await reply.json())["key"])


async def test_keys_are_compulsory_on_the_network_though_this_computer_needs_none(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession, lan: str
) -> None:
    engine.play(whole(BODY))
    node = await make_node(engine)
    node.settings.update({"listen_lan": True})
    there = f"http://{lan}:{node.info().port}"
    assert there in await opened(node)
    key = await make_key(http, node, "Anna")
    for path in ("/v1/models", "/api/tags", "/metrics"):
        async with http.get(f"{there}{path}") as reply:
            assert reply.status == 401, path
            assert "key" in await reply.text()
        async with http.get(f"{there}{path}", headers=bearer(key)) as reply:
            assert reply.status == 200, path
        async with http.get(f"{node.address}{path}") as reply:
            assert reply.status == 200, path
    for headers in ({}, bearer("qk_" + "x" * 43), bearer(node.control_token), bearer("")):
        async with http.post(f"{there}/v1/chat/completions", json=ASK, headers=headers) as reply:
            assert reply.status == 401
    assert engine.asked == []
    async with http.post(f"{there}/v1/chat/completions", json=ASK, headers={"x-api-key": key}) as reply:
        assert await reply.read() == BODY
    async with http.get(f"{there}/healthz") as reply:
        assert reply.status == 200


async def test_the_page_and_the_control_surface_stay_on_this_computer(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession, lan: str
) -> None:
    node = await make_node(engine, listen_lan=True)
    there = f"http://{lan}:{node.info().port}"
    key = await make_key(http, node, "Anna")
    for headers in (bearer(key), bearer(node.control_token)):
        for path in ("/", "/local/v1/status", "/local/v1/keys", "/index.html"):
            async with http.get(f"{there}{path}", headers=headers) as reply:
                assert reply.status == 403, path
    own_page = bearer(node.control_token) | {"Origin": there}
    async with http.post(f"{there}/v1/chat/completions", json=ASK, headers=own_page) as reply:
        assert reply.status == 401
    async with http.get(f"{node.address}/local/v1/keys", headers=bearer(key)) as reply:
        assert reply.status == 401


async def test_names_of_the_setting_are_answered_and_no_others(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession, lan: str
) -> None:
    node = await make_node(engine, listen_lan=True, hosts="host.docker.internal")
    port = node.info().port
    key = await make_key(http, node, "Open WebUI")
    for host, status in ((f"host.docker.internal:{port}", 200), (f"evil.example:{port}", 403)):
        async with http.get(f"http://{lan}:{port}/v1/models", headers=bearer(key) | {"Host": host}) as reply:
            assert reply.status == status


async def test_a_wildcard_address_of_also_listen_asks_strangers_for_a_key_too(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession, lan: str
) -> None:
    port = free_port()
    node = await make_node(engine, also_listen=f"0.0.0.0:{port}")
    assert node.info().network == []
    async with http.get(f"http://{lan}:{port}/v1/models") as reply:
        assert reply.status == 401
    for loopback in ("127.0.0.1", "127.0.0.2"):
        async with http.get(f"http://{loopback}:{port}/v1/models", headers={"Host": f"127.0.0.1:{port}"}) as reply:
            assert reply.status == 200


async def test_a_second_loopback_address_is_this_computer(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession
) -> None:
    port = free_port()
    node = await make_node(engine, also_listen=f"127.0.0.2:{port}", listen_lan=False)
    assert node.info().network == []
    async with http.get(f"http://127.0.0.2:{port}/v1/models") as reply:
        assert reply.status == 200


# -- another computer, as a network namespace


@dataclass(frozen=True)
class Neighbour:
    """Another computer on a cable of its own; ``here`` are our addresses on it."""

    name: str
    here: tuple[str, str]

    async def get(self, url: str, key: str = "") -> tuple[int, str]:
        """Status and body of a GET from over there; status 0 when nobody answers."""
        process = await asyncio.create_subprocess_exec(
            *("ip", "netns", "exec", self.name, sys.executable, "-c", _ASK, url),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await asyncio.wait_for(process.communicate(key.encode()), BOUND_S)
        status, body = json.loads(out)
        return status, body


_ASK = """
import json, sys, urllib.error, urllib.request
key = sys.stdin.read()
request = urllib.request.Request(sys.argv[1], headers={"Authorization": "Bearer " + key} if key else {})
try:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=5) as reply:
        print(json.dumps([reply.status, reply.read().decode()]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, error.read().decode()]))
except OSError:
    print(json.dumps([0, ""]))
"""


@pytest.fixture
def neighbour() -> Iterator[Neighbour]:
    """Needs root and the program ``ip``."""
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("another computer as a network namespace needs Linux, root and iproute2")
    tag = secrets.token_hex(3)
    name, cable, far = f"quorum-{tag}", f"qa{tag}", f"qb{tag}"
    net = secrets.randbelow(256)
    here = (f"10.231.{net}.1", f"fd51:{tag[:4]}::1")

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True, timeout=10)

    try:
        ip("netns", "add", name)
    except subprocess.CalledProcessError:
        pytest.skip("network namespaces are not allowed here")
    try:
        ip("link", "add", cable, "type", "veth", "peer", "name", far, "netns", name)
        ip("addr", "add", f"{here[0]}/24", "dev", cable)
        ip("addr", "add", f"{here[1]}/64", "dev", cable, "nodad")
        ip("link", "set", cable, "up")
        ip("-n", name, "addr", "add", f"10.231.{net}.2/24", "dev", far)
        ip("-n", name, "addr", "add", f"fd51:{tag[:4]}::2/64", "dev", far, "nodad")
        ip("-n", name, "link", "set", far, "up")
        yield Neighbour(name, here)
    finally:
        ip("netns", "del", name)  # takes the cable along


async def test_another_computer_is_answered_with_a_key_by_both_protocols_and_not_at_all_when_switched_off(
    make_node: MakeNode, engine: ScriptedEngine, http: aiohttp.ClientSession, neighbour: Neighbour, tmp_path: Path
) -> None:
    node = await make_node(engine)
    port = node.info().port
    four, six = f"http://{neighbour.here[0]}:{port}", f"http://[{neighbour.here[1]}]:{port}"
    assert (await neighbour.get(f"{four}/v1/models"))[0] == 0
    node.settings.update({"listen_lan": True})
    assert {four, six} <= set(await opened(node))
    key = await make_key(http, node, "laptop")
    for there in (four, six):
        status, body = await neighbour.get(f"{there}/v1/models")
        assert (status, json.loads(body)["error"]["code"]) == (401, "unauthorized")
        status, body = await neighbour.get(f"{there}/v1/models", key)
        assert (status, [model["id"] for model in json.loads(body)["data"]]) == (200, ["m"])
        assert (await neighbour.get(f"{there}/", key))[0] == 403
        assert (await neighbour.get(f"{there}/local/v1/status", node.control_token))[0] == 403
    node.settings.update({"listen_lan": False})
    assert await opened(node) == []
    assert (await neighbour.get(f"{four}/v1/models", key))[0] == 0
