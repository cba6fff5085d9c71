"""Every setting once: name, type, default, sentence. Saved atomically; environment and command line go before the file.

The Settings page, the README's table and the command line are generated from ``SETTINGS``.
"""

from __future__ import annotations

import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec

from router.errors import BadRequestError, StartError, StoreError
from router.wire import SettingInfo

Value: TypeAlias = bool | int | float | str

_HOST: Final = r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])"
_PORT: Final = r"(?:[1-9]\d{0,4})"


def _each(pattern: str, example: str) -> Callable[[str], str]:
    """A check of a comma-separated list: what is wrong with its first odd entry, as a sentence; empty when none is."""
    fits = re.compile(pattern)

    def check(text: str) -> str:
        for entry in filter(None, (part.strip() for part in text.split(","))):
            if not fits.fullmatch(entry):
                shown = entry.rpartition("@")[2][:64]  # what stands before it is a key
                return f"'{shown}' can't be used here; write it like {example}."
        return ""

    return check


def _folder(text: str) -> str:
    """A check of a folder, which must be there."""
    try:
        good = not text or Path(text).expanduser().is_dir()
    except (OSError, RuntimeError):
        good = False
    return "" if good else f"There is no folder '{text[:128]}'."


def _feed(text: str) -> str:
    """A check of the address of updates: https, or http on this computer."""
    if not text or re.fullmatch(
        r"https://[^\s/@#]+/[^\s#]+|http://(?:localhost|127\.0\.0\.1|\[::1\])(?::\d+)?/[^\s#]+", text
    ):
        return ""
    return "Write a whole address that begins with https, like https://example.org/quorum/manifest.json."


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. ``restart`` means that a change counts from the next start.

    ``check`` says what is wrong with a value that somebody sets now; what a file or the environment has is not asked.
    """

    name: str
    title: str
    sentence: str
    group: str
    default: Value
    choices: tuple[str, ...] = ()
    unit: str = ""
    low: float = -math.inf
    high: float = math.inf
    restart: bool = False
    check: Callable[[str], str] | None = None

    @property
    def environment(self) -> str:
        return f"QUORUM_{self.name.upper()}"

    @property
    def type(self) -> str:
        return {bool: "switch", int: "integer", float: "number", str: "text"}[type(self.default)]

    def parse(self, raw: object) -> Value:
        """``raw`` (JSON value or text of the environment) as this setting's type. Raises BadRequestError."""
        value = self._typed(raw)
        if isinstance(value, str):
            if self.choices and value not in self.choices:
                raise self._wrong(f"must be one of {', '.join(self.choices)}")
            if len(value) > 1024 or any(ord(letter) < 32 for letter in value):
                raise self._wrong("must be one line of at most 1,024 characters")
        elif not isinstance(value, bool) and not self.low <= value <= self.high:
            raise self._wrong(f"must lie between {self.low:g} and {self.high:g}")
        return value

    def _typed(self, raw: object) -> Value:
        kind = type(self.default)
        if kind is bool:
            if isinstance(raw, bool):
                return raw
            words = {
                "1": True,
                "true": True,
                "yes": True,
                "on": True,
                "0": False,
                "false": False,
                "no": False,
                "off": False,
            }
            if (found := words.get(str(raw).strip().lower())) is None:
                raise self._wrong("must be on or off (1 or 0)")
            return found
        if kind is str:
            if not isinstance(raw, str):
                raise self._wrong("must be text")
            return raw.strip()
        if isinstance(raw, bool) or not isinstance(raw, int | float | str):
            raise self._wrong("must be a number")
        try:
            number = float(raw)
        except (ValueError, OverflowError):
            raise self._wrong("must be a number") from None
        if not math.isfinite(number) or (kind is int and number != int(number)):
            raise self._wrong("must be a whole number" if kind is int else "must be a finite number")
        return int(number) if kind is int else number

    def _wrong(self, what: str) -> BadRequestError:
        return BadRequestError(f"The setting '{self.title}' ({self.name}) {what}.", field=self.name)


SETTINGS: Final[tuple[Setting, ...]] = (
    Setting("name", "Name of this computer", "How other people's Quorum shows this computer; empty takes the system's name.", "This computer", ""),
    Setting("start_at_login", "Start at login", "Start Quorum hidden in the tray when you log in.", "This computer", False),
    Setting("stay_awake", "Stay awake while answering", "Keep this computer from falling asleep while a model answers on it, for you or for others.", "This computer", True),
    Setting("theme", "Appearance", "Colours of the window.", "This computer", "system", choices=("system", "light", "dark")),
    Setting("share", "Share this computer's models", "Let paired computers use this computer's models; while it is off nothing is announced.", "Sharing", False),
    Setting("builtin_engine", "Built-in engine", "Run models inside Quorum with llama.cpp.", "Engines", True, restart=True),
    Setting("engines", "Other engines", "Addresses of OpenAI-compatible or Ollama engines, separated by commas, one that needs a key as key@address; empty finds those on this computer's usual ports.", "Engines", "", check=_each(rf"(?:[^@\s]*@)?(?:https?://)?{_HOST}(?::{_PORT})?(?:/\S*)?", "http://127.0.0.1:8000/v1")),
    Setting("models_dir", "Folder of models", "Where your own .gguf files lie; empty is the folder 'models' beside the data.", "Engines", "", check=_folder),
    Setting("find_models", "Find models of other programs", "Use the files of LM Studio and Ollama where they lie, without copying them.", "Engines", True),
    Setting("context", "Context size", "How much of a conversation a built-in model keeps in mind, in tokens (100 are about 75 words); 0 takes the model's own, up to 8,192.", "Engines", 0, unit="tokens", low=0, high=1_048_576),
    Setting("threads", "Threads", "Processor threads of the built-in engine; 0 leaves one core for everything else.", "Engines", 0, low=0, high=512),
    Setting("gpu_layers", "GPU layers", "How many layers of a model run on the graphics card; -1 puts as many as fit.", "Engines", -1, low=-1, high=1000),
    Setting("max_loaded", "Models in memory", "How many models the built-in engine keeps loaded at once; the one used longest ago leaves first.", "Engines", 2, low=1, high=32),
    Setting("keep_alive", "Keep models loaded for", "Seconds an idle model stays in memory; -1 keeps it until it must leave.", "Engines", 300.0, unit="s", low=-1, high=604_800),
    Setting("concurrency", "Jobs at once per engine", "How many requests an engine answers at the same time; 0 is 1 for Ollama and 8 for others. The built-in engine answers one.", "Queue", 0, low=0, high=4096),
    Setting("max_attempts", "Attempts", "How often a job is tried before it fails.", "Queue", 3, low=1, high=100),
    Setting("job_ttl", "Keep ended jobs for", "Seconds an ended job stays in the list and can be fetched.", "Queue", 86_400.0, unit="s", low=0, high=31_536_000),
    Setting("forget_bodies", "Forget at once", "Blank prompts and answers of every job as soon as it has ended; the conversations of the Chat page stay.", "Queue", False),
    Setting("bodies_mib", "Room for prompts and answers", "Most that kept prompts, answers and uploaded files may take on disk.", "Queue", 2048, unit="MiB", low=1, high=1_048_576),
    Setting("route", "Route", "Who serves first: other computers, this one, or whoever is done soonest.", "Queue", "peers-first", choices=("peers-first", "local-first", "fastest")),
    Setting("model_routes", "Routes of single models", "Comma-separated models that have a route of their own, each as model=route with peers-first, local-first or fastest.", "Queue", "", check=_each(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}\s*=\s*(?:peers-first|local-first|fastest)", "qwen3=local-first")),
    Setting("require_key", "Require a key", "Programs on this computer, too, must send an API key.", "Network", False),
    Setting("listen_lan", "Answer on the network", "Other computers of your networks may call the API, each with a key: at this computer's own addresses, and by the names under 'Allowed host names'. Public addresses stay closed.", "Network", False),
    Setting("origins", "Allowed web pages", "Comma-separated origins of web pages that may call the API from a browser, e.g. http://localhost:3000.", "Network", "", check=_each(rf"[a-z][a-z0-9+.-]*://{_HOST}(?::{_PORT})?/?", "http://localhost:3000")),
    Setting("hosts", "Allowed host names", "Comma-separated further names under which this address may be called, e.g. host.docker.internal.", "Network", "", check=_each(rf"{_HOST}(?::{_PORT})?", "host.docker.internal")),
    Setting("webhook_private", "Webhooks into private networks", "Let webhooks of jobs go to addresses of private networks, too; those of this computer and public ones are always allowed.", "Network", False),
    Setting("also_listen", "Also answer on", "Comma-separated further addresses as host:port, e.g. 127.0.0.1:11434 for Ollama's clients.", "Network", "", restart=True, check=_each(rf"{_HOST}:{_PORT}", "127.0.0.1:11434")),
    Setting("port", "Port", "Port of the client and control API on this computer.", "Network", 7411, low=0, high=65_535, restart=True),
    Setting("peer_port", "Peer port", "Port on which paired computers reach this one.", "Network", 7412, low=0, high=65_535, restart=True),
    Setting("update_feed", "Address of updates", "Where newer versions are announced, e.g. https://example.org/quorum/manifest.json; empty looks nowhere. What it offers is installed only when you say so.", "Updates", "", check=_feed),
)  # fmt: skip

BY_NAME: Final[dict[str, Setting]] = {setting.name: setting for setting in SETTINGS}


class Settings(Mapping[str, Any]):
    """The values in force: the command line over the environment over the file over the defaults."""

    def __init__(
        self,
        path: Path | None,
        environ: Mapping[str, str] | None = None,
        overrides: Mapping[str, Value] | None = None,
    ) -> None:
        self._path = path
        self._environ = os.environ if environ is None else environ
        self._overrides = dict(overrides or {})
        self._file = self._read()
        self._fixed = self._from_environment()
        self._listeners: list[Callable[[frozenset[str]], None]] = []

    def _read(self) -> dict[str, Any]:
        if self._path is None or not self._path.exists():
            return {}
        try:
            raw = msgspec.json.decode(self._path.read_bytes(), type=dict[str, Any])
            return {name: BY_NAME[name].parse(value) for name, value in raw.items() if name in BY_NAME}
        except (msgspec.DecodeError, ValueError, RecursionError, OSError, BadRequestError) as error:
            raise StartError(
                f"The settings file {self._path} can't be used: {error}", "Correct it, or move it away to start afresh."
            ) from error

    def _from_environment(self) -> dict[str, Value]:
        try:
            fixed = {s.name: s.parse(self._environ[s.environment]) for s in SETTINGS if s.environment in self._environ}
        except BadRequestError as error:
            raise StartError(str(error), "Correct the environment variable.") from error
        try:
            return fixed | {name: BY_NAME[name].parse(value) for name, value in self._overrides.items()}
        except BadRequestError as error:
            raise StartError(str(error), "Correct the command line.") from error

    def __getitem__(self, name: str) -> Any:
        setting = BY_NAME[name]
        return self._fixed.get(name, self._file.get(name, setting.default))

    def __iter__(self) -> Iterator[str]:
        return iter(BY_NAME)

    def __len__(self) -> int:
        return len(BY_NAME)

    def listen(self, listener: Callable[[frozenset[str]], None]) -> None:
        """Call ``listener`` with the names that changed after each ``update``."""
        self._listeners.append(listener)

    def update(self, changes: Mapping[str, object]) -> None:
        """Check all ``changes``, save them, tell the listeners.

        Raises BadRequestError, or StoreError when the file can't be written; then nothing has changed.
        """
        parsed: dict[str, Value] = {}
        for name, raw in changes.items():
            if name not in BY_NAME:
                raise BadRequestError(f"There is no setting '{name[:64]}'.", field=name[:64])
            if name in self._fixed:
                raise BadRequestError(
                    f"The setting '{name}' is fixed by the environment or the command line.", field=name
                )
            setting = BY_NAME[name]
            value = parsed[name] = setting.parse(raw)
            if setting.check is not None and (problem := setting.check(str(value))):
                raise BadRequestError(problem, field=name)
        changed = frozenset(name for name, value in parsed.items() if self[name] != value)
        self._save(self._file | parsed)
        self._file |= parsed
        if changed:
            for listener in self._listeners:
                listener(changed)

    def _save(self, values: dict[str, Value]) -> None:
        if self._path is None:
            return
        temporary = ""
        try:
            handle, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=".settings-")
            with os.fdopen(handle, "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(values)))
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(self._path)
        except OSError as error:
            if temporary:
                Path(temporary).unlink(missing_ok=True)
            raise StoreError(f"The settings could not be saved: {error.strerror}.") from error

    def infos(self) -> list[SettingInfo]:
        """All settings with their values, as the page shows them."""
        return [
            SettingInfo(
                name=s.name,
                title=s.title,
                sentence=s.sentence,
                group=s.group,
                type="choice" if s.choices else s.type,
                default=s.default,
                value=self[s.name],
                choices=list(s.choices),
                unit=s.unit,
                source="environment" if s.name in self._fixed else "file" if s.name in self._file else "default",
                environment=s.environment,
                restart=s.restart,
            )
            for s in SETTINGS
        ]


@dataclass(frozen=True)
class NodeOptions:
    """How to start a node. ``overrides`` are settings fixed by the command line.

    Defined here so that the desktop can be told how to start before the node's imports, which take 0.4 s.
    """

    data_dir: Path
    overrides: Mapping[str, Value] = field(default_factory=dict)
    discovery: bool = True
    log_level: str = "info"
