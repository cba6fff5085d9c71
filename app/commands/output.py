"""What the commands print: tables, sizes, ages, JSON, and text of strangers made harmless for a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

_HARMLESS = "\n\t\u00a0\u2009\u202f\u200d"  # line, tab, narrow spaces, and what joins an emoji


def say(text: str = "") -> None:
    """One line on stdout, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def complain(message: str, hint: str = "") -> None:
    """A sentence and a hint on stderr."""
    sys.stderr.write(f"{clean(message)}\n")
    if hint:
        sys.stderr.write(f"{clean(hint)}\n")


def say_json(value: Any) -> None:
    """A value as indented JSON on stdout."""
    say(json.dumps(value, indent=2, ensure_ascii=False))


def clean(text: str) -> str:
    """``text`` without control characters, so that a model's words can't steer the terminal."""
    return "".join(letter for letter in text if letter.isprintable() or letter in _HARMLESS)


def size(count: int | None) -> str:
    """Bytes as people say them: ``98.4 MB``."""
    if count is None:
        return ""
    amount, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while amount >= 999.95 and len(units) > 1:
        amount /= 1000
        units.pop(0)
    return f"{amount:.0f} {units[0]}" if units[0] == "B" else f"{amount:.1f} {units[0]}"


def span(seconds: float | None) -> str:
    """A duration as people say it: ``0.4 s``, ``12 s``, ``3 min``, ``2 h 5 min``, ``3 d 4 h``."""
    if seconds is None:
        return ""
    whole = max(0, int(seconds))
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    large, small, names = (whole // 3600, whole % 3600 // 60, ("h", "min"))
    if whole >= 86_400:
        large, small, names = (whole // 86_400, whole % 86_400 // 3600, ("d", "h"))
    return f"{large} {names[0]} {small} {names[1]}" if small else f"{large} {names[0]}"


def table(head: Sequence[str], rows: Sequence[Sequence[object]], *, right: frozenset[int] = frozenset()) -> list[str]:
    """Aligned lines with a head; columns numbered in ``right`` are set to the right; empty columns are left out."""
    cells = [[clean(str(cell)).replace("\n", " ") for cell in row] for row in rows]
    kept = [i for i in range(len(head)) if any(row[i] for row in cells)]
    widths = {i: max(len(head[i]), *(len(row[i]) for row in cells)) for i in kept}

    def line(row: Sequence[str]) -> str:
        return "  ".join(row[i].rjust(widths[i]) if i in right else row[i].ljust(widths[i]) for i in kept).rstrip()

    return [line(head), *(line(row) for row in cells)] if kept else []
