"""``update``: looks whether there is a newer version, and installs it where this program may replace itself."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from app.client import Client, CommandError, ServerEvent
from app.commands.arguments import data_dir
from app.commands.output import clean, complain, say, say_json

BACK_S = 300.0
_BUSY = {
    "checking": "Looking at the feed.",
    "downloading": "Downloading version {version}.",
    "testing": "Trying the new program on this computer.",
    "waiting": "Waiting for what runs to finish.",
    "installing": "Quorum ends and starts again as version {version}.",
}


def update(client: Client, arguments: argparse.Namespace) -> int:
    """Check, or install and wait until the new version answers."""
    events = client.events()
    before = _next(events)  # the stream is open before anything is asked for: nothing is missed
    asked = "check" if arguments.check or before["update"]["refusal"] else "install"
    client.call("POST", f"/local/v1/update/{asked}", {})
    told = _follow(events, before, arguments)
    if told["state"] == "installing":
        return _back(arguments, before["version"], told["version"])
    return _tell(told, before["version"], arguments)


def _follow(events: Iterator[ServerEvent], before: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """The update as it ended; ``installing`` also when Quorum has gone."""
    told: dict[str, Any] = before["update"]
    seen = ""
    try:
        while (node := _next(events)) is not None:
            told = node["update"]
            if told["state"] != seen and told["state"] in _BUSY:
                seen = told["state"]
                if not arguments.json:
                    complain(_BUSY[seen].format(version=told["version"]))
            elif told["state"] not in _BUSY and told["checked_at"] != before["update"]["checked_at"]:
                return told
    except (CommandError, StopIteration):
        if seen != "installing":
            raise CommandError("Quorum stopped before the update was done.", "Start it, then try again.") from None
    return told | {"state": "installing"}


def _next(events: Iterator[ServerEvent]) -> dict[str, Any]:
    """The node of the next event that tells of it. Raises StopIteration at the end of the stream."""
    while True:
        event = next(events)
        if event.name in ("snapshot", "change") and (node := json.loads(event.data).get("node")):
            found: dict[str, Any] = node
            return found


def _back(arguments: argparse.Namespace, old: str, new: str) -> int:
    """Wait for the program that runs afterwards, whichever it is."""
    deadline = time.monotonic() + BACK_S
    while time.monotonic() < deadline:
        time.sleep(0.3)
        try:
            node = Client.find(data_dir(arguments)).call("GET", "/local/v1/status")["node"]
        except CommandError:
            continue
        if node["version"] == new:
            if arguments.json:
                say_json(node["update"])
            else:
                say(f"Version {clean(new)} runs.")
            return 0
        if node["version"] == old and node["update"]["state"] == "failed":
            return _tell(node["update"], old, arguments)
    raise CommandError("Quorum has not come back after the update.", "Start it: an unfinished update is mended then.")


def _tell(told: dict[str, Any], version: str, arguments: argparse.Namespace) -> int:
    if arguments.json:
        say_json(told)
        return 1 if told["state"] == "failed" else 0
    if told["state"] == "failed":
        raise CommandError(told["message"], told["hint"])
    if told["state"] == "current":
        say(f"Version {version} is the newest.")
        return 0
    say(f"Version {clean(told['version'])} is there. {clean(told['notes'])}".rstrip())
    say(clean(told["message"] or told["refusal"]) or "Install it: 'quorum update', or on the Settings page.")
    return 0


COMMANDS: dict[str, Callable[[Client, argparse.Namespace], int]] = {"update": update}
