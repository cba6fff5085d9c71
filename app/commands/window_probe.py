"""The child process of ``selftest``: opens the page in an off-screen window, or asks whether there is a tray.

``quorum --window-probe window`` reads the page's address from stdin (it carries a token, which has no place in the
arguments of a process); ``quorum --window-probe tray`` reads nothing. Both print one JSON object.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from app import display

LOAD_S = 25.0


def main(arguments: Sequence[str]) -> int:
    """Run one probe; 0 when it could be run."""
    probe = {"window": window, "tray": tray}[arguments[0]]
    sys.stdout.write(json.dumps(probe()) + "\n")
    return 0


def window() -> dict[str, Any]:
    """``{"title": ..., "text": ...}`` of the page in a window nobody sees."""
    address = sys.stdin.readline().strip()
    if sys.platform == "linux":
        os.environ["QT_QPA_PLATFORM"] = "offscreen"
        display.prepare()
    import webview

    seen: dict[str, Any] = {"title": "", "text": ""}
    shown = webview.create_window("Quorum", address, width=1000, height=700, hidden=sys.platform != "linux")
    if shown is None:
        raise RuntimeError("no window was made")

    def look() -> None:
        try:
            if shown.events.loaded.wait(LOAD_S):
                seen["title"] = shown.evaluate_js("document.title")
                seen["text"] = shown.evaluate_js("document.body.innerText.slice(0, 200)")
        finally:
            shown.destroy()

    webview.start(look, gui="qt" if sys.platform == "linux" else None)
    return seen


def tray() -> dict[str, Any]:
    """``{"present": bool}`` for this session."""
    if sys.platform != "linux":
        return {"present": True}  # Windows and macOS always have one
    from PySide6.QtWidgets import QApplication, QSystemTrayIcon

    application = QApplication([])
    present = QSystemTrayIcon.isSystemTrayAvailable()
    application.quit()
    return {"present": bool(present)}
