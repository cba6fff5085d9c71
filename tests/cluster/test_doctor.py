"""The doctor among real computers: what is wrong between two of them is said in one sentence, by the command."""

from __future__ import annotations

import asyncio
import json
import shutil
from typing import Any

import pytest

from tests.cluster.kit import pair
from tests.cluster.net import Computer, Net, needs_nft

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]


@pytest.fixture
async def two(net: Net) -> tuple[Computer, Computer]:
    """A laptop and a studio that share, see each other and are paired."""
    laptop, studio = await net.computer("laptop", "other"), await net.computer("studio", "llama")
    await asyncio.gather(laptop.start(QUORUM_SHARE="1"), studio.start(QUORUM_SHARE="1"))
    await pair(laptop, studio)
    await asyncio.gather(laptop.peer_is(studio, "healthy"), studio.peer_is(laptop, "healthy"))
    return laptop, studio


async def doctor(computer: Computer, *words: str) -> tuple[int, dict[str, Any]]:
    """The command's exit code and report."""
    code, out, err = await computer.command("doctor", *words, "--json")
    assert out, f"{err}\n{computer.log}"
    return code, json.loads(out)


async def says(computer: Computer, expected: str) -> dict[str, Any]:
    """The finding about the only other computer; what the command prints of it is the same sentence."""
    code, report = await doctor(computer)
    (found,) = report["peers"]
    assert (found["code"], code, report["green"]) == (expected, int(expected != "good"), expected == "good"), report
    found["here"] = [one["code"] for one in report["here"]]
    return dict(found)


async def test_two_computers_in_order_are_green(two: tuple[Computer, Computer]) -> None:
    laptop, studio = two
    found = await says(laptop, "good")
    assert (found["sentence"], found["at"]) == ("studio is fine: both ways work.", f"{studio.address}:7412")
    assert found["here"] == ["good"]
    code, out, _ = await laptop.command("doctor", "studio")
    assert (code, out.splitlines()[-1]) == (0, "ok    studio is fine: both ways work.")
    await says(studio, "good")


async def test_a_port_that_its_firewall_drops(two: tuple[Computer, Computer]) -> None:
    needs_nft()
    laptop, studio = two
    studio.filter("tcp dport 7412 drop")
    await laptop.peer_is(studio, "unhealthy", 30)
    found = await says(laptop, "firewall")
    assert "port 7412 does not answer" in found["sentence"]
    assert "firewall of studio" in found["hint"]


async def test_a_port_at_which_nobody_listens(two: tuple[Computer, Computer]) -> None:
    laptop, studio = two
    await studio.kill()
    await laptop.peer_is(studio, "unhealthy", 30)
    found = await says(laptop, "refused")
    assert f"nothing listens at {studio.address}:7412" in found["sentence"]


async def test_a_power_cut_is_not_taken_for_a_firewall_although_its_announcement_is_remembered(
    two: tuple[Computer, Computer],
) -> None:
    laptop, studio = two
    studio.cut()
    await studio.kill()
    found = (await doctor(laptop))[1]["peers"][0]
    assert found["code"] in ("unreachable", "silent"), found
    await laptop.peer_is(studio, "unhealthy", 30)
    found = (await doctor(laptop))[1]["peers"][0]
    assert found["code"] in ("unreachable", "silent"), found
    assert studio.address in found["sentence"]


async def test_the_own_firewall_is_told_apart_by_the_call_back(two: tuple[Computer, Computer]) -> None:
    needs_nft()
    laptop, studio = two
    laptop.filter(f"ip saddr {studio.address} tcp dport 7412 drop")
    found = await says(laptop, "one-way")
    assert found["sentence"] == f"You reach studio, but it can't reach this computer at {laptop.address}:7412."
    assert "firewall of this computer blocks port 7412" in found["hint"]
    there = await says(studio, "firewall")
    assert there["sentence"].startswith("laptop is on, but its port 7412 does not answer")


async def test_blocked_multicast_is_told_though_the_computer_is_reached(net: Net) -> None:
    needs_nft()
    laptop, studio = await net.computer("laptop", "other"), await net.computer("studio", "llama")
    for one in (laptop, studio):
        one.filter("udp dport 5353 drop")
    await asyncio.gather(laptop.start(QUORUM_SHARE="1"), studio.start(QUORUM_SHARE="1"))
    await pair(laptop, studio)
    await laptop.peer_is(studio, "healthy")
    found = await says(laptop, "multicast")
    assert "multicast is blocked between you" in found["sentence"]
    for one in (laptop, studio):
        one.filter()
    await says(laptop, "good")


async def test_a_computer_that_was_set_up_anew_shows_another_certificate(two: tuple[Computer, Computer]) -> None:
    laptop, studio = two
    await studio.stop()
    shutil.rmtree(studio.data_dir)
    await studio.start(QUORUM_SHARE="1")
    await laptop.peer_is(studio, "discovered")
    _, report = await doctor(laptop)
    (found,) = report["peers"]
    assert (found["code"], found["fix"], found["at"]) == ("changed", "pair", f"{studio.address}:7412")
    assert "another certificate" in found["sentence"]
    await pair(laptop, studio)
    _, report = await doctor(laptop)
    assert sorted(one["code"] for one in report["peers"]) == ["changed", "good"]


async def test_a_pause_is_told_as_its_owners_wish(two: tuple[Computer, Computer]) -> None:
    laptop, studio = two
    await studio.quorum("pause")
    await laptop.peer_is(studio, "draining")
    found = await says(laptop, "paused")
    assert (found["level"], found["sentence"]) == ("note", "studio is paused by its owner and takes no new work.")


async def test_a_computer_that_was_closed_is_away(two: tuple[Computer, Computer]) -> None:
    laptop, studio = two
    await studio.stop()
    await laptop.peer_is(studio, "offline")
    found = await says(laptop, "away")
    assert found["sentence"] == "studio was closed."


async def test_one_that_has_forgotten_us_is_to_be_paired_again(two: tuple[Computer, Computer]) -> None:
    laptop, studio = two
    await studio.quorum("unpair", "laptop")
    found = await says(laptop, "forgotten")
    assert found["fix"] == "pair"
    await pair(laptop, studio)
    await laptop.peer_is(studio, "healthy")
    await says(laptop, "good")


async def test_a_vpn_is_told_when_it_is_the_only_way(net: Net) -> None:
    laptop, studio = await net.computer("laptop", "other"), await net.computer("studio", "llama")
    tunnel = net.another("tunnel")
    laptop.join(tunnel, "tun0", "10.99.0.1")
    studio.join(tunnel, "tun0", "10.99.0.2")
    await asyncio.gather(laptop.start(QUORUM_SHARE="1"), studio.start(QUORUM_SHARE="1"))
    await pair(laptop, studio)
    await laptop.peer_is(studio, "healthy")
    await says(laptop, "good")
    studio.cut()
    found = await says(laptop, "vpn")
    assert found["at"] == "10.99.0.2:7412"


async def test_a_port_that_another_program_has_here_is_told(net: Net) -> None:
    laptop = await net.computer("laptop", "other")
    holder = await asyncio.create_subprocess_exec(
        *("ip", "netns", "exec", laptop.namespace, "python3", "-c"),
        "import socket; s = socket.create_server(('0.0.0.0', 7412)); print(1, flush=True); input()",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert holder.stdout is not None
    await holder.stdout.readline()
    await laptop.start(QUORUM_SHARE="1")
    _, report = await doctor(laptop)
    await holder.communicate(b"\n")
    told = next(one for one in report["here"] if one["code"] == "port-taken")
    assert "Port 7412 is taken by 'python3" in told["sentence"]
    assert "at port 7413" in told["sentence"]


async def test_an_mdns_port_that_another_program_keeps_for_itself_is_told(net: Net) -> None:
    laptop = await net.computer("laptop", "other")
    holder = await asyncio.create_subprocess_exec(
        *("ip", "netns", "exec", laptop.namespace, "python3", "-c"),
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('0.0.0.0', 5353)); "
        "t = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); t.setsockopt(41, 26, 1); t.bind(('::', 5353)); "
        "print(1, flush=True); input()",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert holder.stdout is not None
    await holder.stdout.readline()
    await laptop.start(QUORUM_SHARE="1")
    code, report = await doctor(laptop)
    await holder.communicate(b"\n")
    told = next(one for one in report["here"] if one["code"] == "mdns-port")
    assert code == 1
    assert "holds UDP port 5353" in told["sentence"]
