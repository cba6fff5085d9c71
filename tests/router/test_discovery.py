"""Announcing and browsing with real mDNS on loopback, under a service type of the test's own."""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from zeroconf import IPVersion, ServiceInfo
from zeroconf.asyncio import AsyncZeroconf

from router.aio import SystemClock, Tasks
from router.discovery import PENDING_MAX, Discovery
from router.sightings import UNPAIRED_MAX, Network
from router.trust import node_id_of
from tests.fakes import BOUND_S

LOOPBACK = ["127.0.0.1"]
NETWORKS = (Network(ipaddress.ip_interface("10.77.0.1/24")),)


class Net:
    """Nodes that see each other on loopback only."""

    def __init__(self) -> None:
        self.service = f"_q{secrets.token_hex(4)}._tcp.local."
        self.tasks = Tasks()
        self.news = asyncio.Event()
        self.nodes: list[Discovery] = []

    async def node(self, number: int, **more: Any) -> Discovery:
        made = Discovery(
            node_id_of(number.to_bytes(32, "big")),
            self.tasks,
            SystemClock(),
            changed=self.news.set,
            networks=lambda: NETWORKS,
            interfaces=LOOPBACK,
            service=self.service,
            **more,
        )
        self.nodes.append(made)
        await made.start()
        return made

    async def until(self, true: Callable[[], bool], within_s: float = BOUND_S) -> None:
        async with asyncio.timeout(within_s):
            while not true():
                self.news.clear()
                await self.news.wait()

    def info(
        self, label: str, *, addresses: tuple[str, ...] = ("10.77.0.9",), port: int = 7412, **txt: Any
    ) -> ServiceInfo:
        return ServiceInfo(
            self.service,
            f"{label}.{self.service}",
            port=port,
            addresses=[ipaddress.ip_address(address).packed for address in addresses],
            properties={"v": "1", **txt},
            server=f"q-{label[:12]}.local.",
        )


@pytest.fixture
async def net() -> AsyncIterator[Net]:
    made = Net()
    yield made
    for node in made.nodes:
        await node.stop()
    await made.tasks.close()


@pytest.fixture
async def stranger() -> AsyncIterator[AsyncZeroconf]:
    """A program in the same network that announces what it likes."""
    made = AsyncZeroconf(interfaces=LOOPBACK, ip_version=IPVersion.V4Only)
    yield made
    await made.async_close()


def names(node: Discovery) -> list[str]:
    return [sighting.name for sighting in node.sightings()]


async def test_a_node_is_seen_within_two_seconds_and_gone_with_its_goodbye(net: Net) -> None:
    one, two = await net.node(1), await net.node(2)
    await two.announce("studio", ["10.77.0.2"], 7413)
    await net.until(lambda: bool(one.sightings()), 2)
    (seen,) = one.sightings()
    assert (seen.node_id, seen.name, seen.addresses, seen.port, seen.version) == (
        node_id_of((2).to_bytes(32, "big")),
        "studio",
        ("10.77.0.2",),
        7413,
        "1",
    )
    assert one.places(seen.node_id) == [("10.77.0.2", 7413)]
    assert two.sightings() == (), "nobody sees itself, nor one that announces nothing"
    await two.stop()
    await net.until(lambda: not one.sightings(), 2)
    assert one.places(seen.node_id) == []


async def test_a_newcomer_sees_who_is_there(net: Net) -> None:
    one = await net.node(1)
    await one.announce("studio", ["10.77.0.2"], 7412)
    await _shown(one)
    late = await net.node(2)
    await net.until(lambda: names(late) == ["studio"], 2)


async def test_a_node_that_changes_its_name_or_address_is_seen_as_it_is_now(net: Net) -> None:
    one, two = await net.node(1), await net.node(2)
    await two.announce("studio", ["10.77.0.2"], 7412)
    await net.until(lambda: names(one) == ["studio"])
    await _shown(two)
    await two.announce("kitchen", ["10.77.0.3"], 7500)
    await net.until(lambda: names(one) == ["kitchen"])
    node_id = one.sightings()[0].node_id
    await net.until(lambda: one.places(node_id)[:1] == [("10.77.0.3", 7500)] or len(one.places(node_id)) == 2)


async def test_one_that_shares_no_more_is_seen_no_more_but_sees(net: Net) -> None:
    one, two = await net.node(1), await net.node(2)
    await one.announce("one", ["10.77.0.2"], 7412)
    await two.announce("two", ["10.77.0.3"], 7412)
    await net.until(lambda: names(one) == ["two"] and names(two) == ["one"])
    await _shown(two)
    await two.withdraw()
    await net.until(lambda: names(one) == [], 2)
    assert names(two) == ["one"]
    await two.withdraw()


async def test_after_sleep_it_browses_again(net: Net) -> None:
    one, two = await net.node(1), await net.node(2)
    await one.refresh()
    await two.announce("two", ["10.77.0.3"], 7412)
    await net.until(lambda: names(one) == ["two"], 3)
    await _shown(two)
    await two.refresh()
    await one.refresh()
    assert names(one) == ["two"]


async def test_announcements_that_break_the_rules_are_not_seen(net: Net, stranger: AsyncZeroconf) -> None:
    node = await net.node(1)
    good = node_id_of(bytes([7] * 32))
    bad = [
        net.info("printer"),
        net.info(node_id_of(bytes([2] * 32)), addresses=("127.0.0.1", "8.8.8.8", "192.168.9.9", "10.77.0.1")),
        net.info(node_id_of(bytes([3] * 32)), port=22),
        net.info(node_id_of(bytes([4] * 32)), name="n" * 200),
        net.info(node_id_of(bytes([5] * 32)), id=good),
        net.info(node_id_of(bytes([6] * 32)), **{f"k{number}": "v" for number in range(16)}),
    ]
    for info in [*bad, net.info(good, name="a\x1b[31m\nb")]:
        await (await stranger.async_register_service(info, cooperating_responders=True))
    await net.until(lambda: bool(node.sightings()))
    assert names(node) == ["a [31m b"]


async def test_a_flood_of_names_fills_nothing_and_paired_ones_stay(net: Net) -> None:
    paired = node_id_of(bytes([9] * 32))
    node = await net.node(1, paired=lambda: [paired])
    node._take(paired, net.info(paired, name="paired"))
    for number in range(2000):
        label = node_id_of(bytes([8]) + number.to_bytes(31, "big"))
        node._heard(None, net.service, f"{label}.{net.service}", _Added)
        node._take(label, net.info(label))
    for number in range(2000):
        node._heard(None, net.service, f"printer-{number}.{net.service}", _Added)
    assert len(node._pending) <= PENDING_MAX
    assert len(node.sightings()) == UNPAIRED_MAX + 1
    assert node.places(paired)


@pytest.mark.parametrize(
    "label", ["a" * 51 + ".", "a.b" + "c" * 49, "\\" * 52, "a" * 51 + "1", " " * 52, "", "a" * 200]
)
async def test_a_name_that_is_no_node_id_is_not_looked_up(net: Net, label: str) -> None:
    node = await net.node(1)
    node._heard(None, net.service, f"{label}.{net.service}", _Added)
    node._heard(None, net.service, label, _Added)
    assert not node._pending


async def test_one_that_a_flood_kept_from_being_seen_is_looked_at_later(net: Net) -> None:
    one, two = await net.node(1), await net.node(2)
    await two.announce("studio", ["10.77.0.2"], 7412)
    await net.until(lambda: names(one) == ["studio"])
    one._seen.drop(one.sightings()[0].node_id)
    assert names(one) == []
    for name in one._known_names():
        one._heard(None, net.service, name, _Added)
    await net.until(lambda: names(one) == ["studio"])


async def test_a_flood_is_looked_at_in_its_turn_and_a_paired_node_before_it(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One packet can bring thousands of names up again: each waits once, and the loop goes on meanwhile."""
    paired = node_id_of(bytes([9] * 32))
    node = await net.node(1, paired=lambda: [paired])
    for _ in range(3):
        for number in range(PENDING_MAX + 10):
            node._heard(
                None, net.service, f"{node_id_of(bytes([8]) + number.to_bytes(31, 'big'))}.{net.service}", _Added
            )
    node._heard(None, net.service, f"{paired}.{net.service}", _Added)
    assert len(node._pending) == PENDING_MAX + 1
    looked: list[str] = []

    def look(label: str) -> None:
        looked.append(label)
        del node._pending[label]
        net.news.set()

    monkeypatch.setattr(node, "_look_at", look)
    await net.until(lambda: not node._pending)
    assert looked[0] == paired
    assert len(looked) == PENDING_MAX + 1


async def test_where_there_is_no_network_the_node_runs_all_the_same_and_finds_it_later(
    net: Net, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def absent(**options: Any) -> AsyncZeroconf:
        raise OSError("No such device")

    with monkeypatch.context() as broken:
        broken.setattr("zeroconf.asyncio.AsyncZeroconf", absent)
        node = await net.node(1)
        await node.announce("one", ["10.77.0.2"], 7412)
        await node.refresh()
        assert node.sightings() == ()
    assert caplog.text.count("No such device") == 1
    other = await net.node(2)
    await other.announce("two", ["10.77.0.3"], 7412)
    await node.refresh()
    await net.until(lambda: names(node) == ["two"] and names(other) == ["one"])


class _Added:
    name = "Added"


async def _shown(node: Discovery) -> None:
    """Until what is announced has gone out."""
    assert node._publishing is not None
    await asyncio.wait_for(asyncio.shield(node._publishing), BOUND_S)


async def test_one_that_is_asked_for_is_seen_or_not(net: Net) -> None:
    one = await net.node(1)
    two = await net.node(2)
    other = node_id_of((2).to_bytes(32, "big"))
    assert not await one.sees(other)
    await two.announce("studio", ["10.77.0.2"], 7412)
    await net.until(lambda: one.count() == 1)
    assert (await one.sees(other), one.name_of(other), one.deaf) == (True, "studio", "")
    await two.stop()
    assert not await one.sees(other)
    assert (one.name_of("?"), one.places("?")) == ("", [])


async def test_why_nobody_can_be_looked_for_is_told(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(*args: Any, **more: Any) -> None:
        raise OSError(98, "Address already in use")

    monkeypatch.setattr("zeroconf.asyncio.AsyncZeroconf", taken)
    one = await net.node(1)
    assert one.deaf == "Address already in use"
    assert not await one.sees(node_id_of((2).to_bytes(32, "big")))
    monkeypatch.undo()
    await one.refresh()
    assert one.deaf == ""
