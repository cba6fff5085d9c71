"""Whom this node is paired with: each one's certificate, what it may do, and how its calls are known.

A computer is its certificate: another fingerprint is another computer. Of what a peer sends only a hash is kept, and
what is sent to it lies in the keyring. Trust is never passed on.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import msgspec
import peewee

from router.aio import Clock
from router.errors import QuorumError
from router.identity import Identity
from router.keychain import Keychain
from router.store import Store
from router.tables import Node

log = logging.getLogger(__name__)

SCHEME: Final = "Quorum"
ADDRESSES_MAX: Final = 16
NAME_MAX: Final = 63
_NODE_ID: Final = re.compile(r"[a-z2-7]{52}")
_SECRET_MAX: Final = 128
_PAIRED: Final = "paired"
_IGNORED: Final = "ignored"
_NOBODY: Final = bytes(32)

_UPSERT: Final = (
    "INSERT INTO nodes (id, name, stance, secret_hash, addresses_json, grants_json, overrides_json, record_json, "
    "created_at, paired_at) VALUES (?, ?, ?, ?, ?, ?, ?, '{}', ?, ?) ON CONFLICT (id) DO UPDATE SET "
    "name = excluded.name, stance = excluded.stance, secret_hash = excluded.secret_hash, "
    "addresses_json = excluded.addresses_json, grants_json = excluded.grants_json, "
    "overrides_json = excluded.overrides_json, paired_at = excluded.paired_at"
)


@dataclass(frozen=True, slots=True)
class Peer:
    """A paired computer. ``secret_out`` is what this node sends it; of what it sends, only the SHA-256 is known.

    ``may_use`` and ``may_manage`` are what this node allows it. An ``ignored`` one is refused until that is taken back.
    ``own_name`` (what this computer's owner calls it; empty: as it calls itself) and ``send`` (whether it gets work)
    are the owner's: nothing that it tells, no restart and no new pairing changes them.
    """

    node_id: str
    name: str
    certificate_sha256: bytes
    secret_out: str = field(repr=False)
    secret_in_sha256: bytes = field(repr=False)
    addresses: tuple[str, ...] = ()
    port: int = 7412
    may_use: bool = False
    may_manage: bool = False
    ignored: bool = False
    created_at: float = 0.0
    own_name: str = ""
    send: bool = True


class _Places(msgspec.Struct):
    addresses: list[str] = []
    port: int = 7412


class _Grants(msgspec.Struct):
    use: bool = False
    manage: bool = False


class _Overrides(msgspec.Struct, omit_defaults=True):
    name: str = ""
    send: bool = True


def fingerprint_of(node_id: str) -> bytes:
    """The SHA-256 of the certificate that a node id names. Raises ValueError when it is none."""
    if _NODE_ID.fullmatch(node_id) is None:
        raise ValueError("not a node id")
    digest = base64.b32decode(node_id.upper() + "====")
    if node_id_of(digest) != node_id:  # the last letter has bits to spare
        raise ValueError("not a node id")
    return digest


def node_id_of(fingerprint: bytes) -> str:
    """The node id of a certificate by its SHA-256."""
    return base64.b32encode(fingerprint).decode().lower().rstrip("=")


def secret_hash(secret: str) -> bytes:
    """What is kept of a secret that a peer sends. It has 256 random bits: one plain hash can't be guessed back."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def authorization(own_id: str, peer: Peer) -> str:
    """The ``Authorization`` value of calls from this node, ``own_id``, to ``peer``."""
    return f"{SCHEME} {own_id} {peer.secret_out}"


class Trust:
    """The paired computers, in memory; every change is on the disk before it is told, a revocation after."""

    def __init__(
        self, store: Store, identity: Identity, data_dir: Path, clock: Clock, keychain: Keychain | None = None
    ) -> None:
        self._store = store
        self._clock = clock
        self._keychain = keychain or Keychain(data_dir, identity.node_id)
        self._peers: dict[str, Peer] = {}
        self._ignored: set[str] = set()
        self._listeners: list[Callable[[str], None]] = []
        self._changing = asyncio.Lock()

    async def open(self) -> None:
        """Read what is stored; once, after ``Store.open``."""

        def read(db: peewee.SqliteDatabase) -> list[Any]:
            return list(Node.select().order_by(Node.created_at, Node.id).execute(db))

        rows = await self._store.run(read)
        paired = [row for row in rows if row.secret_hash is not None]
        self._ignored = {row.id for row in rows if row.secret_hash is None and row.stance == _IGNORED}
        secrets = await self._keychain.read(row.id for row in paired) if paired else {}
        for row in paired:
            try:
                self._peers[row.id] = _peer(row, secrets.get(row.id, ""))
            except (ValueError, msgspec.DecodeError):
                log.warning("the record of a paired computer can't be used; pair it again")

    def peers(self) -> tuple[Peer, ...]:
        """The paired computers, in the order of their pairing."""
        return tuple(self._peers.values())

    def get(self, node_id: str) -> Peer | None:
        """One of them."""
        return self._peers.get(node_id)

    def ignored(self, node_id: str) -> bool:
        """Whether the user wants to see nothing of a computer, paired or not."""
        peer = self._peers.get(node_id)
        return peer.ignored if peer is not None else node_id in self._ignored

    def listen(self, listener: Callable[[str], None]) -> None:
        """Call ``listener`` with the node id of each record that changed or went."""
        self._listeners.append(listener)

    # -- changes

    async def add(self, peer: Peer) -> None:
        """A computer was paired, or paired again: what was known under its id is replaced. Raises StoreError."""
        if fingerprint_of(peer.node_id) != peer.certificate_sha256:
            raise ValueError("the node id is not that of the certificate")
        peer = replace(
            peer,
            name=clean_name(peer.name),
            addresses=tuple(peer.addresses)[:ADDRESSES_MAX],
            created_at=peer.created_at or self._clock.wall(),
        )
        async with self._changing:
            if (old := self._peers.get(peer.node_id)) is not None:
                peer = replace(peer, own_name=old.own_name, send=old.send)
            await self._keychain.put(peer.node_id, peer.secret_out)
            await self._write(peer)
            self._ignored.discard(peer.node_id)
            self._put(peer)

    async def revoke(self, node_id: str) -> None:
        """From now on its calls are refused and what runs for it is cut; row and secrets go.

        Raises QuorumError (not_found), and StoreError when the row can't be deleted: then it is back after a restart.
        """
        if self._peers.pop(node_id, None) is None:
            raise _unknown()
        self._tell(node_id)
        await self._store.commit("DELETE FROM nodes WHERE id = ?", (node_id,))
        try:
            await self._keychain.drop(node_id)
        except OSError as error:
            log.warning("the secret of a computer that was unpaired is still there: %s", error.strerror)

    async def grant(self, node_id: str, *, may_use: bool | None = None, may_manage: bool | None = None) -> None:
        """Change what a computer may do here; None leaves as it is. Raises QuorumError (not_found), StoreError."""
        grants = {"may_use": may_use, "may_manage": may_manage}
        await self._change(node_id, **{name: value for name, value in grants.items() if value is not None})

    async def ignore(self, node_id: str, ignored: bool) -> None:
        """Show and serve a computer no more, or again. One that isn't paired is remembered, too. Raises StoreError."""
        if node_id in self._peers:
            await self._change(node_id, ignored=ignored)
            return
        fingerprint_of(node_id)
        if ignored:
            now = self._clock.wall()
            await self._store.commit(_UPSERT, (node_id, "", _IGNORED, None, "{}", "{}", "{}", now, None))
            self._ignored.add(node_id)
        else:
            await self._store.commit("DELETE FROM nodes WHERE id = ? AND secret_hash IS NULL", (node_id,))
            self._ignored.discard(node_id)
        self._tell(node_id)

    async def override(self, node_id: str, *, own_name: str | None = None, send: bool | None = None) -> None:
        """What this computer's owner calls it, and whether it gets work. Raises QuorumError (not_found), StoreError."""
        given: dict[str, Any] = {} if send is None else {"send": send}
        if own_name is not None:
            given["own_name"] = clean_name(own_name) if own_name.strip() else ""
        await self._change(node_id, **given)

    async def moved(self, node_id: str, addresses: Sequence[str], port: int) -> None:
        """A computer proved itself at other addresses. Raises QuorumError (not_found), StoreError."""
        await self._change(node_id, addresses=tuple(addresses)[:ADDRESSES_MAX], port=port)

    async def rename(self, node_id: str, name: str) -> None:
        """A computer has another name now, which is shown. Raises QuorumError (not_found), StoreError."""
        await self._change(node_id, name=clean_name(name))

    async def _change(self, node_id: str, **fields: Any) -> None:
        async with self._changing:
            old = self._peers.get(node_id)
            if old is None:
                raise _unknown()
            new = replace(old, **fields)
            if old == new:
                return
            if _less(old, new):  # a refusal counts at once, whatever the disk does
                self._put(new)
                await self._write(new)
                return
            await self._write(new)
            if self._peers.get(node_id) is old:
                self._put(new)

    def _put(self, peer: Peer) -> None:
        self._peers[peer.node_id] = peer
        self._tell(peer.node_id)

    async def _write(self, peer: Peer) -> None:
        row = (
            peer.node_id,
            peer.name,
            _IGNORED if peer.ignored else _PAIRED,
            peer.secret_in_sha256.hex(),
            msgspec.json.encode(_Places(list(peer.addresses), peer.port)).decode(),
            msgspec.json.encode(_Grants(peer.may_use, peer.may_manage)).decode(),
            msgspec.json.encode(_Overrides(peer.own_name, peer.send)).decode(),
            peer.created_at,
            peer.created_at,
        )
        await self._store.commit(_UPSERT, row)

    def _tell(self, node_id: str) -> None:
        for listener in self._listeners:
            try:
                listener(node_id)
            except Exception:
                log.exception("a listener of the paired computers failed")

    # -- calls

    def authenticate(self, authorization: str) -> Peer | None:
        """The paired computer that an ``Authorization`` value proves, or None. The secret is compared in constant time.

        A computer that isn't known is compared, too, so that time doesn't tell who is paired.
        """
        scheme, _, rest = authorization.partition(" ")
        node_id, _, secret = rest.partition(" ")
        if scheme != SCHEME or len(secret) > _SECRET_MAX:
            return None
        peer = self._peers.get(node_id)
        same = hmac.compare_digest(secret_hash(secret), peer.secret_in_sha256 if peer is not None else _NOBODY)
        return peer if same and peer is not None and not peer.ignored else None


def clean_name(name: str) -> str:
    """A peer's name as it may be shown: printable, at most 63 characters."""
    return "".join(letter for letter in name if letter.isprintable()).strip()[:NAME_MAX] or "unnamed"


def _less(old: Peer, new: Peer) -> bool:
    """Whether ``new`` may do less here than ``old``."""
    return (
        (old.may_use and not new.may_use)
        or (old.may_manage and not new.may_manage)
        or (new.ignored and not old.ignored)
    )


def _peer(row: Any, secret: str) -> Peer:
    places = msgspec.json.decode(row.addresses_json, type=_Places)
    grants = msgspec.json.decode(row.grants_json, type=_Grants)
    own = msgspec.json.decode(row.overrides_json, type=_Overrides)
    return Peer(
        node_id=row.id,
        name=row.name,
        certificate_sha256=fingerprint_of(row.id),
        secret_out=secret,
        secret_in_sha256=bytes.fromhex(row.secret_hash),
        addresses=tuple(places.addresses),
        port=places.port,
        may_use=grants.use,
        may_manage=grants.manage,
        ignored=row.stance == _IGNORED,
        created_at=row.created_at,
        own_name=own.name,
        send=own.send,
    )


def _unknown() -> QuorumError:
    return QuorumError("not_found", "This computer is not paired.", "'quorum peers' lists the paired ones.")
