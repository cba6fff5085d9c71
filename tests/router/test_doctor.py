"""The doctor among real nodes on this computer's own addresses, over TLS and without mDNS."""

from __future__ import annotations

import asyncio

import pytest

from router.errors import QuorumError
from router.node import Node
from router.states import PeerState
from router.wire_peers import Finding, Fix, Level, PeerPatch
from tests.fakes import ScriptedEngine, free_port
from tests.router.test_peering_parts import MakeNode, known, pair, reach, until
from tests.router.test_peering_parts import engine as engine
from tests.router.test_peering_parts import make as make


async def both(make: MakeNode, *engines: ScriptedEngine, port: int = 0) -> tuple[Node, Node]:
    here, there = await asyncio.gather(make("laptop"), make("studio", *engines, peer_port=port))
    await pair(here, there)
    await reach(here)
    await reach(there)
    return here, there


async def of_peer(node: Node) -> Finding:
    (found,) = (await node._peers.examine("")).peers
    return found


async def test_two_computers_that_reach_each_other_are_green(make: MakeNode, engine: ScriptedEngine) -> None:
    here, there = await both(make, engine)
    report = await here._peers.examine("")

    assert [one.code for one in report.peers] == ["good"], report.peers
    assert [one.code for one in report.here] == ["discovery-off"]
    assert report.green
    assert (await there._peers.examine(known(there).id)).green


async def test_a_pause_of_its_owner_is_told(make: MakeNode, engine: ScriptedEngine) -> None:
    here, there = await both(make, engine)
    there.pause()
    await until(here, lambda: known(here).state is PeerState.DRAINING)
    found = await of_peer(here)

    assert (found.code, found.level, found.name) == ("paused", Level.NOTE, "studio")


async def test_that_it_shares_nothing_or_not_with_us_is_told_apart(make: MakeNode, engine: ScriptedEngine) -> None:
    here, there = await both(make, engine)
    await there._peers.patch(known(there).id, PeerPatch(may_use=False))
    await until(here, lambda: not known(here).granted)
    assert (await of_peer(here)).code == "not-granted"
    there.settings.update({"share": False})
    await until(here, lambda: not known(here).shared)
    assert (await of_peer(here)).code == "not-shared"


async def test_a_computer_that_was_unpaired_there_has_forgotten_us(make: MakeNode, engine: ScriptedEngine) -> None:
    here, there = await both(make, engine)
    there.settings.update({"share": True})
    await there._peers.unpair(known(there).id)
    await until(here, lambda: known(here).state is PeerState.UNHEALTHY)
    found = await of_peer(here)

    assert (found.code, found.fix) == ("forgotten", Fix.PAIR)
    assert not (await here._peers.examine("")).green


async def test_a_computer_that_was_closed_is_away_not_broken(make: MakeNode, engine: ScriptedEngine) -> None:
    here, there = await both(make, engine)
    await there.stop()
    await until(here, lambda: known(here).state is PeerState.OFFLINE)
    found = await of_peer(here)

    assert (found.code, found.level) == ("away", Level.NOTE)
    assert known(here).heard_at


async def test_a_computer_found_at_a_new_place_is_followed_there(make: MakeNode, engine: ScriptedEngine) -> None:
    here, there = await both(make, engine)
    await there.stop()
    await until(here, lambda: known(here).state is PeerState.OFFLINE)
    moved = free_port()
    again = await make("studio", engine, peer_port=moved)
    await until(again, lambda: again._peering.port == moved)
    address = again._peering.addresses[0]
    with pytest.raises(QuorumError, match="does not answer there"):
        await here._peers.reach(known(here).id, f"{address}:{free_port()}")
    found = await here._peers.reach(known(here).id, f"{address}:{moved}")

    assert (found.state, found.port) == (PeerState.HEALTHY, moved)
    assert (await of_peer(here)).code == "good"


async def test_only_a_paired_computer_is_examined(make: MakeNode) -> None:
    here = await make("laptop")
    with pytest.raises(QuorumError, match="not paired"):
        await here._peers.examine("a" * 52)
    with pytest.raises(QuorumError, match="not paired"):
        await here._peers.reach("a" * 52, "10.0.0.1")
    report = await here._peers.examine("")
    assert (report.peers, report.green) == ([], True)


async def test_who_asks_meanwhile_gets_the_same_report(make: MakeNode, engine: ScriptedEngine) -> None:
    here, _ = await both(make, engine)
    first, second = await asyncio.gather(here._peers.examine(""), here._peers.examine(""))
    assert first is second
