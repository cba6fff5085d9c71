"""``export``, ``diagnostics`` and ``reset``: the data folder taken along, reported, emptied. No node is needed."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

from app.client import Client, CommandError, NoNodeError
from app.commands.arguments import data_dir
from app.commands.output import clean, complain, say, size
from app.instance import Instance
from router.errors import StartError

REPORT_S = 60.0


def export(arguments: argparse.Namespace) -> int:
    """Everything of the user into one archive, also while Quorum runs."""
    from router.export import export as write

    folder = data_dir(arguments)
    return _into(
        arguments.file, lambda out: write(folder, out), "Prompts and conversations are in it: keep it private."
    )


def diagnostics(arguments: argparse.Namespace) -> int:
    """A report without prompts, names, addresses and secrets."""
    folder = data_dir(arguments)

    def write(out: IO[bytes]) -> None:
        out.write(_report(folder, arguments))

    return _into(arguments.file, write, "Read it before you send it.")


def _report(folder: Path, arguments: argparse.Namespace) -> bytes:
    """As the node tells it; as the folder alone does when none runs."""
    try:
        client = Client.find(folder, getattr(arguments, "port", None))
        with client.open("GET", "/local/v1/diagnostics", timeout_s=REPORT_S) as response:
            return response.read()
    except NoNodeError:
        from router.diagnostics import as_json, report

        return as_json(report(folder))


def _into(name: str, write: Callable[[IO[bytes]], None], sentence: str) -> int:
    """``write`` into the file or, for ``-``, to stdout; a file that was there stays, one half written does not."""
    try:
        if name == "-":
            write(sys.stdout.buffer)
            sys.stdout.buffer.flush()
            return 0
        path = Path(name).expanduser()
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "wb") as out:
                write(out)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    except FileExistsError:
        raise CommandError(f"{name} is there already.", "Give another name.") from None
    except StartError as error:
        raise CommandError(error.message, error.hint) from None
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CommandError(f"{name} can't be written: {error.strerror or error}.") from None
    say(f"{clean(name)} is written. {sentence}")
    return 0


def reset(arguments: argparse.Namespace) -> int:
    """Remove what Quorum keeps, after a question."""
    from router.reset import own
    from router.reset import reset as remove

    folder = data_dir(arguments)
    if not folder.is_dir():
        raise CommandError(f"There is nothing of Quorum in {folder}.")
    lock = Instance.acquire(folder)
    if lock is None:
        raise CommandError(f"Quorum runs on {folder}.", "End it first: quorum quit.")
    try:
        kept = {"keep_models": arguments.keep_models, "keep_identity": arguments.keep_identity}
        doomed = own(folder, **kept)
        if not doomed:
            say(f"There is nothing of Quorum in {folder}.")
            return 0
        if not (arguments.yes or _agreed(folder, doomed)):
            complain("Nothing was removed.")
            return 1
        stays = remove(folder, **kept)
    except StartError as error:
        raise CommandError(error.message, error.hint) from None
    except OSError as error:
        raise CommandError(f"Not everything could be removed: {error.strerror or error}.", "Try again.") from None
    finally:
        lock.release()
    say(f"{clean(str(folder))} is as on the first day{f'; it still has {_listed(stays)}' if stays else ''}.")
    return 0


def _agreed(folder: Path, doomed: list[Path]) -> bool:
    if not sys.stdin.isatty():
        raise CommandError("This needs your word: nobody can be asked here.", "Add --yes.")
    say(f"These will be removed from {clean(str(folder))}, conversations and jobs with them:")
    for path in doomed:
        say(f"  {clean(path.name):<24}{size(_bytes(path))}")
    sys.stdout.write("Type 'reset' to go on: ")
    sys.stdout.flush()
    return sys.stdin.readline().strip() == "reset"


def _bytes(path: Path) -> int:
    return sum(part.lstat().st_size for part in ([path] if path.is_file() else path.rglob("*")))


def _listed(names: list[str]) -> str:
    return ", ".join(clean(name) for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "export": export,
    "diagnostics": diagnostics,
    "reset": reset,
}
