"""Secrets for paired computers: in the keyring where there is one, else in a private file; never lost, never open."""

from __future__ import annotations

import asyncio
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

import router.keychain
from router.keychain import FILE_NAME, SERVICE, Keychain
from tests.router.peer_kit import no_keyring


class Ring:
    """A keyring in memory that may fail."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], str] = {}
        self.broken = False

    def _check(self) -> None:
        if self.broken:
            raise RuntimeError("locked")

    def get_password(self, service: str, user: str) -> str | None:
        self._check()
        return self.kept.get((service, user))

    def set_password(self, service: str, user: str, secret: str) -> None:
        self._check()
        self.kept[service, user] = secret

    def delete_password(self, service: str, user: str) -> None:
        self._check()
        del self.kept[service, user]


def chain(folder: Path, ring: Any = None) -> Keychain:
    return Keychain(folder, "owner", (lambda: ring) if ring is not None else no_keyring)


async def test_with_a_keyring_no_file_is_written(tmp_path: Path) -> None:
    ring = Ring()
    await chain(tmp_path, ring).put("peer", "s3cret")
    assert ring.kept == {(SERVICE, "owner/peer"): "s3cret"}
    assert not (tmp_path / FILE_NAME).exists()
    assert await chain(tmp_path, ring).read(["peer", "other"]) == {"peer": "s3cret"}


async def test_without_a_keyring_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    await chain(tmp_path).put("peer", "s3cret")
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600
    assert await chain(tmp_path).read(["peer"]) == {"peer": "s3cret"}


async def test_a_locked_keyring_leaves_the_file(tmp_path: Path) -> None:
    ring = Ring()
    ring.broken = True
    keys = chain(tmp_path, ring)
    await keys.put("peer", "s3cret")
    assert await keys.read(["peer"]) == {"peer": "s3cret"}
    ring.broken = False
    await keys.put("peer", "newer")
    assert ring.kept == {(SERVICE, "owner/peer"): "newer"}
    assert not (tmp_path / FILE_NAME).exists()


async def test_a_keyring_that_waits_for_its_user_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router.keychain, "PATIENCE_S", 0.05)
    go_on = threading.Event()

    class Asking(Ring):
        def set_password(self, service: str, user: str, secret: str) -> None:
            go_on.wait(10)

    async with asyncio.timeout(5):
        await chain(tmp_path, Asking()).put("peer", "s3cret")
    go_on.set()
    assert await chain(tmp_path).read(["peer"]) == {"peer": "s3cret"}


@pytest.mark.parametrize("with_ring", [True, False])
async def test_a_dropped_secret_is_nowhere(tmp_path: Path, with_ring: bool) -> None:
    ring = Ring() if with_ring else None
    keys = chain(tmp_path, ring)
    await keys.put("peer", "s3cret")
    await keys.put("other", "kept")
    await keys.drop("peer")
    assert await keys.read(["peer", "other"]) == {"other": "kept"}
    await keys.drop("peer")


async def test_a_damaged_file_means_pairing_again_not_a_crash(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"{")
    assert await chain(tmp_path).read(["peer"]) == {}


def test_a_keyring_that_keeps_plain_text_or_nothing_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    import keyring
    import keyring.backends.fail

    monkeypatch.setattr(keyring, "get_keyring", keyring.backends.fail.Keyring)
    assert router.keychain._system_keyring() is None


async def test_no_keyring_is_looked_for_while_nobody_is_paired(tmp_path: Path) -> None:
    def refuse() -> Any:
        raise AssertionError("looked")

    assert await Keychain(tmp_path, "owner", refuse).read([]) == {}
