"""What a report must not tell: who and where its user is, and anything that opens something."""

from __future__ import annotations

import getpass
import re
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

NAME_MIN: Final = 2

_KEY: Final = re.compile(r"\b(?:qk_|sk-|ghp_|hf_)[A-Za-z0-9_-]{8,}")
_BEARER: Final = re.compile(r"(?i)\b(authorization:?(?:\s+bearer)?|bearer|token=)\s*[^\s,;]+")
_LONG: Final = re.compile(r"\b[A-Za-z0-9_-]{32,}={0,2}(?![A-Za-z0-9])")
_URL: Final = re.compile(r"\b([a-z][a-z0-9+.-]*://)(?:[^\s/@\"']*@)?[^\s/:\"']+")
_IPV4: Final = re.compile(r"\b(?!127\.0\.0\.1\b)(?:\d{1,3}\.){3}\d{1,3}\b(?!\.\d)")
_IPV6: Final = re.compile(r"(?<![\w:.])(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4}(?:%\w+)?(?![\w:])")
_MAC: Final = re.compile(r"\b(?:[0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}\b")
_MAIL: Final = re.compile(r"\b[\w.+-]+@[\w-]+\.[\w.-]+\b")
_TIME: Final = re.compile(r"\d{1,2}:\d{2}:\d{2}")


class Redactor:
    """Takes names, folders, addresses and secrets out of text. ``names`` are replaced by what they map to."""

    def __init__(self, names: Mapping[str, str], folders: Iterable[tuple[Path, str]] = ()) -> None:
        paths = sorted(((str(path), word) for path, word in folders), key=lambda pair: -len(pair[0]))
        self._paths = [(path, word) for path, word in paths if len(path) > 1]
        known = {name: word for name, word in names.items() if len(name) >= NAME_MIN}
        self._names = [
            (re.compile(rf"(?<![\w]){re.escape(name)}(?![\w])", re.IGNORECASE), word)
            for name, word in sorted(known.items(), key=lambda pair: -len(pair[0]))
        ]

    def __call__(self, text: str) -> str:
        """``text`` without them."""
        for path, word in self._paths:
            text = text.replace(path, word)
        text = _URL.sub(r"\1[address]", text)
        text = _BEARER.sub(r"\1 [secret]", text)
        text = _KEY.sub("[secret]", text)
        text = _MAIL.sub("[mail]", text)
        text = _LONG.sub("[id]", text)
        text = _MAC.sub("[address]", text)
        text = _IPV4.sub("[address]", text)
        text = _IPV6.sub(_address, text)
        for pattern, word in self._names:
            text = pattern.sub(word, text)
        return text

    def all(self, value: object) -> object:
        """The same for every text in a JSON value."""
        match value:
            case str():
                return self(value)
            case dict():
                return {self(str(name)): self.all(inner) for name, inner in value.items()}
            case list() | tuple():
                return [self.all(inner) for inner in value]
        return value


def _address(match: re.Match[str]) -> str:
    found = match[0]
    return found if _TIME.fullmatch(found) or found.strip(":") == "" else "[address]"


def here(data_dir: Path, names: Mapping[str, str]) -> Redactor:
    """For a report of this computer: its user, its name, their home and the data folder, and ``names``."""
    folders = [(data_dir, "[data]"), (data_dir.resolve(), "[data]")]
    own = dict(names)
    with suppress(RuntimeError):
        home = Path.home()
        folders += [(home, "~"), (home.resolve(), "~")]
        own.setdefault(home.name, "[user]")
    with suppress(KeyError, OSError):
        own.setdefault(getpass.getuser(), "[user]")
    host = socket.gethostname()
    own.setdefault(host, "[computer]")
    own.setdefault(host.split(".")[0], "[computer]")
    return Redactor(own, folders)
