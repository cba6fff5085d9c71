"""``keys add``, ``keys list`` and ``keys revoke``: who may call where a key is needed, and what each used."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from app.client import Client, CommandError
from app.commands.output import clean, complain, say, say_json, span, table


def keys(client: Client, arguments: argparse.Namespace) -> int:
    """One of the three."""
    return ACTIONS[arguments.action](client, arguments)


def add(client: Client, arguments: argparse.Namespace) -> int:
    """A new key. It alone goes to stdout, so that a script can take it."""
    made = client.call("POST", "/local/v1/keys", {"name": arguments.person})
    if arguments.json:
        say_json(made)
        return 0
    complain(f"The key of {made['info']['name']}. It is shown this once: keep it where it will be used.")
    say(made["key"])
    return 0


def listed(client: Client, arguments: argparse.Namespace) -> int:
    """The keys in force."""
    found = client.call("GET", "/local/v1/keys")
    if arguments.json:
        say_json(found)
        return 0
    if not found:
        say("There are no keys. Make one: quorum keys add NAME")
        return 0
    now = time.time()
    rows = [
        [
            key["name"],
            key["id"],
            f"...{key['tail']}",
            _ago(now, key["created_at"]),
            _ago(now, key["used_at"]) if key["used_at"] else "never",
            *_used(key["today"]),
            *_used(key["total"]),
        ]
        for key in found
    ]
    head = ["NAME", "ID", "KEY", "CREATED", "USED", "TODAY", "IN", "OUT", "TOTAL", "IN", "OUT"]
    for line in table(head, rows, right=frozenset(range(5, 11))):
        say(line)
    return 0


def revoke(client: Client, arguments: argparse.Namespace) -> int:
    """End a key by its name or id."""
    meant = _named(client.call("GET", "/local/v1/keys"), arguments.key)
    key = client.call("DELETE", f"/local/v1/keys/{quote(meant['id'], safe='')}")
    if arguments.json:
        say_json(key)
    else:
        say(
            f"The key of {clean(key['name'])} (...{clean(key['tail'])}) opens nothing any more; its jobs are cancelled."
        )
    return 0


def _named(found: list[dict[str, Any]], word: str) -> dict[str, Any]:
    """The key that ``word`` means; an id goes before a name. Raises CommandError."""
    for part in ("id", "name"):
        for key in found:
            if key[part] == word:
                return key
    raise CommandError(f"There is no key '{clean(word)}'.", "See 'quorum keys list'.")


def _ago(now: float, at: float) -> str:
    return f"{span(max(0.0, now - at))} ago"


def _used(used: dict[str, Any]) -> list[str]:
    return [f"{used[part]:,}" for part in ("requests", "prompt_tokens", "completion_tokens")]


ACTIONS: dict[str, Callable[[Client, argparse.Namespace], int]] = {"add": add, "list": listed, "revoke": revoke}
COMMANDS: dict[str, Callable[[Client, argparse.Namespace], int]] = {"keys": keys}
