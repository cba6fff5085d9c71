"""``doctor`` against the real routes with computers in memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from router.errors import QuorumError
from router.wire_peers import Finding, Level
from tests.app.test_cli_peers import peers as peers
from tests.app.test_cli_peers import quorum
from tests.router.web.peers_kit import LAPTOP, STUDIO, FakePeers, peer

CHANGED = Finding(
    id=LAPTOP,
    name="laptop",
    level=Level.BAD,
    code="changed",
    sentence="At 10.0.0.2:7412 another certificate is shown than that of laptop.",
    hint="If Quorum was set up anew there, pair again.",
)


async def test_all_green_is_told_in_one_line_each_and_is_success(tmp_path: Path, peers: FakePeers) -> None:
    code, out, _ = await quorum(tmp_path, "doctor")

    assert code == 0
    assert out.splitlines() == ["ok    This computer is announced.", "ok    studio is fine.", "ok    laptop is fine."]


async def test_what_is_wrong_is_told_with_what_to_do_and_is_failure(tmp_path: Path, peers: FakePeers) -> None:
    peers.findings[LAPTOP] = CHANGED
    code, out, _ = await quorum(tmp_path, "doctor")

    assert code == 1
    assert out.splitlines()[2:] == [f"BAD   {CHANGED.sentence}", f"      {CHANGED.hint}"]


async def test_one_computer_is_looked_at_by_its_name(tmp_path: Path, peers: FakePeers) -> None:
    peers.findings[LAPTOP] = CHANGED
    code, _, _ = await quorum(tmp_path, "doctor", "Studio")
    unknown, _, err = await quorum(tmp_path, "doctor", "nobody")

    assert (code, peers.examined) == (0, [STUDIO])
    assert (unknown, "No paired computer is called 'nobody'." in err) == (1, True)


async def test_a_computer_is_followed_to_the_address_given(tmp_path: Path, peers: FakePeers) -> None:
    code, _, _ = await quorum(tmp_path, "doctor", "studio", "--at", "10.0.0.9")
    assert (code, peers.peers[STUDIO].addresses, peers.examined) == (0, ["10.0.0.9"], [STUDIO])
    code, _, err = await quorum(tmp_path, "doctor", "--at", "10.0.0.9")
    assert (code, "Whose address is that?" in err) == (1, True)
    peers.refusal = QuorumError("peer_failed", "Another computer than studio answers there.")
    code, _, err = await quorum(tmp_path, "doctor", "studio", "--at", "10.0.0.9")
    assert (code, "Another computer than studio answers there." in err) == (1, True)


async def test_the_report_as_json_is_what_the_node_tells(tmp_path: Path, peers: FakePeers) -> None:
    peers.findings[LAPTOP] = CHANGED
    code, out, _ = await quorum(tmp_path, "doctor", "--json")

    told = json.loads(out)
    assert (code, told["green"], [one["code"] for one in told["peers"]]) == (1, False, ["good", "changed"])


async def test_two_of_one_name_are_told_apart(tmp_path: Path, peers: FakePeers) -> None:
    peers.peers[LAPTOP] = peer(LAPTOP, "studio")
    _, out, _ = await quorum(tmp_path, "doctor")
    assert [line.rpartition(" ")[2] for line in out.splitlines()[1:]] == [f"[{STUDIO[:8]}]", f"[{LAPTOP[:8]}]"]


async def test_without_a_paired_computer_it_says_how_to_pair(tmp_path: Path, peers: FakePeers) -> None:
    peers.peers.clear()
    code, out, _ = await quorum(tmp_path, "doctor")
    assert (code, "quorum pair" in out) == (0, True)


@pytest.mark.usefixtures("peers")
async def test_no_node_is_an_exit_code_of_its_own(tmp_path: Path) -> None:
    assert (await quorum(tmp_path / "elsewhere", "doctor"))[0] == 3
