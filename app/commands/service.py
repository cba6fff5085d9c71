"""``service install|remove|status``: the node of a computer without a desktop, started by the system."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict
from pathlib import Path

from app.client import CommandError
from app.commands.arguments import data_dir
from app.commands.output import say, say_json
from app.instance import Instance
from app.service_units import LaunchAgent, Manager, Status, SystemdUnit, command


def service(arguments: argparse.Namespace) -> int:
    """One of the three. Raises CommandError."""
    folder = data_dir(arguments)
    manager = _manager(folder)
    try:
        match arguments.action:
            case "install":
                _install(manager, folder, arguments)
            case "remove":
                manager.remove()
    except OSError as error:
        raise CommandError(f"The service can't be changed: {error.strerror or error}.") from None
    return _tell(manager.status(), arguments)


def _manager(folder: Path) -> Manager:
    if sys.platform == "win32":
        raise CommandError(
            "On Windows Quorum is no service.", "Switch 'Start at login' on: it then starts hidden when you log in."
        )
    if sys.platform == "darwin":
        return LaunchAgent(command(folder), Path.home())
    return SystemdUnit(command(folder), os.environ)


def _install(manager: Manager, folder: Path, arguments: argparse.Namespace) -> None:
    if not manager.status().running and folder.is_dir():
        lock = Instance.acquire(folder)
        if lock is None:
            raise CommandError(f"Quorum already runs on {folder}.", "End it first: quorum quit.")
        lock.release()
    for sentence in manager.install():
        if not arguments.json:
            say(sentence)


def _tell(status: Status, arguments: argparse.Namespace) -> int:
    if arguments.json:
        say_json(asdict(status) | {"path": str(status.path)})
        return 0
    if not status.written:
        say("The service is not installed.")
        return 0
    parts = ["enabled" if status.enabled else "not enabled", "running" if status.running else "not running"]
    say(f"The service is installed, {', '.join(parts)}: {status.path}")
    if not status.ours:
        say("It starts another program or data folder than this command would; 'quorum service install' renews it.")
    return 0
