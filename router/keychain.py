"""What this node sends to paired computers to be known: in the keyring of the system where there is one, else a file.

Never in the database, which may be copied or sent in a report.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from router.identity import write_private

log = logging.getLogger(__name__)

T = TypeVar("T")

SERVICE: Final = "Quorum"
FILE_NAME: Final = "peers.secrets"
PATIENCE_S: Final = 5.0  # a locked keyring may ask its user, who may be away


class Keychain:
    """Secrets by node id. ``owner`` tells several data folders of one user apart; ``keyring`` replaces the system's."""

    def __init__(self, data_dir: Path, owner: str, keyring: Callable[[], Any] | None = None) -> None:
        self._path = data_dir / FILE_NAME
        self._owner = owner
        self._find = keyring or _system_keyring
        self._keyring: Any = None
        self._looked = False
        self._lock = asyncio.Lock()

    async def read(self, node_ids: Iterable[str]) -> dict[str, str]:
        """The secrets of ``node_ids``; one that can't be had is left out."""
        found = await asyncio.to_thread(self._read_file)
        secrets = {}
        for node_id in node_ids:
            secret = found.get(node_id)
            if secret is None and await self._open():
                secret = await self._ask(partial(_read_ring, user=self._user(node_id)))
            if secret:
                secrets[node_id] = secret
            else:
                log.warning("the secret for a paired computer can't be read; pair it again")
        return secrets

    async def put(self, node_id: str, secret: str) -> None:
        """Keep ``secret``. Raises OSError when neither the keyring nor the file takes it."""
        async with self._lock:
            if await self._open():
                user = self._user(node_id)

                def keep(ring: Any) -> bool:
                    ring.set_password(SERVICE, user, secret)
                    return bool(ring.get_password(SERVICE, user) == secret)

                if await self._ask(keep):
                    await asyncio.to_thread(self._change_file, node_id, None)
                    return
            await asyncio.to_thread(self._change_file, node_id, secret)

    async def drop(self, node_id: str) -> None:
        """Forget the secret, wherever it is."""
        async with self._lock:
            await asyncio.to_thread(self._change_file, node_id, None)
            if await self._open():
                user = self._user(node_id)

                def forget(ring: Any) -> None:
                    if ring.get_password(SERVICE, user) is not None:
                        ring.delete_password(SERVICE, user)

                await self._ask(forget)

    def _user(self, node_id: str) -> str:
        return f"{self._owner[:16]}/{node_id}"

    async def _open(self) -> bool:
        """Whether the system has a keyring; looked for when first needed, as its import takes a while."""
        if not self._looked:
            self._looked = True
            self._keyring = await _in_thread(self._find)
        return self._keyring is not None

    async def _ask(self, act: Callable[[Any], T]) -> T | None:
        """``act`` on the keyring; None when it fails or doesn't answer."""
        return await _in_thread(lambda: act(self._keyring))

    def _read_file(self) -> dict[str, str]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, str])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError, ValueError) as error:
            log.warning("the file of secrets can't be read: %s", type(error).__name__)
            return {}

    def _change_file(self, node_id: str, secret: str | None) -> None:
        before = self._read_file()
        after = {name: value for name, value in before.items() if name != node_id}
        if secret is not None:
            after[node_id] = secret
        if after == before:
            return
        if after:
            write_private(self._path, msgspec.json.encode(after))
        else:
            self._path.unlink(missing_ok=True)


def _read_ring(ring: Any, user: str) -> str | None:
    found = ring.get_password(SERVICE, user)
    return None if found is None else str(found)


def _system_keyring() -> Any:
    """The keyring of this user's session; None where there is none, or only one that keeps plain text."""
    import keyring

    ring = keyring.get_keyring()
    return ring if ring.priority >= 1 else None


async def _in_thread(act: Callable[[], T]) -> T | None:
    """``act`` in a thread of its own, at most 5 s: a keyring that waits for its user must not hold up the exit."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T | None] = loop.create_future()

    def settle(result: T | None) -> None:
        if not done.done():
            done.set_result(result)

    def work() -> None:
        result = None
        try:
            result = act()
        except Exception as error:  # each keyring has its own
            log.warning("the keyring of the system failed: %s", type(error).__name__)
        try:
            loop.call_soon_threadsafe(settle, result)
        except RuntimeError:
            log.debug("the keyring answered after the end")

    threading.Thread(target=work, name="keyring", daemon=True).start()
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await done
    except TimeoutError:
        log.warning("the keyring of the system does not answer")
        return None
