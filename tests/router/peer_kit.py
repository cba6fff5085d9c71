"""Identities, keychains and trust for tests of paired computers."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from router.aio import SystemClock
from router.identity import Identity, load_identity
from router.keychain import Keychain
from router.store import Store
from router.trust import Peer, Trust, fingerprint_of, secret_hash


def no_keyring() -> Any:
    """A system without one."""
    return None


@dataclass
class Computer:
    """One node's identity and its paired computers."""

    identity: Identity
    trust: Trust
    store: Store
    folder: Path
    name: str = "studio"

    @property
    def id(self) -> str:
        return self.identity.node_id


def _identity(folder: Path) -> Identity:
    folder.mkdir(parents=True, exist_ok=True)
    return load_identity(folder)


@asynccontextmanager
async def computer(folder: Path, name: str = "studio", keychain: Keychain | None = None) -> AsyncIterator[Computer]:
    """A node's trust on a real database in ``folder``, its secrets in a file."""
    identity = _identity(folder)
    store = Store(folder / "quorum.db")
    await store.open()
    trust = Trust(store, identity, folder, SystemClock(), keychain or Keychain(folder, identity.node_id, no_keyring))
    await trust.open()
    try:
        yield Computer(identity, trust, store, folder, name)
    finally:
        await store.close()


def peer_of(node_id: str, secret_in: str = "", **changes: Any) -> Peer:
    """A paired computer that sends ``secret_in`` and may use models."""
    given: dict[str, Any] = {
        "node_id": node_id,
        "name": "laptop",
        "certificate_sha256": fingerprint_of(node_id),
        "secret_out": secrets.token_hex(32),
        "secret_in_sha256": secret_hash(secret_in or secrets.token_hex(32)),
        "addresses": ("192.168.1.7",),
        "port": 7412,
        "may_use": True,
    }
    return Peer(**(given | changes))
