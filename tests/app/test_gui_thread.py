"""The way to Qt's thread, tried in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.desktop

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAM = """
import threading
from PySide6.QtCore import QCoreApplication
from app.gui_thread import GuiThread

app = QCoreApplication([])
gui = GuiThread()
order = []
assert gui.call(threading.get_ident) == threading.get_ident()  # at once on the thread itself

def elsewhere():
    assert gui.call(threading.get_ident) == threading.main_thread().ident
    try:
        gui.call(lambda: 1 // 0)
    except ZeroDivisionError:
        order.append("raised")
    gui.soon(lambda: 1 // 0)
    for number in range(3):
        gui.soon(order.append, number)
    gui.soon(app.quit)

thread = threading.Thread(target=elsewhere)
thread.start()
app.exec()
thread.join()
print(order)
"""


def test_functions_run_in_order_on_the_gui_thread_and_their_errors_come_back() -> None:
    pytest.importorskip("PySide6")

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )

    assert (done.returncode, done.stdout) == (0, "['raised', 0, 1, 2]\n"), done.stderr
    assert "a function on the GUI thread failed" in done.stderr
