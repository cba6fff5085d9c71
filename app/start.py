"""Starts the desktop: one for each data folder, with a window where one can be drawn, else headless or not at all."""

from __future__ import annotations

import logging
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from app import display
from app.commands.output import complain, say
from app.instance import Instance, Other, Reply, show_other
from app.service import Service, StartError
from app.shell import Desktop

if TYPE_CHECKING:
    from router.settings import NodeOptions

log = logging.getLogger(__name__)

LEAVE_S: Final = 1.0


def run(options: NodeOptions, *, hidden: bool = False, headless_ok: bool = True, service: Service | None = None) -> int:
    """The desktop: window, tray and node until the user quits. Returns the exit code.

    Shows the window of an instance that already runs on the data folder. Where no window can be shown it says so and
    serves headless, or fails when ``headless_ok`` is false. Call it on the main thread, while there is no other.
    """
    if reason := display.why_headless():
        return _headless(options, reason, headless_ok)
    try:
        while (instance := Instance.acquire(options.data_dir)) is None:
            if hidden:
                say("Quorum already runs.")
                return 0
            other = show_other(options.data_dir)
            if other.reply is not Reply.GONE:
                return _explain(other, options.data_dir)
    except StartError as error:
        complain(error.message, error.hint)
        _show_message(error.message, error.hint)
        return 1
    try:
        desktop = Desktop(options, service or Service(options), hidden=hidden)
        if desktop.can_draw():
            return _leave(desktop.run())
    finally:
        instance.release()
    return _headless(options, display.why_impossible(), headless_ok)


def _headless(options: NodeOptions, reason: str, headless_ok: bool) -> int:
    if sys.platform == "win32":  # what it served without a window nobody would see, nor end
        hint = f"Get it at {display.WEBVIEW2_FROM}; or start 'quorum-cli serve' for the node alone."
        complain(reason, hint)
        _show_message(reason, hint)
        return 1
    if not headless_ok:
        complain(reason, "Start 'quorum serve' for the node alone.")
        return 1
    complain(f"{reason} Quorum serves without its window.")
    from app.commands import serve

    return serve.run(options)


def _show_message(message: str, hint: str) -> None:
    """For those who started Quorum by a click and see no stderr; nothing where no display can be used."""
    if display.Trial(display.Drawing.SOFTWARE).result() is display.Drawing.IMPOSSIBLE:
        return
    display.prepare()
    from app.window import make_platform

    make_platform().alert("Quorum can't start", f"{message}\n\n{hint}")


def _explain(other: Other, data_dir: Path) -> int:
    match other.reply:
        case Reply.SHOWN:
            say("Quorum already runs; its window is shown.")
            return 0
        case Reply.NO_WINDOW:
            message = f"Quorum already runs without a window at {other.address}."
            hint = f"Open {other.address} in a browser, or stop that one (process {other.pid}) and start the desktop."
        case _:
            message = f"Another Quorum holds {data_dir} but does not answer."
            hint = f"End it (process {other.pid or 'unknown'}) and start again."
    complain(message, hint)
    _show_message(message, hint)
    return 1


def _leave(code: int) -> int:
    """Give left-over threads of libraries a moment; one that hangs must not keep the process alive."""
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join(LEAVE_S)
            if thread.is_alive():
                log.warning("the thread %s does not end", thread.name)
                for stream in (sys.stdout, sys.stderr):
                    stream.flush()
                os._exit(code)
    return code
