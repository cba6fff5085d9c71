"""A report for whoever helps: what runs here and how it fares, without prompts, names, addresses or secrets.

Everything in it is chosen field by field, then passed through the redactor; the log holds no prompts to begin with.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sqlite3
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import msgspec

from router import __version__
from router.disk_use import DATABASE, disk_use
from router.export import SETTINGS, shown_settings
from router.hardware import HardwareProbe
from router.logs import FILE_NAME as LOG
from router.redact import Redactor, here
from router.settings import SETTINGS as ALL
from router.wire import Snapshot

LOG_LINES: Final = 500
LOG_READ_BYTES: Final = 256 * 1024
SHORT_ID: Final = 8
PACKAGES: Final = ("aiohttp", "cryptography", "msgspec", "peewee", "xllamacpp", "zeroconf", "pywebview", "PySide6")
_SAID: Final = frozenset({"builtin", "ollama", "openai", "peer"})

Parts = dict[str, Any]


def report(data_dir: Path, live: Snapshot | None = None, doctor: msgspec.Struct | None = None) -> Parts:
    """What is known of the node on ``data_dir``; ``live`` is how it is now, when it runs. Blocks: call it in a thread.

    Raises nothing for what can't be read: the report then says so in its place.
    """
    clean = here(data_dir, _names(live))
    parts: Parts = {
        "about": "A report of Quorum. Read it before you send it.",
        "written_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": _versions(),
        "hardware": _hardware(),
        "settings": _settings(data_dir / SETTINGS),
        "environment": sorted(name for name in os.environ if name.startswith("QUORUM_")),
        "disk": msgspec.to_builtins(disk_use(data_dir)),
        "database": _database(data_dir / DATABASE),
        "node": None if live is None else _live(live, clean),
        "doctor": None if doctor is None else clean.all(_short_ids(msgspec.to_builtins(doctor))),
        "log": [clean(line) for line in _last_lines(data_dir / LOG)],
    }
    return parts


def as_json(parts: Parts) -> bytes:
    """The report as a file."""
    return msgspec.json.format(msgspec.json.encode(parts)) + b"\n"


def _names(live: Snapshot | None) -> Mapping[str, str]:
    """Names that people gave to computers, keys and conversations, and what stands for them."""
    if live is None:
        return {}
    names = {peer.name: f"[peer {peer.id[:SHORT_ID]}]" for peer in live.peers}
    return names | {live.node.name: "[computer]"} | {chat.title: "[conversation]" for chat in live.chats}


def _versions() -> Parts:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # a frozen program has few of these notes
            if said := getattr(sys.modules.get(name), "__version__", ""):
                found[name] = str(said)
    return {
        "quorum": __version__,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "system": platform.system(),
        "release": platform.release(),
        "machine": platform.machine(),
        "frozen": bool(getattr(sys, "frozen", False)),
        "packages": found,
    }


def _hardware() -> Parts:
    probe = HardwareProbe()
    try:
        return asdict(probe.read()) | {"processors": os.cpu_count()}
    finally:
        probe.close()


def _settings(path: Path) -> Parts:
    """Numbers, switches and choices as they are; of texts only that they are set: they hold names and addresses."""
    kept = shown_settings(path)
    plain = {s.name for s in ALL if not isinstance(s.default, str) or s.choices}
    return {name: value if name in plain else "(set)" if value else "" for name, value in kept.items()}


def _database(path: Path) -> Parts:
    """Version, what SQLite's own check finds, and how many rows there are."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as db:
            tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return {
                "version": db.execute("PRAGMA user_version").fetchone()[0],
                "check": db.execute("PRAGMA quick_check(1)").fetchone()[0],
                "rows": {
                    name: db.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]  # noqa: S608 # a table's own name
                    for name in sorted(tables)
                    if name.isidentifier() and not name.startswith("sqlite_")
                },
            }
    except sqlite3.Error as error:
        return {"problem": type(error).__name__}


def _live(live: Snapshot, clean: Redactor) -> Parts:
    node = live.node
    told: Parts = {
        "id": node.id[:SHORT_ID],
        "mode": str(node.mode),
        "up_s": round(time.time() - node.started_at),
        "running": node.running,
        "waiting": node.waiting,
        "notice": node.notice,
        "listens_on_the_network": bool(node.network),
        "update": None if node.update is None else str(node.update.state),
        "engines": [
            {
                "kind": engine.kind if engine.kind in _SAID else "other",
                "state": engine.state,
                "detail": engine.detail,
                "version": engine.version,
                "busy": f"{engine.in_flight}/{engine.width}",
            }
            for engine in live.engines
        ],
        "models": [
            {
                "family": model.family,
                "parameters": model.parameters,
                "quantisation": model.quantisation,
                "size_bytes": model.size_bytes,
                "residency": str(model.residency),
                "local": model.local,
                "problem": model.problem,
            }
            for model in live.models
        ],
        "peers": [
            {
                "id": peer.id[:SHORT_ID],
                "state": str(peer.state),
                "reason": peer.reason,
                "paired": peer.paired,
                "version": peer.version,
                "busy": f"{peer.in_flight}/{peer.width}",
                "models": len(peer.models),
                "addresses": len(peer.addresses),
            }
            for peer in live.peers
        ],
        "ended": [
            {
                "state": str(job.state),
                "attempt": job.attempt,
                "error": job.error.code if job.error is not None else None,
                "tokens": job.tokens,
            }
            for job in live.jobs
        ],
    }
    found = clean.all(told)
    assert isinstance(found, dict)  # noqa: S101 # narrows the type
    return found


def _short_ids(value: Any) -> Any:
    """Ids of computers shortened as they are shown."""
    match value:
        case dict():
            return {
                name: inner[:SHORT_ID]
                if name in ("id", "node_id", "peer") and isinstance(inner, str)
                else _short_ids(inner)
                for name, inner in value.items()
            }
        case list():
            return [_short_ids(inner) for inner in value]
    return value


def _last_lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - LOG_READ_BYTES))
            return file.read().decode("utf-8", "replace").splitlines()[-LOG_LINES:]
    except OSError:
        return []
