"""Who is listed how, what the user changes of them, and pairing with both users answering."""

from __future__ import annotations

import asyncio

import pytest

from router.errors import QuorumError
from router.states import PeerState
from router.wire_peers import JoinPairing, PairingAnswer, PeerPatch
from tests.router.peer_kit import peer_of
from tests.router.test_peering import OTHER, THIRD, Sight, World, settled
from tests.router.test_peering import one as one
from tests.router.test_peering import two as two


async def test_without_a_network_no_digits_are_shown(one: World) -> None:
    one.addresses = []
    with pytest.raises(QuorumError, match="in no network"):
        await one.peers.open_pairing()
    assert one.peers.pairing().state == "closed"


async def test_paired_and_seen_computers_are_listed_with_what_is_known(one: World) -> None:
    await one.here.trust.add(peer_of(OTHER, may_use=True))
    one.finder.seen = (Sight(OTHER, "old name"), Sight(THIRD, "attic"))
    await settled(one)
    studio, attic = one.peers.infos()
    assert (studio.id, studio.name, studio.paired, studio.state) == (OTHER, "studio", True, PeerState.HEALTHY)
    assert (studio.models, studio.loaded, studio.width, studio.latency_s) == (["llama", "qwen"], ["llama"], 4, 0.002)
    assert (attic.id, attic.paired, attic.state, attic.port) == (THIRD, False, PeerState.DISCOVERED, 7412)


async def test_what_the_owner_calls_a_computer_counts_more_than_what_it_calls_itself(one: World) -> None:
    await one.here.trust.add(peer_of(OTHER))
    await settled(one)
    changed = await one.peers.patch(OTHER, PeerPatch(own_name="Big box"))
    assert (changed.name, changed.own_name, changed.send) == ("Big box", "Big box", True)
    assert not (await one.peers.patch(OTHER, PeerPatch(send=False))).send
    assert one.links[-1].peer == one.here.trust.get(OTHER), "its line hears of the change"
    with pytest.raises(QuorumError, match="not paired"):
        await one.peers.patch(THIRD, PeerPatch(own_name="x"))


async def test_grants_and_ignoring_are_remembered(one: World) -> None:
    await one.here.trust.add(peer_of(OTHER))
    one.finder.seen = (Sight(THIRD, "attic"),)
    changed = await one.peers.patch(OTHER, PeerPatch(may_use=True))
    assert (changed.may_use, changed.may_manage) == (True, False)
    assert one.settings["share"]
    assert (await one.peers.patch(THIRD, PeerPatch(ignored=True))).ignored
    assert (await one.peers.patch(OTHER, PeerPatch(ignored=True))).ignored
    await settled(one)
    assert not any(link.running for link in one.links)


@pytest.mark.parametrize("node_id", [THIRD, "nobody"])
async def test_who_is_not_known_can_be_neither_changed_nor_unpaired(one: World, node_id: str) -> None:
    for attempt in (
        one.peers.patch(node_id, PeerPatch(ignored=True)),
        one.peers.patch(node_id, PeerPatch(may_use=True)),
        one.peers.unpair(node_id),
    ):
        with pytest.raises(QuorumError):
            await attempt


async def joined(one: World, two: World, answer: PairingAnswer, **asked: object) -> None:
    """``two`` shows the digits and answers; ``one`` types them."""
    opened = await two.peers.open_pairing()
    given: dict[str, object] = {"address": f"127.0.0.1:{two.peering.port}"}
    asking = asyncio.ensure_future(
        one.peers.join(JoinPairing(code=opened.code, **(given | asked)))  # type: ignore[arg-type]
    )
    try:
        await two.until(lambda: two.peers.pairing().state == "asking")
        assert two.peers.pairing().peer_name == "laptop"
        two.peers.answer(answer)
        await asking
    finally:
        asking.cancel()


async def test_one_pairing_serves_both_directions(one: World, two: World) -> None:
    await joined(one, two, PairingAnswer(accept=True))
    await settled(two)
    assert two.peers.pairing().state == "paired"
    for here, other in ((one, two), (two, one)):
        listed = here.peers.infos()
        assert [(info.id, info.paired, info.may_use) for info in listed] == [(other.here.identity.node_id, True, True)]
        assert here.settings["share"]
        assert here.links[0].running


async def test_a_no_to_the_question_shares_nothing(one: World, two: World) -> None:
    await joined(one, two, PairingAnswer(accept=True, may_use=False), may_use=False)
    assert [here.settings["share"] for here in (one, two)] == [False, False]
    assert [info.may_use for info in one.peers.infos() + two.peers.infos()] == [False, False]


async def test_a_declined_computer_is_paired_nowhere(one: World, two: World) -> None:
    with pytest.raises(QuorumError, match="declined"):
        await joined(one, two, PairingAnswer(accept=False))
    assert one.peers.infos() == two.peers.infos() == []
    assert not two.settings["share"]


async def test_a_computer_chosen_from_the_list_is_paired_at_its_address(one: World, two: World) -> None:
    two.settings.update({"share": True})
    await settled(two)
    one.finder.seen = (Sight(two.here.identity.node_id, "studio", ("127.0.0.1",), two.peering.port),)
    await joined(one, two, PairingAnswer(accept=True), node_id=two.here.identity.node_id, address="")
    assert one.peers.infos()[0].paired


async def test_another_computer_at_the_address_of_the_chosen_one_is_refused(one: World, two: World) -> None:
    opened = await two.peers.open_pairing()
    one.finder.seen = (Sight(THIRD, "studio", ("127.0.0.1",), two.peering.port),)
    with pytest.raises(QuorumError, match="Another computer"):
        await one.peers.join(JoinPairing(code=opened.code, node_id=THIRD))


async def test_the_next_address_is_tried_where_nobody_answers(one: World, two: World) -> None:
    one.finder.seen = (Sight(THIRD, "Studio", ("127.0.0.2", "127.0.0.1"), 0),)
    await two.peers.open_pairing()
    one.finder.seen = (Sight(THIRD, "Studio", ("127.0.0.2", "127.0.0.1"), two.peering.port),)
    await joined(one, two, PairingAnswer(accept=True), address="studio")
    assert one.peers.infos()[0].paired


async def test_answering_nobody_is_told(one: World) -> None:
    with pytest.raises(QuorumError, match="No computer asks"):
        one.peers.answer(PairingAnswer(accept=True))
