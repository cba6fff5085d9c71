"""The routes of other computers: what the page and the commands send is checked and passed on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from router.errors import QuorumError, failure
from router.pairing_call import PairingError
from router.wire_peers import JoinPairing, PairingAnswer
from tests.router.web.peers_kit import LAPTOP, SEEN, STUDIO, FakePeers, served


@pytest.fixture
def peers() -> FakePeers:
    return FakePeers()


@pytest.fixture
async def http(peers: FakePeers, tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    async with (
        served(peers, tmp_path) as address,
        aiohttp.ClientSession(f"{address}/local/v1/", trust_env=False) as one,
    ):
        yield one


async def test_the_list_tells_paired_and_seen_computers_apart(http: aiohttp.ClientSession) -> None:
    async with http.get("peers") as reply:
        listed = {one["id"]: one for one in await reply.json()}
    assert listed[STUDIO]["paired"]
    assert listed[LAPTOP]["reason"] == "It was last seen an hour ago."
    assert not listed[SEEN]["paired"]


async def test_pairing_is_opened_answered_and_closed(http: aiohttp.ClientSession, peers: FakePeers) -> None:
    async with http.post("pairing/open", json={}) as reply:
        assert (await reply.json())["code"] == "042137"
    async with http.get("pairing") as reply:
        assert (await reply.json())["state"] == "open"
    async with http.post("pairing/answer", json={"accept": True, "may_use": False}) as reply:
        assert (await reply.json())["peer_name"] == "attic"
    assert peers.answers == [PairingAnswer(accept=True, may_use=False)]
    async with http.post("pairing/close", json={}) as reply:
        assert (await reply.json())["state"] == "closed"


async def test_digits_go_to_the_computer_that_was_meant(http: aiohttp.ClientSession, peers: FakePeers) -> None:
    async with http.post("pairing/join", json={"code": "123456", "node_id": STUDIO}) as reply:
        assert reply.status == 201
        assert (await reply.json())["name"] == "studio"
    assert peers.joins == [JoinPairing(code="123456", node_id=STUDIO)]


async def test_why_pairing_failed_is_told(http: aiohttp.ClientSession, peers: FakePeers) -> None:
    peers.refusal = PairingError("The code is wrong.")
    async with http.post("pairing/join", json={"code": "123456", "address": "10.0.0.2"}) as reply:
        assert reply.status >= 400
        assert (await reply.json())["error"]["message"] == "The code is wrong."


async def test_grants_change_one_at_a_time(http: aiohttp.ClientSession) -> None:
    async with http.patch(f"peers/{STUDIO}", json={"may_manage": True}) as reply:
        changed = await reply.json()
    assert (changed["may_use"], changed["may_manage"], changed["ignored"]) == (True, True, False)


async def test_a_computer_is_unpaired_once(http: aiohttp.ClientSession) -> None:
    async with http.delete(f"peers/{LAPTOP}") as reply:
        assert (await reply.json())["name"] == "laptop"
    async with http.delete(f"peers/{LAPTOP}") as reply:
        assert reply.status == failure("not_found", "").status


async def test_the_doctor_looks_at_all_or_at_one(http: aiohttp.ClientSession, peers: FakePeers) -> None:
    async with http.post("doctor", json={}) as reply:
        told = await reply.json()
    assert ([one["name"] for one in told["peers"]], told["green"]) == (["studio", "laptop"], True)
    async with http.post("doctor", json={"id": STUDIO}) as reply:
        assert [one["name"] for one in (await reply.json())["peers"]] == ["studio"]
    assert peers.examined == ["", STUDIO]


async def test_a_computer_is_looked_for_at_the_address_given(http: aiohttp.ClientSession, peers: FakePeers) -> None:
    async with http.post(f"peers/{STUDIO}/address", json={"address": "10.0.0.9"}) as reply:
        assert (await reply.json())["addresses"] == ["10.0.0.9"]
    async with http.post(f"peers/{STUDIO}/address", json={}) as reply:
        assert reply.status == 400
    peers.refusal = QuorumError("peer_failed", "studio does not answer there.")
    async with http.post(f"peers/{STUDIO}/address", json={"address": "10.0.0.9"}) as reply:
        assert (await reply.json())["error"]["message"] == "studio does not answer there."


@pytest.mark.parametrize(
    ("path", "body"),
    [("join", {}), ("join", {"code": 123456}), ("answer", {}), ("answer", {"accept": "yes"}), ("join", [])],
)
async def test_what_is_not_as_expected_is_named(http: aiohttp.ClientSession, path: str, body: object) -> None:
    async with http.post(f"pairing/{path}", json=body) as reply:
        assert reply.status == 400
        assert (await reply.json())["error"]["code"] == "bad_request"
