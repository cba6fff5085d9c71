"""``pause``, ``drain``, ``resume`` and ``quit``: whether the node takes work, and its end."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

from app.client import Client, CommandError
from app.commands.arguments import data_dir
from app.commands.output import clean, complain, say, say_json, span
from app.instance import Instance

QUIT_S = 30.0


def pause(client: Client, arguments: argparse.Namespace) -> int:
    """Take no new work, until resumed or for a while."""
    body = {} if arguments.for_s is None else {"for_s": arguments.for_s}
    return _tell(client.call("POST", "/local/v1/pause", body), arguments)


def resume(client: Client, arguments: argparse.Namespace) -> int:
    """Take work again."""
    return _tell(client.call("POST", "/local/v1/resume", {}), arguments)


def drain(client: Client, arguments: argparse.Namespace) -> int:
    """Take no new work; with ``--wait`` return when what ran has ended."""
    if not arguments.wait:
        return _tell(client.call("POST", "/local/v1/drain", {}), arguments)
    # The stream is opened first: an end between the two calls would otherwise be missed.
    events = client.events()
    next(events, None)
    node = client.call("POST", "/local/v1/drain", {})
    if node["running"] and not arguments.json:
        complain(f"Waiting for {node['running']} running.")
    while node["mode"] == "draining":
        event = next(events, None)
        if event is None:
            raise CommandError("Quorum stopped before it was empty.", "What had not ended goes on at its next start.")
        if event.name in ("snapshot", "change"):
            node = json.loads(event.data).get("node") or node
    return _tell(node, arguments)


def end(client: Client, arguments: argparse.Namespace) -> int:
    """End the node or the desktop in order, and return when its process has given up the data folder."""
    client.call("POST", "/local/v1/quit", {})
    folder = data_dir(arguments)
    deadline = time.monotonic() + QUIT_S
    while (lock := Instance.acquire(folder)) is None:
        if time.monotonic() > deadline:
            raise CommandError(f"Quorum did not end within {QUIT_S:.0f} s.", "See its log, then end its process.")
        time.sleep(0.1)
    lock.release()
    if not arguments.json:
        say("Quorum has ended. What had not finished goes on at its next start.")
    return 0


def _tell(node: dict[str, Any], arguments: argparse.Namespace) -> int:
    if arguments.json:
        say_json(node)
        return 0
    sentence = {
        "running": "takes work",
        "paused": "is paused and takes no new work",
        "draining": f"finishes what runs ({node['running']} running) and takes no new work",
        "drained": "is empty and takes no new work: it is safe to quit",
    }.get(str(node["mode"]), str(node["mode"]))
    if node["paused_until"]:
        sentence += f" for {span(node['paused_until'] - time.time() + 1)}"
    say(f"{clean(node['name'])} {sentence}.")
    return 0


COMMANDS: dict[str, Callable[[Client, argparse.Namespace], int]] = {
    "pause": pause,
    "drain": drain,
    "resume": resume,
    "quit": end,
}
