"""Programs of others that this one starts: they must not inherit what PyInstaller's loader told this one of itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import webbrowser


def environment() -> dict[str, str]:
    """For another program than this one: as it was before this one started."""
    found = {name: value for name, value in os.environ.items() if not name.startswith(("_PYI_", "_MEIPASS"))}
    for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"):
        before = found.pop(f"{name}_ORIG", "")
        if getattr(sys, "frozen", False):
            found.pop(name, None)
        if before:
            found[name] = before
    return found | {"PYINSTALLER_RESET_ENVIRONMENT": "1"}


def browse(url: str) -> None:
    """Open an address in the user's own program; may return only when that ends."""
    opener = shutil.which("xdg-open") if sys.platform == "linux" and getattr(sys, "frozen", False) else None
    if opener is None:
        webbrowser.open(url)
        return
    # A browser that found our libraries before its own would not start, and webbrowser can't keep them from it.
    nothing = subprocess.DEVNULL
    command = [opener, url]
    subprocess.run(command, env=environment(), stdin=nothing, stdout=nothing, stderr=nothing, check=False)  # noqa: S603 # an address that was looked at
