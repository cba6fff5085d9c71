"""What the node tells its doctor about itself."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from router.doctor import Line
from router.doctor_ward import OwnWard, holder
from router.peer_client import Place
from router.settings import Settings
from router.trust import node_id_of
from tests.router.peer_kit import Computer, computer, peer_of
from tests.router.test_peering import FakeLink

STUDIO = node_id_of(bytes(range(32)))
SEEN = node_id_of(bytes(range(1, 33)))


class Lookout:
    def __init__(self) -> None:
        self.deaf = ""

    def places(self, node_id: str) -> list[Place]:
        return [("10.0.0.2", 7412)]

    def name_of(self, node_id: str) -> str:
        return "attic" if node_id == SEEN else ""

    def count(self) -> int:
        return 3

    async def sees(self, node_id: str) -> bool:
        return node_id == SEEN


class Standing:
    port = 7412
    addresses: Sequence[str] = ["10.0.0.1"]
    listens = True
    trouble = ""

    def __init__(self) -> None:
        self.lines: dict[str, FakeLink] = {}

    def line(self, node_id: str) -> Line | None:
        return self.lines.get(node_id)


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Computer]:
    async with computer(tmp_path / "here") as made:
        await made.trust.add(peer_of(STUDIO))
        yield made


def ward_of(here: Computer, lookout: Lookout | None, settings: dict[str, str] | None = None) -> OwnWard:
    return OwnWard(
        here.trust, Standing(), lookout, Settings(None, environ=settings or {}), lambda node_id: None, time.time
    )


async def test_the_paired_ones_and_those_seen_are_known(here: Computer) -> None:
    ward = ward_of(here, Lookout())
    assert [peer.node_id for peer, _ in ward.patients()] == [STUDIO]
    assert (ward.name_of(STUDIO), ward.name_of(SEEN), ward.name_of("?")) == ("laptop", "attic", "")
    assert (await ward.sees(SEEN), await ward.sees(STUDIO)) == (True, False)
    assert ward.here().seen == 3


async def test_without_discovery_nobody_is_missed(here: Computer) -> None:
    ward = ward_of(here, None)
    assert await ward.sees(STUDIO) is None
    assert ward.places(STUDIO) == ()
    assert ward.here().browsing is None


async def test_one_that_can_not_look_misses_nobody(here: Computer) -> None:
    lookout = Lookout()
    lookout.deaf = "Address already in use"
    ward = ward_of(here, lookout)
    assert await ward.sees(SEEN) is None
    assert ward.here().browsing is False


async def test_only_a_call_after_its_last_word_proves_that_a_computer_is_there(here: Computer) -> None:
    standing, calls = Standing(), {STUDIO: 1000.0}
    now = 1020.0
    ward = OwnWard(here.trust, standing, None, Settings(None, environ={}), calls.get, lambda: now)
    assert not ward.follows(STUDIO)
    standing.lines[STUDIO] = link = FakeLink(peer_of(STUDIO))
    link.heard_at = 998.0
    assert not ward.follows(STUDIO)
    calls[STUDIO] = 1010.0
    assert ward.follows(STUDIO)
    assert not ward.follows(SEEN)
    now = 1060.0
    assert not ward.follows(STUDIO)


async def test_another_port_than_the_usual_one_is_noticed(here: Computer) -> None:
    facts = ward_of(here, Lookout(), {"QUORUM_PEER_PORT": "7500"}).here()
    assert (facts.wanted_port, facts.port) == (7500, 7412)


def test_who_holds_a_port_is_told_and_it_is_never_us() -> None:
    with socket.create_server(("127.0.0.1", 0)) as own:
        assert holder(own.getsockname()[1], "tcp") == ""
    code = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        told = holder(int(other.stdout.readline()), "tcp")
        other.communicate(b"\n")
    assert f"(process {other.pid})" in told
