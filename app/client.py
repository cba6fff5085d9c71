"""The way from a command to the running node: finds it by its data folder and speaks to its HTTP surface.

    CommandError      a sentence, a hint and the exit code 1
    +-- NoNodeError   no node runs on this data folder; exit code 3

Standard library only and imported late, so that a command costs little more than the interpreter's start.
"""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

CALL_TIMEOUT_S = 15.0
STREAM_TIMEOUT_S = 600.0  # the node sends a comment at least every 15 s; this only frees a terminal of a frozen node


class CommandError(Exception):
    """A command can't do what was asked; shown on stderr with its hint."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "", code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code


class NoNodeError(CommandError):
    """No node answers for this data folder."""

    exit_code = 3

    def __init__(self, data_dir: Path) -> None:
        super().__init__(
            f"No Quorum is running on {data_dir}.",
            "Start it: 'quorum serve', or the desktop with 'quorum'. For another data folder give --data-dir.",
        )


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event of an SSE stream; ``name`` is ``message`` where the server gave none, ``comment`` for comment lines."""

    name: str
    data: str


def read_events(response: http.client.HTTPResponse) -> Iterator[ServerEvent]:
    """The events and comments of an SSE response, as they come."""
    name = "message"
    data: list[str] = []
    while line := response.readline():
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if not text:
            if data:
                yield ServerEvent(name, "\n".join(data))
            name, data = "message", []
        elif text.startswith(":"):
            yield ServerEvent("comment", text[1:].strip())
        else:
            field, _, value = text.partition(":")
            value = value.removeprefix(" ")
            if field == "event":
                name = value
            elif field == "data":
                data.append(value)


class Client:
    """Calls of one node at ``address`` (``http://127.0.0.1:7411``) with its control token."""

    def __init__(self, address: str, token: str, data_dir: Path) -> None:
        parts = urlsplit(address)
        self.address = address.rstrip("/")
        self.page = f"{self.address}/#token={token}"
        self._host = parts.hostname or "127.0.0.1"
        self._port = parts.port or 80
        self._headers = {"Authorization": f"Bearer {token}"}
        self._data_dir = data_dir

    @classmethod
    def find(cls, data_dir: Path, port: int | None = None) -> Client:
        """The node of ``data_dir``; ``port`` overrides the one it wrote down. Raises NoNodeError, CommandError."""
        try:
            written = json.loads((data_dir / "node.json").read_text("utf-8"))
            token = (data_dir / "control.token").read_text("utf-8").strip()
            address = f"http://127.0.0.1:{port}" if port else str(written["address"])
            if not _lives(int(written["pid"])):
                raise NoNodeError(data_dir)
        except FileNotFoundError:
            raise NoNodeError(data_dir) from None
        except OSError as error:
            raise CommandError(
                f"The data folder can't be read: {error}", "Run this as the user who runs Quorum."
            ) from None
        except (ValueError, KeyError, TypeError):
            raise CommandError(
                f"{data_dir / 'node.json'} can't be understood.", "Restart Quorum: it writes it anew."
            ) from None
        return cls(address, token, data_dir)

    @contextmanager
    def open(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> Iterator[http.client.HTTPResponse]:
        """One call; its answer of status 2xx, closed with the block. Raises NoNodeError, CommandError."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
        sent = {**self._headers, **(headers or {})}
        payload = None
        if body is not None:
            payload = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        try:
            connection.request(method, path, payload, sent)
            response = connection.getresponse()
            if response.status >= 300:
                raise refusal(response)
            yield response
        except ConnectionRefusedError:
            raise NoNodeError(self._data_dir) from None
        except (http.client.HTTPException, OSError) as error:
            raise CommandError(
                f"The connection to Quorum broke: {error or type(error).__name__}.",
                "See whether it still runs: 'quorum status'.",
            ) from None
        finally:
            connection.close()

    def call(self, method: str, path: str, body: Any = None, *, timeout_s: float = CALL_TIMEOUT_S, **query: Any) -> Any:
        """One call with a JSON answer (None when it has no body). Raises NoNodeError, CommandError."""
        full = f"{path}?{urlencode(query)}" if query else path
        with self.open(method, full, body, timeout_s=timeout_s) as response:
            content = response.read()
        try:
            return json.loads(content) if content else None
        except ValueError:
            raise not_quorum() from None

    def events(self, path: str = "/local/v1/events") -> Iterator[ServerEvent]:
        """An event stream of the node until it ends or the caller stops. Raises NoNodeError, CommandError."""
        with self.open("GET", path, timeout_s=STREAM_TIMEOUT_S) as response:
            yield from read_events(response)


def _lives(pid: int) -> bool:
    """Whether a process ``pid`` is there; a node that was killed leaves its files behind."""
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def refusal(response: http.client.HTTPResponse) -> CommandError:
    """What an answer of status 3xx to 5xx says, as the error that a command shows."""
    try:
        error = json.loads(response.read(1 << 20))["error"]
        return CommandError(str(error["message"]), str(error.get("hint") or ""), str(error.get("code") or ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        return not_quorum(response.status)


def not_quorum(status: int = 200) -> CommandError:
    return CommandError(
        f"What answers at this address is not Quorum (status {status}).",
        "Another program took the port, or the versions differ: restart Quorum.",
    )
