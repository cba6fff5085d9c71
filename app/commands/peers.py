"""``peers``, ``pair`` and ``unpair``: the other computers, and how one becomes one of them."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from app.client import Client, CommandError, ServerEvent
from app.commands.output import clean, complain, say, say_json, size, span, table

JOIN_S = 150.0  # the other computer's user has two minutes to answer
_STATES = {"discovered": "not paired", "pending": "being paired"}


def peers(client: Client, arguments: argparse.Namespace) -> int:
    """The paired computers and those seen in the network."""
    found = client.call("GET", "/local/v1/peers")
    if arguments.json:
        say_json(found)
        return 0
    shown = [peer for peer in found if not peer["ignored"]]
    if not shown:
        say("No other computers yet. Run 'quorum pair' on one and 'quorum pair CODE@HOST' on the other.")
        return 0
    rows = [
        [
            peer["name"],
            peer["id"][:12],
            _STATES.get(peer["state"], peer["state"]),
            f"{peer['in_flight']}/{peer['width']}" if peer["width"] else "",
            _memory(peer["ram_free_bytes"], peer["ram_total_bytes"]),
            _memory(peer["vram_free_bytes"], peer["vram_total_bytes"]),
            f"{peer['latency_s'] * 1000:.1f} ms" if peer["latency_s"] is not None else "",
            ", ".join(peer["models"]),
            _allowed(peer),
            _why(peer),
        ]
        for peer in shown
    ]
    if any(peer["state"] in ("unhealthy", "offline") for peer in shown):
        complain("'quorum doctor' says why a computer is not reached.")
    head = ["COMPUTER", "ID", "STATE", "BUSY", "MEMORY", "VRAM", "AWAY", "MODELS", "MAY", "WHY"]
    for line in table(head, rows, right=frozenset({3, 6})):
        say(line)
    return 0


def _why(peer: dict[str, Any]) -> str:
    """Why it is not, or can't be, what one expects of it."""
    if peer["state"] in ("healthy", "draining") and not peer["shared"]:
        return f"{peer['reason']} It does not share its models.".strip()
    if peer["state"] in ("healthy", "draining") and not peer["granted"]:
        return f"{peer['reason']} It does not let this computer use its models.".strip()
    if peer["state"] in ("unhealthy", "offline") and peer["heard_at"] is not None:
        return f"{peer['reason']} Last heard of {span(max(0.0, time.time() - peer['heard_at']))} ago.".strip()
    return str(peer["reason"])


def _memory(free: int, total: int) -> str:
    return f"{size(free)} of {size(total)}" if total else ""


def _allowed(peer: dict[str, Any]) -> str:
    if not peer["paired"]:
        return ""
    words = [word for word in ("use", "manage") if peer[f"may_{word}"]]
    return ", ".join(words) or "nothing"


def pair(client: Client, arguments: argparse.Namespace) -> int:
    """Open pairing here, or join the computer that shows the digits."""
    if arguments.invitation:
        return _join(client, arguments)
    # The stream is opened first: an answer between the two calls would otherwise be missed.
    events = client.events()
    next(events, None)
    opened = client.call("POST", "/local/v1/pairing/open", {})
    _show(client, opened, arguments)
    try:
        return _wait(client, events, arguments)
    except KeyboardInterrupt:
        with suppress(CommandError):
            client.call("POST", "/local/v1/pairing/close", {})
        raise


def _show(client: Client, opened: dict[str, Any], arguments: argparse.Namespace) -> None:
    """The digits; with ``--json`` as the first of two lines of JSON."""
    if arguments.json:
        say(json.dumps(opened))
        return
    say(f"{opened['code'][:3]} {opened['code'][3:]}")
    left = span(float(round(max(0.0, (opened["until_at"] or 0) - time.time()))))
    complain(
        f"Type these digits on the other computer within {left}: on its Peers page, or as",
        f"  quorum pair {opened['code']}@{(opened['addresses'] or ['HOST'])[0]}",
    )


def _wait(client: Client, events: Iterator[ServerEvent], arguments: argparse.Namespace) -> int:
    asked = False
    for event in events:
        if event.name not in ("snapshot", "change"):
            continue
        pairing = json.loads(event.data).get("pairing")
        match (pairing or {}).get("state"):
            case "asking" if not asked:
                asked = True
                client.call("POST", "/local/v1/pairing/answer", _decide(pairing["peer_name"], arguments))
            case "paired":
                if arguments.json:
                    say(json.dumps(pairing))
                else:
                    say(f"Paired with {clean(pairing['peer_name'])}.")
                return 0
            case "failed" | "closed":
                raise CommandError(
                    pairing["detail"] or "Pairing was closed.", "Run 'quorum pair' again for new digits."
                )
    raise CommandError("Quorum stopped before a computer was paired.", "Start it and run 'quorum pair' again.")


def _decide(name: str, arguments: argparse.Namespace) -> dict[str, bool]:
    """What to answer the computer that typed the right digits."""
    if arguments.yes:
        return {"accept": True, "may_use": not arguments.no_share}
    shown = clean(name)
    if not _asks(f"{shown} typed the right digits. Pair with it?"):
        return {"accept": False, "may_use": False}
    may_use = not arguments.no_share and _asks(f"Let {shown} use this computer's models?")
    return {"accept": True, "may_use": may_use}


def _asks(question: str) -> bool:
    """A question on the terminal; no answer is no."""
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _join(client: Client, arguments: argparse.Namespace) -> int:
    code, address = arguments.invitation
    body = {"code": code, "address": address, "may_use": not arguments.no_share}
    if not arguments.json:
        complain(f"Asking {address}. Its user may have to accept.")
    with client.open("POST", "/local/v1/pairing/join", body, timeout_s=JOIN_S) as response:
        peer = json.loads(response.read())
    if arguments.json:
        say_json(peer)
    else:
        say(f"Paired with {clean(peer['name'])} ({peer['id'][:12]}).")
    return 0


def unpair(client: Client, arguments: argparse.Namespace) -> int:
    """End a pairing by the other computer's name or id."""
    meant = named([peer for peer in client.call("GET", "/local/v1/peers") if peer["paired"]], arguments.peer)
    peer = client.call("DELETE", f"/local/v1/peers/{quote(meant['id'], safe='')}")
    if arguments.json:
        say_json(peer)
    else:
        say(f"{clean(peer['name'])} is no longer paired: it can't use this computer, nor this one it.")
    return 0


def named(found: list[dict[str, Any]], word: str) -> dict[str, Any]:
    """The peer that ``word`` means: an id or the beginning of one goes before a name. Raises CommandError."""
    wanted = word.lower()
    by_id = [peer for peer in found if len(wanted) >= 8 and peer["id"].startswith(wanted)]
    meant = by_id or [peer for peer in found if peer["name"].lower() == wanted]
    if len(meant) == 1:
        return meant[0]
    if meant:
        raise CommandError(f"Several paired computers are called '{clean(word)}'.", "Give the id: 'quorum peers'.")
    raise CommandError(f"No paired computer is called '{clean(word)}'.", "See 'quorum peers'.")


COMMANDS: dict[str, Callable[[Client, argparse.Namespace], int]] = {"peers": peers, "pair": pair, "unpair": unpair}
