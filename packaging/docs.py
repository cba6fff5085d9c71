"""The generated tables of README.md: commands, settings, errors. ``--check`` only compares; old ones fail it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from app.commands.arguments import parser  # noqa: E402 (found through the line above)
from router.errors import CODES  # noqa: E402 (the same)
from router.settings import SETTINGS, Setting  # noqa: E402 (the same)

README = ROOT / "README.md"


def row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def commands() -> list[str]:
    """One line a command, from the command line's own definition."""
    lines = [
        row("command", "what it does"),
        "|---|---|",
        row("`quorum`", "Open the desktop; headless where there is no display."),
    ]
    top = parser()
    common = {action.dest for action in top._actions}
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            sentences = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, command in action.choices.items():
                lines.append(row(f"`quorum {name}{usage(command, common)}`", sentences[name]))
    return lines


def usage(command: argparse.ArgumentParser, common: set[str]) -> str:
    """What a command takes beside the flags that all have."""
    words = []
    for action in command._actions:
        if action.dest in common:
            continue
        value = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
        if action.option_strings:
            words.append(f"[{action.option_strings[0]}{value}]")
        else:
            words.append(f"[{value.strip()}]" if action.nargs == "*" else value.strip())
    return "".join(f" {word}" for word in words)


def shown(setting: Setting) -> str:
    """The default as a person writes it."""
    if isinstance(setting.default, bool):
        return "on" if setting.default else "off"
    if setting.default == "":
        return "empty"
    number = f"{setting.default:g}" if isinstance(setting.default, float) else str(setting.default)
    return f"{number} {setting.unit}".strip()


def settings() -> list[str]:
    """One line a setting."""
    lines = [row("setting", "environment", "default", "what it does"), "|---|---|---|---|"]
    for setting in SETTINGS:
        choices = f" One of {', '.join(setting.choices)}." if setting.choices else ""
        restart = " Counts from the next start." if setting.restart else ""
        lines.append(
            row(setting.title, f"`{setting.environment}`", shown(setting), f"{setting.sentence}{choices}{restart}")
        )
    return lines


def errors() -> list[str]:
    """One line an error code."""
    lines = [row("code", "status", "what to do"), "|---|---|---|"]
    lines += [row(f"`{code}`", str(status), hint) for code, (status, hint) in CODES.items()]
    return lines


TABLES = {"commands": commands, "settings": settings, "errors": errors}


def fresh(text: str) -> str:
    """``text`` of the README with every table made anew. Raises ValueError when a marker is missing."""
    for name, make in TABLES.items():
        begin, end = f"<!-- {name}: made by 'python3 dev.py docs' -->", f"<!-- {name}: end -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"README.md lacks '{begin}' or '{end}'")
        text = "\n".join([before + begin, *make(), end + after])
    return text


def main(arguments: list[str]) -> int:
    old = README.read_text("utf-8")
    new = fresh(old)
    if "--check" in arguments:
        if new != old:
            print("README.md is old: run 'python3 dev.py docs'", file=sys.stderr)
        return int(new != old)
    README.write_text(new, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
