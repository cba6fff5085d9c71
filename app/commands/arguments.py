"""The command line: flags, commands, and the values they take."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path

from router import __version__

_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_INVITATION = re.compile(r"(\d{3})[ -]?(\d{3})@(\S+)")
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)\s*")


def duration(text: str) -> float:
    """``90``, ``90s``, ``15m``, ``1h30m``, ``2d`` in seconds. Raises argparse.ArgumentTypeError."""
    rest, seconds = text.strip().lower(), 0.0
    while rest:
        part = _PART.match(rest)
        if part is None or (part[2] or "s") not in _UNITS:
            break
        seconds += float(part[1]) * _UNITS[part[2] or "s"]
        rest = rest[part.end() :]
    if rest or not 0 < seconds <= 366 * 86_400:
        raise argparse.ArgumentTypeError(f"'{text}' is not a duration; write 90s, 15m, 1h30m or 2d")
    return seconds


def port(text: str) -> int:
    """A port, 0 for any that is free. Raises argparse.ArgumentTypeError."""
    if not text.isascii() or not text.isdigit() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"'{text}' is not a port; write a number from 0 to 65535")
    return int(text)


def positive(text: str) -> int:
    """A whole number from 1. Raises argparse.ArgumentTypeError."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1")
    return int(text)


def invitation(text: str) -> tuple[str, str]:
    """``CODE@HOST[:PORT]`` as digits and address. Raises argparse.ArgumentTypeError."""
    match = _INVITATION.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"'{text}' is not CODE@HOST; write e.g. 123456@192.168.1.20")
    return match[1] + match[2], match[3]


def data_dir(arguments: argparse.Namespace) -> Path:
    """The data folder: ``--data-dir``, else ``QUORUM_DATA_DIR``, else the system's usual place."""
    if given := getattr(arguments, "data_dir", None) or os.environ.get("QUORUM_DATA_DIR"):
        return Path(given).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_data_dir("quorum", appauthor=False))


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The command line; ends the program with 2 when it is wrong. Flags may stand among the words of a prompt."""
    top = parser()
    arguments, rest = top.parse_known_args(words)
    if rest and (arguments.command != "run" or any(word.startswith("-") for word in rest)):
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:  # argparse takes the words that stand together, and leaves the others over
        arguments.prompt += rest
    return arguments


def _common() -> argparse.ArgumentParser:
    """Flags before or after the command; absent ones leave no trace, so that neither place hides the other."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    flags = common.add_argument_group("common")
    flags.add_argument("--data-dir", metavar="D", help="folder of settings, jobs and chats (QUORUM_DATA_DIR)")
    flags.add_argument("--port", type=port, metavar="N", help="client and control port, 0 for any (7411)")
    flags.add_argument("--peer-port", type=port, metavar="N", help="port for paired computers (7412)")
    flags.add_argument("--name", metavar="TEXT", help="how others see this computer")
    flags.add_argument("--no-discovery", action="store_true", help="neither announce nor look for computers")
    flags.add_argument("--log-level", choices=("debug", "info", "warning", "error"), help="how much is logged")
    return common


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    common = _common()
    listing = argparse.ArgumentParser(add_help=False)
    listing.add_argument("--json", action="store_true", help="print JSON")
    top = argparse.ArgumentParser(
        prog="quorum",
        parents=[common],
        description="Quorum puts the models on all your computers behind one address. "
        "Without a command it opens the desktop, or serves headless where there is no display.",
        epilog="Exit codes: 0 fine, 1 failed, 2 wrong usage, 3 no Quorum is running.",
    )
    top.add_argument("--version", action="version", version=f"quorum {__version__}")
    top.add_argument("--hidden", action="store_true", help="start in the tray, without the window")
    top.add_argument("--at-login", action="store_true", help="the same, but only where 'Start at login' is on")
    top.add_argument("--licences", action="store_true", help="list the software of others in Quorum and its licences")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")

    def add(name: str, sentence: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        return commands.add_parser(name, parents=[*parents, common], help=sentence, description=sentence)

    add("serve", "Run the node without a window, until Ctrl+C.")
    add("status", "Show the node, its engines and its work.", listing)
    add("models", "List the models, where they are and whether they are in memory.", listing)

    run = add("run", "Chat with a model in the terminal; Ctrl+C stops the answer.")
    run.add_argument("model", metavar="MODEL", help="a name that 'quorum models' shows")
    run.add_argument(
        "prompt", metavar="PROMPT", nargs="*", help="one question; without it from stdin, or a conversation"
    )
    run.add_argument("--system", metavar="TEXT", default="", help="what the model is told first")
    run.add_argument("--max-tokens", metavar="N", type=positive, help="longest answer")
    run.add_argument("--temperature", metavar="T", type=float, help="0 is the most likely answer")

    jobs = add("jobs", "List the jobs: running, waiting, then the last ended.", listing)
    jobs.add_argument("--limit", metavar="N", type=positive, default=50, help="how many at most (50)")
    instead = jobs.add_mutually_exclusive_group()
    instead.add_argument("--cancel", metavar="ID", help="cancel this job instead")
    instead.add_argument("--front", metavar="ID", help="let this waiting job be the next of its engine instead")

    add("peers", "List the other computers: paired, or seen in the network.", listing)
    pair = add(
        "pair", "Pair with another computer: alone, show six digits; with CODE@HOST, join the one that does.", listing
    )
    pair.add_argument(
        "invitation", metavar="CODE@HOST[:PORT]", nargs="?", type=invitation, help="what the other one shows"
    )
    pair.add_argument("--yes", action="store_true", help="accept whoever types the right digits, without a question")
    pair.add_argument("--no-share", action="store_true", help="don't let it use this computer's models")
    unpair = add("unpair", "End the pairing with another computer at once.", listing)
    unpair.add_argument("peer", metavar="NAME|ID", help="as 'quorum peers' shows it")
    doctor = add("doctor", "Say why a paired computer isn't fine, and what to do; 1 when something is not.", listing)
    doctor.add_argument("peer", metavar="NAME|ID", nargs="?", default="", help="only this computer")
    doctor.add_argument("--at", metavar="HOST[:PORT]", default="", help="where that computer is now: follow it there")

    keys = add("keys", "Make, list or revoke the API keys of persons and programs.")
    actions = keys.add_subparsers(dest="action", metavar="add NAME|list|revoke NAME", required=True)

    def key_action(name: str, sentence: str) -> argparse.ArgumentParser:
        return actions.add_parser(name, parents=[listing, common], help=sentence, description=sentence)

    key = key_action("add", "Make a key; it is shown this once.")
    key.add_argument("person", metavar="NAME", help="the person or program that will use it")
    key_action("list", "Show the keys in force and what each was used for.")
    key = key_action("revoke", "End a key at once and cancel its jobs.")
    key.add_argument("key", metavar="NAME", help="its name or id")

    pause = add("pause", "Take no new work; a restart does not end it.", listing)
    pause.add_argument("--for", dest="for_s", metavar="TIME", type=duration, help="resume by itself, e.g. after 1h")
    drain = add("drain", "Finish what runs, take nothing new, and say when it is empty.", listing)
    drain.add_argument("--wait", action="store_true", help="return only when nothing runs any more")
    add("resume", "Take work again.", listing)
    add("quit", "End the running Quorum, desktop or not, and return when it has ended.", listing)
    update = add(
        "update", "Install a newer version, where one is announced and this program may replace itself.", listing
    )
    update.add_argument("--check", action="store_true", help="only look whether there is one")
    units = add(
        "service", "Let the system start Quorum without a window: a systemd user unit, a launchd agent.", listing
    )
    units.add_argument("action", choices=("install", "remove", "status"), metavar="install|remove|status")
    export = add("export", "Put conversations, settings and a copy of the database, without secrets, into one archive.")
    export.add_argument("file", metavar="FILE|-", help="a new .zip file, or - for stdout")
    report = add("diagnostics", "Write a report for whoever helps: no prompts, names, addresses or secrets are in it.")
    report.add_argument("file", metavar="FILE|-", help="a new .json file, or - for stdout")
    reset = add("reset", "Remove what Quorum keeps: conversations, jobs, settings, models, identity. Asks first.")
    reset.add_argument("--keep-models", action="store_true", help="leave the folder of models")
    reset.add_argument("--keep-identity", action="store_true", help="stay the same computer, paired as before")
    reset.add_argument("--yes", action="store_true", help="don't ask")
    add("selftest", "Try everything on a throw-away data folder: node, page, model, store, window.", listing)
    return top
