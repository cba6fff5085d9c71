"""``serve``: the node without a window, until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
from typing import TYPE_CHECKING

from app.commands.output import complain, say
from app.instance import Instance
from router.errors import StartError

if TYPE_CHECKING:
    from app.update.updater import Updater
    from router.settings import NodeOptions


def run(options: NodeOptions) -> int:
    """Serve until SIGINT, SIGTERM or SIGHUP; 1 with a sentence on stderr when the node can't start."""
    from app.update.updater import Updater

    updater = Updater()
    try:
        if (instance := Instance.acquire(options.data_dir)) is None:
            raise StartError(
                f"Quorum already runs on {options.data_dir}{_where(options)}.",
                "Use that one, or give another --data-dir.",
            )
        try:
            code = asyncio.run(_serve(options, updater))
        finally:
            instance.release()
    except StartError as error:
        complain(error.message, error.hint)
        return 1
    if updater.successor:  # under a service manager this very process goes on as the new program
        from app.others import environment

        os.execve(updater.successor[0], updater.successor, environment())  # noqa: S606 # a verified program of ours
    return code


def _where(options: NodeOptions) -> str:
    try:
        told = json.loads((options.data_dir / "node.json").read_text("utf-8"))
        return f" ({told['address']}, process {told['pid']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


async def _serve(options: NodeOptions, updater: Updater) -> int:
    from router.node import Node

    stop = asyncio.Event()
    _on_signals(stop)
    node = Node(options)
    node.on_quit = stop.set
    node.updates = updater
    await node.start()
    gc.freeze()  # what is loaded now stays: looking through it over and over costs 5 % of a busy node
    try:
        say(f"Quorum answers at {node.address}/v1")
        say(f"Page: {node.address}/#token={node.control_token}")
        await stop.wait()
    finally:
        await node.stop()
    return 0


def _on_signals(stop: asyncio.Event) -> None:
    """The first signal ends the node in order; a second one ends the process at once, as the system would."""
    loop = asyncio.get_running_loop()

    def first(number: signal.Signals) -> None:
        stop.set()
        loop.remove_signal_handler(number)

    if sys.platform == "win32":
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    else:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the last when the terminal or session ends
            loop.add_signal_handler(number, first, number)
