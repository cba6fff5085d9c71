"""Answering on the network: while the setting ``listen_lan`` is on, a socket at every LAN address of this computer."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Callable, Iterable
from typing import Final

import psutil

from router.aio import Tasks
from router.settings import Settings
from router.web.hosts import is_loopback, is_wildcard
from router.web.server import Listener

log = logging.getLogger(__name__)

LOOK_S: Final = 15.0


def lan_addresses() -> list[str]:
    """The addresses at which other computers of the same networks reach this one: private, shared and VPN ranges.

    Never public ones, nor addresses that need a scope.
    """
    found = [
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family in (socket.AF_INET, socket.AF_INET6)
    ]
    return sorted(filter(is_lan, set(found)))


def is_lan(text: str) -> bool:
    """Whether ``text`` is an address that only the neighbourhood can reach, and not only this computer."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False  # with a scope: no client writes that into an address
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return False
    outside = address.is_global or address.is_multicast or address.is_unspecified
    return not (outside or address.is_loopback or address.is_link_local or address == _BROADCAST)


_BROADCAST: Final = ipaddress.ip_address("255.255.255.255")


class Network:
    """Follows the setting and the addresses of this computer, which come and go."""

    def __init__(
        self,
        listener: Listener,
        settings: Settings,
        changed: Callable[[], None],
        addresses: Callable[[], Iterable[str]] = lan_addresses,
    ) -> None:
        self.refused: list[str] = []
        self._listener = listener
        self._settings = settings
        self._changed = changed
        self._addresses = addresses
        self._held: set[str] = set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        settings.listen(self._settings_changed)

    @property
    def addresses(self) -> list[str]:
        """Where other computers reach this one now, also by ``also_listen``: base addresses as programs want them."""
        outside = sorted(
            (host, port) for host, port in self._listener.addresses if not (is_loopback(host) or is_wildcard(host))
        )
        return [f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}" for host, port in outside]

    def _settings_changed(self, names: frozenset[str]) -> None:
        if "listen_lan" in names:
            self._wake.set()

    async def start(self, tasks: Tasks) -> None:
        """Listen where the setting says so, and go on following it."""
        await self.look()
        self._task = tasks.spawn("network", self._follow())

    async def stop(self) -> None:
        """Follow no more; the listener closes its sockets itself."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self) -> None:
        while True:
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            if await self.look():
                self._changed()

    async def look(self) -> bool:
        """Open and close sockets as it should be; whether anything is other than before."""
        before = (set(self._held), self.refused)
        wanted = set(await asyncio.to_thread(self._addresses)) if self._settings["listen_lan"] else set()
        port = self._listener.port
        for host in self._held - wanted:
            await self._listener.remove(host, port)
            self._held.discard(host)
        refused = []
        for host in sorted(wanted - {host for host, at in self._listener.addresses if at == port}):
            try:
                await self._listener.add(host, port)
                self._held.add(host)
            except OSError as error:
                refused.append(f"Port {port} can't be had at {host}: {error.strerror}.")
        for sentence in set(refused) - set(self.refused):
            log.warning("%s", sentence)
        self.refused = refused
        return before != (self._held, refused)
