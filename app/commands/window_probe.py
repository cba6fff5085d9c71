"""The child process of ``selftest``: opens the page in an off-screen window, or asks whether there is a tray.

``quorum --window-probe window`` reads ``{"address": ..., "token": ...}`` from stdin (a token has no place in the
arguments of a process); ``quorum --window-probe tray`` reads nothing. Both print one JSON object.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from app import display

SHOWN_S = 25.0
LOOK = """
document.querySelector("main textarea")
  ? document.title + "\\n" + document.querySelector("main").innerText : ""
"""


def main(arguments: Sequence[str]) -> int:
    """Run one probe; 0 when it could be run."""
    probe = {"window": window, "tray": tray}[arguments[0]]
    sys.stdout.write(json.dumps(probe()) + "\n")
    return 0


def window() -> dict[str, Any]:
    """``{"text": ...}``: title and words of the page in the product's own window, which nobody sees."""
    node = json.loads(sys.stdin.readline())
    display.prepare()
    if sys.platform == "linux":
        os.environ["QT_QPA_PLATFORM"] = "offscreen"
        display.draw_by_software()
    from app.memory import Memory
    from app.window import Window, make_platform

    shown = Window(make_platform(), node["address"], node["token"], Memory(), hidden=False)
    text = ""

    def look() -> None:
        nonlocal text
        deadline = time.monotonic() + SHOWN_S
        try:
            while not text and time.monotonic() < deadline:
                text = str(shown.run_js(LOOK) or "").strip()
                time.sleep(0.1)
        finally:
            shown.destroy()

    started = threading.Event()

    def drawn() -> None:
        if not started.is_set():
            started.set()
            threading.Thread(target=look, name="look").start()

    shown.on_drawn = drawn
    shown.run()
    return {"text": text[:2000]}


def tray() -> dict[str, Any]:
    """``{"present": bool}`` for this session."""
    if sys.platform != "linux":
        return {"present": True}  # Windows and macOS always have one
    display.prepare()
    from PySide6.QtWidgets import QApplication, QSystemTrayIcon

    application = QApplication(["quorum"])
    present = QSystemTrayIcon.isSystemTrayAvailable()
    application.quit()
    return {"present": bool(present)}
