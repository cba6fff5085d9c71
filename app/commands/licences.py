"""``quorum --licences``: whose software the program brings, and where the texts of the licences lie."""

from __future__ import annotations

import sys
from pathlib import Path

from app.commands.output import complain, say


def run() -> int:
    """Print the list; 1 where there is none because the program runs from a clone."""
    folder = Path(getattr(sys, "_MEIPASS", "")) / "LICENSES"
    try:
        listed = (folder / "THIRD_PARTY.md").read_text("utf-8")
    except OSError:
        complain(
            "This Quorum runs from a clone, which brings nobody else's software.",
            "The packages in its .venv have their licences beside them; the installed program lists them all.",
        )
        return 1
    say(f"{listed.rstrip()}\n\nThe texts lie in {folder}.")
    return 0
