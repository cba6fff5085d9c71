"""``doctor``: why a paired computer isn't green, in one sentence each, and what to do about it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from app.client import Client, CommandError
from app.commands.output import clean, complain, say, say_json
from app.commands.peers import named

EXAMINE_S = 90.0
_MARKS = {"good": "ok", "note": "note", "bad": "BAD"}


def doctor(client: Client, arguments: argparse.Namespace) -> int:
    """Look at this computer and the paired ones; 0 when all is green, 1 when something is not."""
    if arguments.at and not arguments.peer:
        raise CommandError("Whose address is that?", f"Write 'quorum doctor NAME --at {clean(arguments.at)}'.")
    body = {"id": _meant(client, arguments.peer)} if arguments.peer else {}
    if arguments.at:
        path = f"/local/v1/peers/{quote(body['id'], safe='')}/address"
        client.call("POST", path, {"address": arguments.at}, timeout_s=EXAMINE_S)
    if not arguments.json and sys.stderr.isatty():
        complain("Looking; this takes some seconds.")
    report = client.call("POST", "/local/v1/doctor", body, timeout_s=EXAMINE_S)
    if arguments.json:
        say_json(report)
    else:
        _tell(report)
    return 0 if report["green"] else 1


def _meant(client: Client, word: str) -> str:
    paired = [peer for peer in client.call("GET", "/local/v1/peers") if peer["paired"]]
    return str(named(paired, word)["id"])


def _tell(report: dict[str, Any]) -> None:
    found = [*report["here"], *report["peers"]]
    names = [one["name"] for one in report["peers"]]
    for one in found:
        twice = names.count(one["name"]) > 1
        which = f" [{one['id'][:8]}]" if twice else ""
        say(f"{_MARKS.get(one['level'], '?'):<5} {clean(one['sentence'])}{which}".replace("\n", " "))
        if one["hint"] and one["level"] != "good":
            say(f"      {clean(one['hint'])}".replace("\n", " "))
    if not report["peers"]:
        say("      No computer is paired yet: run 'quorum pair' here and 'quorum pair CODE@HOST' on the other.")


COMMANDS: dict[str, Callable[[Client, argparse.Namespace], int]] = {"doctor": doctor}
