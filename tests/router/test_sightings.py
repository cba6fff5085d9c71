"""What is taken of an announcement: a spoofed, malformed or flooding one gets nothing dialled that the rules forbid."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.sightings import (
    FORGET_S,
    UNPAIRED_MAX,
    Network,
    Sighting,
    Sightings,
    in_vpn,
    lan_first,
    own_networks,
    read,
)
from router.trust import node_id_of

OWN, OTHER = node_id_of(bytes(32)), node_id_of(bytes([1] * 32))
NOBODY: frozenset[str] = frozenset()


def network(text: str, *, vpn: bool = False, scope: str = "eth0") -> Network:
    return Network(ipaddress.ip_interface(text), vpn, frozenset({scope, "4"}))


LAN = network("192.168.1.5/24")
LAN6 = network("fd00::5/64")
LINK = network("fe80::5/64")
VPN = network("10.8.0.2/24", vpn=True, scope="wg0")
ALL = (VPN, LAN, LAN6, LINK)


def seen(*addresses: str, label: str = OTHER, port: int | None = 7412, **txt: Any) -> Sighting | None:
    told = {b"v": b"1", b"id": label.encode(), b"name": b"studio"} | {k.encode(): v for k, v in txt.items()}
    return read(label, addresses or ("192.168.1.7",), port, told, ALL, OWN)


def test_an_honest_announcement_is_a_sighting() -> None:
    assert seen("192.168.1.7") == Sighting(OTHER, "studio", ("192.168.1.7",), 7412, "1")


def test_addresses_of_the_lan_come_before_those_of_a_vpn() -> None:
    sighting = seen("10.8.0.9", "fd00::9", "192.168.1.7", "192.168.1.7")
    assert sighting is not None
    assert sighting.addresses == ("192.168.1.7", "fd00::9", "10.8.0.9")
    assert lan_first(["10.8.0.2", "192.168.1.5"], ALL) == ["192.168.1.5", "10.8.0.2"]


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "::1",
        "0.0.0.0",
        "::",
        "8.8.8.8",
        "2606:4700::1111",
        "224.0.0.251",
        "ff02::fb",
        "255.255.255.255",
        "169.254.7.7",
        "::ffff:192.168.1.7",
        "::ffff:127.0.0.1",
        "192.168.1.5",
        "fd00::5",
        "192.168.1.0",
        "192.168.1.255",
        "192.168.2.7",
        "172.16.0.1",
        "fe80::9",
        "fe80::9%eth9",
        "fd01::9",
        "localhost",
        "192.168.1.7:80",
        "192.168.1",
        "3232235783",
        "",
    ],
)
def test_an_address_that_is_not_a_neighbours_is_never_dialled(address: str) -> None:
    assert seen(address) is None
    both = seen(address, "192.168.1.7")
    assert both is not None
    assert both.addresses == ("192.168.1.7",)


@pytest.mark.parametrize("scope", ["eth0", "4"])
def test_a_link_local_address_counts_only_on_the_link_it_names(scope: str) -> None:
    sighting = seen(f"fe80::9%{scope}")
    assert sighting is not None
    assert sighting.addresses == (f"fe80::9%{scope}",)


@pytest.mark.parametrize(
    "changes",
    [
        {"label": OWN},
        {"label": "studio"},
        {"label": ""},
        {"label": OTHER[:-1]},
        {"label": OTHER + "a"},
        {"label": "1" * 52},
        {"label": OTHER[:-1] + "b"},
        {"id": OWN.encode()},
        {"port": 80},
        {"port": 1023},
        {"port": 0},
        {"port": None},
        {"port": 65_536},
        {"name": b"\xff\xfe"},
        {"name": b"n" * 129},
        {"k" * 129: b""},
        {f"k{number}": b"" for number in range(14)},
    ],
    ids=str,
)
def test_an_announcement_that_breaks_a_rule_is_nothing(changes: dict[str, Any]) -> None:
    assert seen(**changes) is None


def test_names_are_one_short_line_and_never_empty() -> None:
    for said, name in ((b"a\x1b[31m\nb\x00", "a [31m b"), (b"n" * 128, "n" * 63), (b"\n", OTHER[:12])):
        sighting = seen(name=said)
        assert sighting is not None
        assert sighting.name == name


@given(
    label=st.text(max_size=60) | st.just(OTHER),
    addresses=st.lists(st.text(max_size=20) | st.ip_addresses().map(str), max_size=80),
    port=st.none() | st.integers(-1, 70_000),
    txt=st.dictionaries(st.binary(max_size=200), st.none() | st.binary(max_size=300), max_size=20),
)
def test_whatever_is_announced_only_neighbours_are_taken(
    label: str, addresses: list[str], port: int | None, txt: dict[bytes, bytes | None]
) -> None:
    sighting = read(label, [*addresses, "192.168.1.7"], port, txt, ALL, OWN)
    if sighting is None:
        return
    assert 1024 <= sighting.port <= 65_535
    assert 1 <= len(sighting.name) <= 63
    assert sighting.name.isprintable()
    for address in sighting.addresses:
        ip = ipaddress.ip_address(address.partition("%")[0])
        assert any(ip in own.address.network for own in ALL)
        assert not any((ip.is_loopback, ip.is_global, ip.is_multicast, ip.is_unspecified))


def test_without_a_network_nobody_is_a_neighbour() -> None:
    assert read(OTHER, ["192.168.1.7"], 7412, {}, (), OWN) is None


def test_the_networks_of_this_computer_leave_loopback_out() -> None:
    assert all(not own.address.ip.is_loopback for own in own_networks())


# -- the table


def sighting(number: int, **changes: Any) -> Sighting:
    given: dict[str, Any] = {"name": f"n{number}", "addresses": ("192.168.1.7",), "port": 7412}
    return Sighting(node_id_of(number.to_bytes(32, "big")), **(given | changes))


def test_a_flood_is_bounded_and_paired_ones_stay() -> None:
    table = Sightings()
    paired = frozenset({sighting(0).node_id})
    for number in range(5 * UNPAIRED_MAX):
        table.put(sighting(number), float(number), paired)
    assert len(table.all()) == UNPAIRED_MAX + 1
    assert table.get(sighting(0).node_id) is not None
    assert table.get(sighting(5 * UNPAIRED_MAX - 1).node_id) is not None
    assert table.get(sighting(1).node_id) is None


def test_only_what_changed_is_news() -> None:
    table = Sightings()
    assert table.put(sighting(1), 0, NOBODY)
    assert not table.put(sighting(1), 1, NOBODY)
    assert table.put(sighting(1, port=7413), 2, NOBODY)
    assert table.drop(sighting(1).node_id)
    assert not table.drop(sighting(1).node_id)


def test_who_is_not_seen_for_five_minutes_is_forgotten() -> None:
    table = Sightings()
    table.put(sighting(1), 0, NOBODY)
    table.put(sighting(2), 100, NOBODY)
    assert not table.forget(FORGET_S - 1)
    assert table.forget(FORGET_S)
    assert [one.name for one in table.all()] == ["n2"]


def test_what_only_a_vpn_leads_to_is_far() -> None:
    cable = Network(ipaddress.ip_interface("10.77.0.1/24"))
    tunnel = Network(ipaddress.ip_interface("10.66.0.1/24"), vpn=True)
    wide = Network(ipaddress.ip_interface("10.0.0.1/8"), vpn=True)
    assert in_vpn("10.66.0.2", (cable, tunnel))
    assert not in_vpn("10.77.0.2", (cable, tunnel, wide))
    assert not in_vpn("10.77.0.2", ())
    assert not in_vpn("192.168.1.2", (cable, tunnel))
    assert not in_vpn("studio.local", (cable, tunnel))
