"""Values that cross a process border: the page, the command line, files. The page's types are generated from here.

Units are in the names; times called ``*_at`` are Unix seconds. Every struct is immutable.
"""

from __future__ import annotations

from typing import Any

from router.states import JobState, NodeMode
from router.wire_base import Wire as Wire
from router.wire_care import UpdateInfo
from router.wire_peers import PairingInfo, PeerInfo
from router.wire_receipt import Predicted as Predicted
from router.wire_receipt import Receipt as Receipt
from router.wire_receipt import Try as Try
from router.wire_receipt import Verdict as Verdict
from router.wire_snapshot import PeerModel as PeerModel
from router.wire_snapshot import PeerSnapshot as PeerSnapshot


class ErrorInfo(Wire, frozen=True, kw_only=True):
    """What went wrong: stable code, one sentence, a hint what to do, the HTTP status it has."""

    code: str
    message: str
    hint: str
    status: int
    retry_after_s: float | None = None


class JobInfo(Wire, frozen=True, kw_only=True):
    """One job as lists show it. ``place`` is 1 for the next to run; ``why`` says what it waits for."""

    id: str
    kind: str
    origin: str
    model: str
    state: JobState
    created_at: float
    started_at: float | None = None
    completed_at: float | None = None
    attempt: int = 0
    place: int | None = None
    eta_s: float | None = None
    why: str = ""
    loading_pct: int | None = None
    tokens: int = 0
    node: str | None = None
    engine: str | None = None
    chat_id: str | None = None
    key: str | None = None
    error: ErrorInfo | None = None
    receipt: Receipt | None = None


class EngineInfo(Wire, frozen=True, kw_only=True):
    """One engine on this computer. ``state`` is starting, ready or failed; ``detail`` says why it failed."""

    id: str
    kind: str
    label: str
    url: str
    state: str
    detail: str = ""
    version: str = ""
    width: int = 1
    in_flight: int = 0


class ModelInfo(Wire, frozen=True, kw_only=True):
    """One model at one engine. ``name`` is what clients ask for. ``residency`` is cold, loading or warm."""

    name: str
    node: str
    node_name: str
    local: bool
    engine: str
    digest: str | None = None
    size_bytes: int | None = None
    family: str = ""
    parameters: str = ""
    quantisation: str = ""
    context: int | None = None
    capabilities: list[str] = []
    residency: str = "cold"
    loading_pct: int | None = None
    in_flight: int = 0
    waiting: int = 0
    expires_at: float | None = None
    memory_bytes: int | None = None
    source: str = ""
    problem: str = ""
    modified_at: float | None = None


class NodeInfo(Wire, frozen=True, kw_only=True):
    """This computer's node. ``models`` counts what its engines offer; ``notice`` is what the user must look at.

    ``network`` are the addresses at which other computers reach it, with a key.
    """

    id: str
    name: str
    version: str
    mode: NodeMode
    address: str
    port: int
    started_at: float
    paused_until: float | None = None
    running: int = 0
    waiting: int = 0
    models: int = 0
    ram_total_bytes: int = 0
    ram_free_bytes: int = 0
    gpu: str = ""
    vram_total_bytes: int = 0
    vram_free_bytes: int = 0
    disk_free_bytes: int = 0
    data_dir: str = ""
    notice: str = ""
    network: list[str] = []
    sleep: str = ""
    update: UpdateInfo | None = None


class SettingInfo(Wire, frozen=True, kw_only=True):
    """One setting as the Settings page and the README show it. ``source`` is default, file or environment."""

    name: str
    title: str
    sentence: str
    group: str
    type: str
    default: Any
    value: Any
    choices: list[str] = []
    unit: str = ""
    source: str = "default"
    environment: str = ""
    restart: bool = False


class ChatInfo(Wire, frozen=True, kw_only=True):
    """One conversation in the list."""

    id: str
    title: str
    model: str
    created_at: float
    updated_at: float
    running_job: str | None = None


class ChatOptions(Wire, frozen=True, kw_only=True):
    """What the user set for one conversation; None leaves the engine's default."""

    system: str = ""
    temperature: float | None = None
    max_tokens: int | None = None


class Message(Wire, frozen=True, kw_only=True):
    """One message; ``state`` is running or ended. An answer has ``job_id``; once ended, ``receipt`` or ``error``."""

    id: str
    chat_id: str
    parent_id: str | None
    role: str
    content: str
    reasoning: str = ""
    reasoning_s: float | None = None
    images: list[str] = []
    model: str = ""
    created_at: float
    state: str = "ended"
    job_id: str | None = None
    receipt: Receipt | None = None
    error: ErrorInfo | None = None


class Chat(Wire, frozen=True, kw_only=True):
    """A conversation with its messages, oldest first. Messages form a tree by ``parent_id``; the newest leaf shows."""

    info: ChatInfo
    options: ChatOptions
    messages: list[Message]


class Snapshot(Wire, frozen=True, kw_only=True):
    """Everything the page shows at its start; ``Change`` events keep it true."""

    node: NodeInfo
    engines: list[EngineInfo]
    models: list[ModelInfo]
    jobs: list[JobInfo]
    chats: list[ChatInfo]
    settings: list[SettingInfo]
    peers: list[PeerInfo] = []
    pairing: PairingInfo = PairingInfo()


class Change(Wire, frozen=True, kw_only=True):
    """One pushed change: each field that is present replaces what the page has.

    ``jobs`` and ``chats`` are merged by id (``gone`` lists ids to remove); ``engines``, ``models``, ``settings`` and
    ``peers`` replace the whole list; ``message`` is a new or changed message of the chat it names.
    """

    node: NodeInfo | None = None
    engines: list[EngineInfo] | None = None
    models: list[ModelInfo] | None = None
    jobs: list[JobInfo] | None = None
    chats: list[ChatInfo] | None = None
    settings: list[SettingInfo] | None = None
    peers: list[PeerInfo] | None = None
    pairing: PairingInfo | None = None
    message: Message | None = None
    gone: list[str] | None = None
    notice: str | None = None


class KeyUsed(Wire, frozen=True, kw_only=True):
    """What an API key was used for: jobs that ended, and their tokens."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class KeyInfo(Wire, frozen=True, kw_only=True):
    """One API key in force. ``name`` is the person or program, ``tail`` the key's last four characters.

    ``today`` is the day in UTC.
    """

    id: str
    name: str
    tail: str
    created_at: float
    used_at: float | None
    today: KeyUsed
    total: KeyUsed


class MadeKey(Wire, frozen=True, kw_only=True):
    """Answer of ``POST /local/v1/keys``: the only time that ``key`` is shown."""

    info: KeyInfo
    key: str


# Requests of the control surface.


class NewKey(Wire, frozen=True, kw_only=True):
    """``POST /local/v1/keys``: a key for a person or program."""

    name: str


class NewChat(Wire, frozen=True, kw_only=True):
    """``POST /local/v1/chats``."""

    title: str = ""
    model: str = ""


class ChatPatch(Wire, frozen=True, kw_only=True):
    """``PATCH /local/v1/chats/{id}``: a field that is absent stays."""

    title: str | None = None
    model: str | None = None
    options: ChatOptions | None = None


class NewMessage(Wire, frozen=True, kw_only=True):
    """``POST /local/v1/chats/{id}/messages``: what the user wrote; ``images`` are data: addresses."""

    content: str
    model: str
    parent_id: str | None = None
    images: list[str] = []


class Regenerate(Wire, frozen=True, kw_only=True):
    """``POST /local/v1/chats/{id}/regenerate``: a new answer beside the one named."""

    message_id: str
    model: str = ""


class Answering(Wire, frozen=True, kw_only=True):
    """Answer of the two routes above; follow ``/local/v1/jobs/{job_id}/events``."""

    message: Message | None
    answer: Message
    job_id: str


class ModelAction(Wire, frozen=True, kw_only=True):
    """``POST /local/v1/models/load|unload|remove``: a public model name, optionally at one engine."""

    name: str
    engine: str = ""


class AddModel(Wire, frozen=True, kw_only=True):
    """``POST /local/v1/models/add``: an absolute path of a .gguf file or of a folder with such files."""

    path: str


class Added(Wire, frozen=True, kw_only=True):
    """Answer of ``models/add``: names now offered, and files refused with their reason."""

    names: list[str]
    refused: dict[str, str]


class PauseRequest(Wire, frozen=True, kw_only=True):
    """``POST /local/v1/pause``: without ``for_s`` until resumed."""

    for_s: float | None = None


class SessionRequest(Wire, frozen=True, kw_only=True):
    """``POST /local/v1/session``: the control token of the printed address, traded for a cookie."""

    token: str


class State(Wire, frozen=True, kw_only=True):
    """``event: state`` of a job's event stream."""

    state: JobState
    place: int | None = None
    eta_s: float | None = None
    loading_pct: int | None = None
    why: str = ""
    attempt: int = 0
    node: str | None = None


class Ended(Wire, frozen=True, kw_only=True):
    """``event: ended``, the last of a job's event stream."""

    state: JobState
    receipt: Receipt | None = None
    error: ErrorInfo | None = None
