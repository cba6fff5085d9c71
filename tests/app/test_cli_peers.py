"""``peers``, ``pair`` and ``unpair`` against the real routes with computers in memory."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from router.pairing_call import PairingError
from router.states import PeerState
from router.wire_peers import JoinPairing, PairingAnswer
from tests.app.serving import ROOT, environment
from tests.fakes import BOUND_S
from tests.router.web.peers_kit import LAPTOP, SEEN, STUDIO, FakePeers, peer, served

COMMAND_S = 6 * BOUND_S
NAMES = ("studio", "laptop", "attic")


@pytest.fixture
async def peers(tmp_path: Path) -> AsyncIterator[FakePeers]:
    fake = FakePeers()
    async with served(fake, tmp_path / "data"):
        yield fake


async def spawn(folder: Path, *words: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app", *words, "--data-dir", str(folder / "data")),
        cwd=ROOT,
        env=environment(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def ended(process: asyncio.subprocess.Process, stdin: str = "") -> tuple[int, str, str]:
    async with asyncio.timeout(COMMAND_S):
        out, err = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def quorum(folder: Path, *words: str, stdin: str = "") -> tuple[int, str, str]:
    return await ended(await spawn(folder, *words), stdin)


async def opened(process: asyncio.subprocess.Process) -> str:
    """The line with the digits; from then on somebody may type them."""
    assert process.stdout is not None
    async with asyncio.timeout(COMMAND_S):
        return (await process.stdout.readline()).decode().strip()


async def test_the_list_says_who_is_there_and_what_is_wrong(tmp_path: Path, peers: FakePeers) -> None:
    code, out, _ = await quorum(tmp_path, "peers")

    assert code == 0
    studio, laptop, attic = (next(line for line in out.splitlines() if line.startswith(name)) for name in NAMES)
    assert ("healthy" in studio, "1/4" in studio, "llama, qwen" in studio, "2.0 ms" in studio) == (True,) * 4
    assert "It was last seen an hour ago." in laptop
    assert "not paired" in attic


async def test_why_a_computer_is_no_help_now_is_told(tmp_path: Path, peers: FakePeers) -> None:
    peers.peers[STUDIO] = peer(STUDIO, "studio", granted=False)
    peers.peers[LAPTOP] = peer(LAPTOP, "laptop", state=PeerState.OFFLINE, reason="It is asleep.", heard_at=1.0)
    peers.peers["d" * 52] = peer("d" * 52, "den", shared=False)
    _, out, err = await quorum(tmp_path, "peers")
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert lines["studio"].endswith("It does not let this computer use its models.")
    assert lines["den"].endswith("It does not share its models.")
    assert "It is asleep. Last heard of " in lines["laptop"]
    assert "quorum doctor" in err


async def test_the_list_as_json_is_what_the_node_tells(tmp_path: Path, peers: FakePeers) -> None:
    code, out, _ = await quorum(tmp_path, "peers", "--json")

    assert code == 0
    assert [one["id"] for one in json.loads(out)] == [STUDIO, LAPTOP, SEEN]


async def test_a_list_of_none_says_how_to_pair(tmp_path: Path, peers: FakePeers) -> None:
    peers.peers.clear()
    assert "quorum pair" in (await quorum(tmp_path, "peers"))[1]


async def test_a_name_with_an_escape_does_not_steer_the_terminal(tmp_path: Path, peers: FakePeers) -> None:
    peers.peers = {STUDIO: peer(STUDIO, "\x1b[2Jstudio")}
    assert "\x1b" not in (await quorum(tmp_path, "peers"))[1]


async def test_the_digits_are_shown_and_the_user_is_asked_once_for_each_direction(
    tmp_path: Path, peers: FakePeers
) -> None:
    process = await spawn(tmp_path, "pair")
    assert await opened(process) == "042 137"
    peers.become(state="asking", peer_name="attic")
    code, out, err = await ended(process, "y\nno\n")

    assert code == 0, err
    assert "Paired with attic." in out
    assert "quorum pair 042137@192.168.1.20" in err
    assert "within 2 min:" in err
    assert "attic typed the right digits" in err
    assert "use this computer's models?" in err
    assert peers.answers == [PairingAnswer(accept=True, may_use=False)]


async def test_yes_accepts_without_a_question(tmp_path: Path, peers: FakePeers) -> None:
    process = await spawn(tmp_path, "pair", "--yes")
    await opened(process)
    peers.become(state="asking", peer_name="attic")
    code, _, err = await ended(process)

    assert (code, "typed the right digits" in err) == (0, False)
    assert peers.answers == [PairingAnswer(accept=True, may_use=True)]


async def test_no_answer_is_no(tmp_path: Path, peers: FakePeers) -> None:
    process = await spawn(tmp_path, "pair")
    await opened(process)
    peers.become(state="asking", peer_name="attic")
    code, _, err = await ended(process)

    assert (code, "You declined." in err) == (1, True)
    assert not peers.answers[0].accept


async def test_digits_that_ran_out_are_exit_code_1(tmp_path: Path, peers: FakePeers) -> None:
    process = await spawn(tmp_path, "pair")
    await opened(process)
    peers.become(state="failed", detail="Nobody typed the code in time.")
    code, _, err = await ended(process)

    assert (code, "Nobody typed the code in time." in err) == (1, True)


async def test_with_json_the_digits_and_the_end_are_one_line_each(tmp_path: Path, peers: FakePeers) -> None:
    process = await spawn(tmp_path, "pair", "--yes", "--json")
    assert json.loads(await opened(process))["code"] == "042137"
    peers.become(state="asking", peer_name="attic")
    code, out, _ = await ended(process)

    assert code == 0
    assert json.loads(out)["peer_id"] == SEEN


@pytest.mark.parametrize(
    ("typed", "address"),
    [
        ("123456@10.0.0.2", "10.0.0.2"),
        ("123-456@studio.local:7500", "studio.local:7500"),
        ("123 456@[fd00::2]", "[fd00::2]"),
    ],
)
async def test_the_invitation_is_taken_as_people_write_it(
    tmp_path: Path, peers: FakePeers, typed: str, address: str
) -> None:
    code, out, err = await quorum(tmp_path, "pair", typed)

    assert code == 0, err
    assert "Paired with studio" in out
    assert peers.joins == [JoinPairing(code="123456", address=address)]


async def test_no_share_keeps_the_own_models(tmp_path: Path, peers: FakePeers) -> None:
    assert (await quorum(tmp_path, "pair", "123456@10.0.0.2", "--no-share"))[0] == 0
    assert not peers.joins[0].may_use


async def test_a_wrong_code_is_exit_code_1_with_its_reason(tmp_path: Path, peers: FakePeers) -> None:
    peers.refusal = PairingError("The code is wrong.")
    code, out, err = await quorum(tmp_path, "pair", "123456@10.0.0.2")

    assert (code, out, "The code is wrong." in err) == (1, "", True)


@pytest.mark.parametrize("word", ["laptop", "LAPTOP", LAPTOP, LAPTOP[:12]])
async def test_a_computer_is_unpaired_by_name_or_id(tmp_path: Path, peers: FakePeers, word: str) -> None:
    code, out, err = await quorum(tmp_path, "unpair", word)

    assert code == 0, err
    assert "laptop is no longer paired" in out
    assert LAPTOP not in peers.peers


async def test_who_is_not_paired_can_not_be_unpaired(tmp_path: Path, peers: FakePeers) -> None:
    code, _, err = await quorum(tmp_path, "unpair", "attic")
    assert (code, "No paired computer is called 'attic'." in err) == (1, True)


async def test_one_name_of_two_needs_the_id(tmp_path: Path, peers: FakePeers) -> None:
    peers.peers[LAPTOP] = peer(LAPTOP, "studio")
    code, _, err = await quorum(tmp_path, "unpair", "studio")
    assert (code, "Give the id" in err, len(peers.peers)) == (1, True, 3)


@pytest.mark.parametrize("words", [("pair", "12345@host"), ("pair", "123456"), ("pair", "123456@"), ("unpair",)])
async def test_wrong_usage_is_exit_code_2(tmp_path: Path, words: tuple[str, ...]) -> None:
    assert (await quorum(tmp_path, *words))[0] == 2


@pytest.mark.parametrize("words", [("peers",), ("pair",), ("unpair", "studio")])
async def test_without_a_node_it_is_exit_code_3(tmp_path: Path, words: tuple[str, ...]) -> None:
    assert (await quorum(tmp_path, *words))[0] == 3
