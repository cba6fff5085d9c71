"""Which values of ``Host`` and ``Origin`` are ours, read from the settings and the addresses in use."""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from router.settings import Settings

log = logging.getLogger(__name__)

_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[A-Za-z0-9._:\[\]-]+")
_NAME: Final = re.compile(r"(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::\d{1,5})?")
_PORT: Final = re.compile(r":\d{1,5}$")


@dataclass(frozen=True, slots=True)
class Allowed:
    """What the guard compares with. ``hosts`` are whole Host values in lower case; ``wildcard`` means that one socket
    answers at every address of this computer."""

    hosts: frozenset[str]
    origins: frozenset[str]
    require_key: bool
    wildcard: bool


def allowed(settings: Settings, addresses: Iterable[tuple[str, int]]) -> Allowed:
    """The form of the settings that ``Guard.check`` needs; entries that can't be right are left out and logged."""
    extra = [name.lower() for name in _words(settings["hosts"])]
    origins = [origin.rstrip("/") for origin in _words(settings["origins"])]
    for name, found, good in (("hosts", extra, _NAME), ("origins", origins, _ORIGIN)):
        if not all(good.fullmatch(entry) for entry in found):
            log.warning("the setting '%s' has an entry that can't be used; it is ignored", name)
    extra = [name for name in extra if _NAME.fullmatch(name)]
    hosts = {name for name in extra if _has_port(name)}
    wildcard = False
    for host, port in addresses:
        names = [name for name in extra if not _has_port(name)]
        if is_wildcard(host):
            wildcard = True
        else:
            names.append(f"[{host}]" if ":" in host else host.lower())
        if is_wildcard(host) or is_loopback(host):
            names += ["localhost", "127.0.0.1", "[::1]"]
        hosts.update(f"{name}:{port}" for name in names)
        if port == 80:
            hosts.update(names)
    return Allowed(
        hosts=frozenset(hosts),
        origins=frozenset(origin for origin in origins if _ORIGIN.fullmatch(origin)),
        require_key=bool(settings["require_key"]),
        wildcard=wildcard,
    )


def is_loopback(host: str) -> bool:
    """Whether ``host`` (an address or ``localhost``) is this computer's loopback."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def is_wildcard(host: str) -> bool:
    """Whether ``host`` stands for every address of this computer."""
    return host in ("0.0.0.0", "::", "")  # noqa: S104 - compared, not bound


def _words(value: str) -> list[str]:
    return [word.strip() for word in value.split(",") if word.strip()]


def _has_port(name: str) -> bool:
    return _PORT.search(name) is not None
