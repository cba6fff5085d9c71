"""``run``: one question or a conversation with a model in the terminal, streamed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from app.client import STREAM_TIMEOUT_S, Client, CommandError, ServerEvent, read_events
from app.commands.output import clean, complain, say

_PROMPT = ">>> "


def run(client: Client, arguments: argparse.Namespace) -> int:
    """Answer the prompt given as words or on stdin; without one, talk until Ctrl+D."""
    messages: list[dict[str, str]] = []
    if arguments.system:
        messages.append({"role": "system", "content": arguments.system})
    question = " ".join(arguments.prompt)
    if not question and not sys.stdin.isatty():
        question = sys.stdin.read().strip()
        if not question:
            raise CommandError("There is no question on stdin.", "Write it after the model's name, or into stdin.")
    if question:
        _, whole = _ask(client, arguments, [*messages, {"role": "user", "content": question}])
        return 0 if whole else 1
    return _talk(client, arguments, messages)


def _talk(client: Client, arguments: argparse.Namespace, messages: list[dict[str, str]]) -> int:
    """A conversation; what failed or was stopped before its first word leaves no trace in it."""
    _load_line_editing()
    complain(f"Talking to {arguments.model}. Ctrl+C stops an answer, Ctrl+D ends.")
    while True:
        try:
            question = input(_PROMPT).strip()
        except (EOFError, KeyboardInterrupt):
            say()
            return 0
        if not question:
            continue
        asked = [*messages, {"role": "user", "content": question}]
        try:
            answer, _ = _ask(client, arguments, asked)
        except CommandError as error:
            if error.exit_code == 3:
                raise
            complain(error.message, error.hint)
            continue
        if answer:
            messages = [*asked, {"role": "assistant", "content": answer}]


def _load_line_editing() -> None:
    try:
        import readline  # noqa: F401 (its import gives input() the arrow keys)
    except ImportError:
        return


def _ask(client: Client, arguments: argparse.Namespace, messages: list[dict[str, str]]) -> tuple[str, bool]:
    """Stream one answer to stdout. Returns it and whether it is whole; False after Ctrl+C. Raises CommandError."""
    body: dict[str, Any] = {"model": arguments.model, "messages": messages, "stream": True}
    for name, value in (("max_tokens", arguments.max_tokens), ("temperature", arguments.temperature)):
        if value is not None:
            body[name] = value
    screen = Screen()
    try:
        with client.open("POST", "/v1/chat/completions", body, timeout_s=STREAM_TIMEOUT_S) as response:
            for event in read_events(response):
                screen.take(event)
                if screen.ended:
                    break
    except KeyboardInterrupt:
        # Leaving the block closed the connection, and that stops the engine.
        screen.finish()
        complain("Stopped.")
        return screen.answer, False
    except CommandError:
        screen.finish()
        raise
    screen.finish()
    if not screen.ended:
        raise CommandError(
            "The answer broke off.", "The part above is all there is; ask again for a whole answer.", "interrupted"
        )
    return screen.answer, True


class Screen:
    """Puts an answer's events on the terminal: words on stdout, what it waits for and its thoughts on stderr."""

    def __init__(self) -> None:
        self.ended = False
        self._words: list[str] = []
        self._terminal = sys.stdout.isatty()
        self._status = sys.stderr.isatty()
        self._waiting_shown = False
        self._thinking = False

    @property
    def answer(self) -> str:
        return "".join(self._words)

    def take(self, event: ServerEvent) -> None:
        """Show one event. Raises CommandError when it is an error event."""
        if event.name == "comment":
            self._wait(event.data)
            return
        if event.data == "[DONE]":
            self.ended = True
            return
        try:
            chunk = json.loads(event.data)
        except ValueError:
            return
        if event.name == "error" or "error" in chunk:
            told = chunk.get("error", chunk)
            self.finish()
            raise CommandError(
                str(told.get("message", "The answer failed.")), str(told.get("hint") or ""), str(told.get("code"))
            )
        for choice in chunk.get("choices", []):
            delta = choice.get("delta") or {}
            if thought := delta.get("reasoning_content") or delta.get("reasoning"):
                self._think(str(thought))
            if word := delta.get("content"):
                self._say(str(word))

    def finish(self) -> None:
        """End the line that is open."""
        self._wipe()
        if self._words and not (self._words[-1].endswith("\n")):
            say()

    def _say(self, word: str) -> None:
        self._wipe()
        self._words.append(word)
        sys.stdout.write(clean(word) if self._terminal else word)
        sys.stdout.flush()

    def _think(self, thought: str) -> None:
        if self._status:
            self._wipe_waiting()
            self._thinking = True
            sys.stderr.write(f"\x1b[2m{clean(thought)}\x1b[0m")
            sys.stderr.flush()

    def _wait(self, comment: str) -> None:
        """``queued place=2 eta_s=14`` as ``queued, place 2, eta_s 14`` on a line that the answer wipes."""
        if (
            self._status
            and not self._words
            and not self._thinking
            and comment.split(" ", 1)[0] in ("queued", "loading", "prefill")
        ):
            self._waiting_shown = True
            sys.stderr.write(f"\r\x1b[K\x1b[2m{clean(comment.replace('=', ' '))[:100]}\x1b[0m")
            sys.stderr.flush()

    def _wipe_waiting(self) -> None:
        if self._waiting_shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._waiting_shown = False

    def _wipe(self) -> None:
        self._wipe_waiting()
        if self._thinking:
            self._thinking = False
            sys.stderr.write("\n")
            sys.stderr.flush()


COMMANDS: dict[str, Callable[[Client, argparse.Namespace], int]] = {"run": run}
