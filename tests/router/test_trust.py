"""Who is paired, what they may do, how their calls are known."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import router.trust
from router.errors import QuorumError, StoreError
from router.identity import load_identity
from router.trust import authorization, clean_name, fingerprint_of, node_id_of
from tests.router.peer_kit import Computer, computer, peer_of
from tests.router.store_kit import rows

OTHER = node_id_of(bytes(range(32)))
THIRD = node_id_of(bytes(range(1, 33)))


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Computer]:
    async with computer(tmp_path / "here") as made:
        yield made


def test_a_node_id_is_its_certificates_fingerprint(tmp_path: Path) -> None:
    own = load_identity(tmp_path).node_id
    assert node_id_of(fingerprint_of(own)) == own


@pytest.mark.parametrize("text", ["", "a" * 51, "A" * 52, "1" * 52, "a" * 51 + "b", "a" * 53, "../" + "a" * 49])
def test_what_is_no_node_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="node id"):
        fingerprint_of(text)


async def test_what_was_paired_is_known_after_a_restart(tmp_path: Path) -> None:
    async with computer(tmp_path) as before:
        await before.trust.add(peer_of(OTHER, "in", may_use=True))
        kept = before.trust.get(OTHER)
    async with computer(tmp_path) as after:
        assert after.trust.peers() == (kept,)
        assert after.trust.authenticate(f"Quorum {OTHER} in") == kept


async def test_no_secret_is_in_the_database_or_in_a_repr(here: Computer) -> None:
    peer = peer_of(OTHER, "in-secret")
    await here.trust.add(peer)
    stored = str(rows(here.store.path, "SELECT * FROM nodes"))
    assert OTHER in stored
    assert "in-secret" not in stored
    assert peer.secret_out not in stored
    assert peer.secret_out not in repr(peer)


async def test_a_peer_without_its_secret_is_still_listed(tmp_path: Path) -> None:
    async with computer(tmp_path) as before:
        await before.trust.add(peer_of(OTHER))
    (tmp_path / "peers.secrets").unlink()
    async with computer(tmp_path) as after:
        assert [peer.secret_out for peer in after.trust.peers()] == [""]


# -- calls


async def test_a_call_proves_who_makes_it(here: Computer) -> None:
    await here.trust.add(peer_of(OTHER, "one"))
    await here.trust.add(peer_of(THIRD, "two"))
    found = here.trust.authenticate(f"Quorum {OTHER} one")
    assert found is not None
    assert found.node_id == OTHER


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Quorum",
        "Quorum ",
        f"Quorum {OTHER}",
        f"Quorum {OTHER} ",
        f"Quorum {OTHER} two",
        f"Quorum {OTHER} one ",
        f"Quorum  {OTHER} one",
        f"quorum {OTHER} one",
        f"Bearer {OTHER} one",
        f"Quorum {OTHER.upper()} one",
        f"Quorum {THIRD} one",
        f"Quorum {OTHER} {'x' * 100_000}",
        f"Quorum {OTHER} \udcff",
    ],
)
async def test_anything_else_proves_nothing(here: Computer, value: str) -> None:
    await here.trust.add(peer_of(OTHER, "one"))
    assert here.trust.authenticate(value) is None


async def test_secrets_are_compared_in_constant_time_also_of_strangers(
    here: Computer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await here.trust.add(peer_of(OTHER, "one"))
    compared: list[tuple[int, int]] = []

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((len(a), len(b)))
        return hmac.compare_digest(a, b)

    class Spy:
        compare_digest = staticmethod(compare)

    monkeypatch.setattr(router.trust, "hmac", Spy)
    here.trust.authenticate(f"Quorum {OTHER} wrong")
    here.trust.authenticate(f"Quorum {THIRD} wrong")
    assert compared == [(32, 32), (32, 32)]


async def test_the_header_of_one_side_is_what_the_other_knows(here: Computer) -> None:
    secret = secrets.token_hex(32)
    await here.trust.add(peer_of(OTHER, secret))
    theirs = peer_of(here.id, secret_out=secret)
    assert here.trust.authenticate(authorization(OTHER, theirs)) is not None


# -- changes


async def test_revoking_counts_before_the_disk_does_and_leaves_nothing(here: Computer) -> None:
    await here.trust.add(peer_of(OTHER, "one"))
    told: list[tuple[str, bool]] = []
    here.trust.listen(lambda node_id: told.append((node_id, here.trust.get(node_id) is not None)))
    await here.trust.revoke(OTHER)
    assert told == [(OTHER, False)]
    assert here.trust.authenticate(f"Quorum {OTHER} one") is None
    assert rows(here.store.path, "SELECT id FROM nodes") == []
    assert not (here.folder / "peers.secrets").exists()
    with pytest.raises(QuorumError, match="not paired"):
        await here.trust.revoke(OTHER)


async def test_revoking_counts_although_the_disk_fails(here: Computer) -> None:
    await here.trust.add(peer_of(OTHER, "one"))
    await here.store.close()
    with pytest.raises(StoreError):
        await here.trust.revoke(OTHER)
    assert here.trust.authenticate(f"Quorum {OTHER} one") is None


async def test_what_the_owner_set_stays_whatever_the_computer_does(tmp_path: Path) -> None:
    async with computer(tmp_path) as before:
        await before.trust.add(peer_of(OTHER))
        await before.trust.override(OTHER, own_name="  Big\nbox ", send=False)
        await before.trust.rename(OTHER, "studio 2")
        await before.trust.moved(OTHER, ["10.0.0.9"], 7500)
        await before.trust.add(peer_of(OTHER, "paired again"))
    async with computer(tmp_path) as after:
        peer = after.trust.get(OTHER)
        assert peer is not None
        assert (peer.own_name, peer.send) == ("Bigbox", False)
        await after.trust.override(OTHER, own_name=" ")
        peer = after.trust.get(OTHER)
        assert peer is not None
        assert (peer.own_name, peer.send) == ("", False)
        with pytest.raises(QuorumError, match="not paired"):
            await after.trust.override(THIRD, send=True)


async def test_grants_are_kept_and_told(here: Computer, tmp_path: Path) -> None:
    await here.trust.add(peer_of(OTHER, may_use=False))
    told: list[str] = []
    here.trust.listen(told.append)
    await here.trust.grant(OTHER, may_use=True)
    await here.trust.grant(OTHER, may_manage=True)
    await here.trust.grant(OTHER, may_manage=True)
    peer = here.trust.get(OTHER)
    assert peer is not None
    assert (peer.may_use, peer.may_manage) == (True, True)
    assert told == [OTHER, OTHER]
    [(stored,)] = rows(here.store.path, "SELECT grants_json FROM nodes")
    assert stored == '{"use":true,"manage":true}'
    with pytest.raises(QuorumError):
        await here.trust.grant(THIRD, may_use=True)


async def test_taking_a_grant_away_counts_although_the_disk_fails(here: Computer) -> None:
    await here.trust.add(peer_of(OTHER, may_use=True))
    await here.store.close()
    with pytest.raises(StoreError):
        await here.trust.grant(OTHER, may_use=False)
    peer = here.trust.get(OTHER)
    assert peer is not None
    assert not peer.may_use


async def test_an_ignored_peer_is_refused_until_that_is_taken_back(here: Computer) -> None:
    await here.trust.add(peer_of(OTHER, "one"))
    await here.trust.ignore(OTHER, True)
    assert here.trust.authenticate(f"Quorum {OTHER} one") is None
    assert here.trust.ignored(OTHER)
    await here.trust.ignore(OTHER, False)
    assert here.trust.authenticate(f"Quorum {OTHER} one") is not None


async def test_a_stranger_can_be_ignored_for_good_and_paired_later(tmp_path: Path) -> None:
    async with computer(tmp_path) as before:
        await before.trust.ignore(OTHER, True)
        await before.trust.ignore(THIRD, True)
        await before.trust.ignore(THIRD, False)
    async with computer(tmp_path) as after:
        assert after.trust.peers() == ()
        assert (after.trust.ignored(OTHER), after.trust.ignored(THIRD)) == (True, False)
        await after.trust.add(peer_of(OTHER))
        assert not after.trust.ignored(OTHER)
    with pytest.raises(ValueError, match="node id"):
        await after.trust.ignore("no id", True)


async def test_a_peer_that_moved_is_found_at_its_new_addresses(tmp_path: Path) -> None:
    async with computer(tmp_path) as before:
        await before.trust.add(peer_of(OTHER))
        await before.trust.moved(OTHER, ["10.0.0.9", "100.64.0.9"], 7413)
    async with computer(tmp_path) as after:
        peer = after.trust.get(OTHER)
        assert peer is not None
        assert (peer.addresses, peer.port) == (("10.0.0.9", "100.64.0.9"), 7413)


async def test_another_name_is_shown_and_changes_nothing_else(tmp_path: Path) -> None:
    async with computer(tmp_path) as before:
        await before.trust.add(peer_of(OTHER))
        await before.trust.rename(OTHER, "attic\n\x1b[31m" + "x" * 99)
        with pytest.raises(QuorumError):
            await before.trust.rename(THIRD, "nobody")
    async with computer(tmp_path) as after:
        peer = after.trust.get(OTHER)
        assert peer is not None
        assert (peer.name[:9], len(peer.name), peer.may_use) == ("attic[31m", 63, True)


async def test_pairing_again_replaces_the_secrets(here: Computer) -> None:
    await here.trust.add(peer_of(OTHER, "one"))
    await here.trust.add(peer_of(OTHER, "two"))
    assert len(here.trust.peers()) == 1
    assert here.trust.authenticate(f"Quorum {OTHER} one") is None
    assert here.trust.authenticate(f"Quorum {OTHER} two") is not None


async def test_another_fingerprint_is_another_computer(here: Computer) -> None:
    with pytest.raises(ValueError, match="certificate"):
        await here.trust.add(peer_of(OTHER, certificate_sha256=bytes(32)))
    await here.trust.add(peer_of(OTHER, "one", name="same name"))
    assert here.trust.authenticate(f"Quorum {THIRD} one") is None


async def test_a_listener_that_fails_stops_nobody(here: Computer) -> None:
    def fail(node_id: str) -> None:
        raise RuntimeError

    told: list[str] = []
    here.trust.listen(fail)
    here.trust.listen(told.append)
    await here.trust.add(peer_of(OTHER))
    assert told == [OTHER]


def test_names_are_one_harmless_line() -> None:
    assert clean_name("a\nb\x1b[0m\u202e" + "x" * 100) == ("ab[0m" + "x" * 100)[:63]
    assert clean_name("\n\t") == "unnamed"
