"""``quorum``: the desktop, the headless node and the commands. Everything heavy is imported by what needs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from router.settings import NodeOptions


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code: 0 fine, 1 failed, 2 wrong usage, 3 no Quorum is running."""
    words = list(sys.argv[1:] if argv is None else argv)
    _have_streams()
    if words[:1] == ["--engine-child"]:
        # The frozen program is its own Python: the engine's child process is started through it.
        from router.engines import llama_child

        return llama_child.main()
    if words[:1] == ["--window-probe"]:
        from app.commands import window_probe

        return window_probe.main(words[1:])
    if words[:1] == ["--finish-update"]:
        from app.update import finish

        return finish.main(words[1:])
    if getattr(sys, "frozen", False):
        from app.update import start

        start.begin(words, Path(sys.executable).resolve())
    from app.commands.arguments import parse

    arguments = parse(words)
    from app.client import CommandError
    from app.commands.output import complain

    try:
        return _command(arguments)
    except CommandError as error:
        complain(error.message, error.hint)
        return error.exit_code
    except BrokenPipeError:
        # Whoever read our output has left; what is still buffered must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return 1


def _have_streams() -> None:
    """A program without a console has neither stdout nor stderr."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 # as long as the process lives
            setattr(sys, name, nowhere)


def _command(arguments: argparse.Namespace) -> int:
    match arguments.command:
        case None if arguments.licences:
            from app.commands import licences

            return licences.run()
        case None:
            options = _options(arguments)
            if arguments.at_login:
                from app.commands.at_login import wanted

                if not wanted(options):
                    return 0
            from app import start

            return start.run(options, hidden=arguments.hidden or arguments.at_login)
        case "serve":
            from app.commands import serve

            return serve.run(_options(arguments))
        case "selftest":
            from app.commands import selftest

            return selftest.run(as_json=arguments.json)
        case "service":
            from app.commands.service import service

            return service(arguments)
        case "export" | "diagnostics" | "reset":
            from app.commands.care import COMMANDS as CARE

            return CARE[arguments.command](arguments)
        case "run":
            from app.commands.chat import COMMANDS
        case "status" | "models" | "jobs":
            from app.commands.listing import COMMANDS
        case "keys":
            from app.commands.keys import COMMANDS
        case "update":
            from app.commands.update import COMMANDS
        case "peers" | "pair" | "unpair":
            from app.commands.peers import COMMANDS
        case "doctor":
            from app.commands.doctor import COMMANDS
        case _:
            from app.commands.control import COMMANDS
    from app.client import Client
    from app.commands.arguments import data_dir

    client = Client.find(data_dir(arguments), getattr(arguments, "port", None))
    return COMMANDS[arguments.command](client, arguments)


def _options(arguments: argparse.Namespace) -> NodeOptions:
    """What the flags say to the node."""
    from app.commands.arguments import data_dir
    from router.settings import NodeOptions

    return NodeOptions(
        data_dir=data_dir(arguments),
        overrides={name: getattr(arguments, name) for name in ("port", "peer_port", "name") if name in arguments},
        discovery=not getattr(arguments, "no_discovery", False),
        log_level=getattr(arguments, "log_level", "info"),
    )


if __name__ == "__main__":
    sys.exit(main())
