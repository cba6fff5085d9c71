"""``selftest``: a node on a throw-away data folder is started and used as a person would; every part says how it went.

A part is ``ok``, ``failed``, or ``absent`` where this computer has no such thing (a tray, a window's libraries).
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.client import STREAM_TIMEOUT_S, Client, read_events
from app.commands.output import clean, say, say_json
from router import __version__
from router.errors import StartError
from router.library import STARTER_NAME

if TYPE_CHECKING:
    from router.node import Node

QUESTION = "Say hello in one short sentence."
CHILD_S = 60.0
MODEL_S = 8.0


class AbsentError(Exception):
    """This computer has no such thing; not a failure."""


@dataclass(frozen=True, slots=True)
class Part:
    """How one part went; ``detail`` is what was seen or what went wrong."""

    name: str
    state: str
    seconds: float
    detail: str


def run(*, as_json: bool) -> int:
    """Try every part; 0 when none failed."""
    with tempfile.TemporaryDirectory(prefix="quorum-selftest-", ignore_cleanup_errors=True) as folder:
        parts = asyncio.run(_all(Path(folder), (lambda part: None) if as_json else _show))
    good = all(part.state != "failed" for part in parts)
    if as_json:
        say_json({"ok": good, "version": __version__, "parts": [asdict(part) for part in parts]})
    else:
        say("All good." if good else "Something failed; see above.")
    return 0 if good else 1


def _show(part: Part) -> None:
    say(f"{part.name:<8}{part.state:<8}{part.seconds:6.1f} s  {clean(part.detail)}")


async def _all(folder: Path, tell: Callable[[Part], None]) -> list[Part]:
    from router.node import Node, NodeOptions

    parts: list[Part] = []

    async def part(name: str, limit_s: float, check: Callable[[], Awaitable[str]]) -> bool:
        started = time.monotonic()
        try:
            async with asyncio.timeout(limit_s):
                state, detail = "ok", await check()
        except AbsentError as absent:
            state, detail = "absent", str(absent)
        except TimeoutError:
            state, detail = "failed", f"not done after {limit_s:.0f} s"
        except StartError as error:
            state, detail = "failed", f"{error.message} {error.hint}"
        except Exception as error:
            state, detail = "failed", str(error) or type(error).__name__
        parts.append(Part(name, state, round(time.monotonic() - started, 3), detail))
        tell(parts[-1])
        return state == "ok"

    node: Node | None = None

    async def start() -> str:
        nonlocal node
        overrides = {"port": 0, "peer_port": 0, "find_models": False, "builtin_engine": True}
        node = Node(NodeOptions(data_dir=folder, overrides=overrides, discovery=False, log_level="warning"))
        await node.start()
        return node.address

    async def stop() -> str:
        if node is not None:
            await node.stop()
        return "ended in order"

    if not await part("node", 15, start) or node is None:
        return parts
    client = Client(node.address, node.control_token, folder)
    told = json.dumps({"address": node.address, "token": node.control_token})
    try:
        await part("page", 10, lambda: asyncio.to_thread(_page, client))
        await part("store", 10, lambda: asyncio.to_thread(_store, client))
        await part("mdns", 15, _mdns)
        await part("model", 120, lambda: asyncio.to_thread(_answer, client))
        await part("window", CHILD_S + 5, lambda: asyncio.to_thread(_window, told))
        await part("tray", CHILD_S + 5, lambda: asyncio.to_thread(_tray))
    finally:
        await part("stop", 15, stop)
    return parts


async def _mdns() -> str:
    """Announce a service of our own kind on loopback only, and find it again as another computer would."""
    from zeroconf import IPVersion, ServiceInfo
    from zeroconf.asyncio import AsyncZeroconf

    kind = "_quorum-test._tcp.local."
    name = f"selftest-{os.getpid()}-{time.monotonic_ns() % 10**9}.{kind}"
    told = ServiceInfo(kind, name, port=9, addresses=[b"\x7f\0\0\1"], server=f"{name.partition('.')[0]}.local.")
    here: Any = {"interfaces": ["127.0.0.1"], "ip_version": IPVersion.V4Only}
    try:
        announcer, looker = AsyncZeroconf(**here), AsyncZeroconf(**here)
    except OSError as error:
        raise AbsentError(f"this computer allows no mDNS: {error.strerror or error}") from error
    try:
        await announcer.async_register_service(told)
        found = await looker.async_get_service_info(kind, name, timeout=5000)
    finally:
        await asyncio.gather(announcer.async_close(), looker.async_close())
    if found is None or found.port != told.port:
        raise RuntimeError("a service announced on loopback was not seen there")
    return "announced and seen on loopback"


def _page(client: Client) -> str:
    with client.open("GET", "/", headers={"Accept": "text/html"}) as response:
        kind, content = response.headers.get_content_type(), response.read()
    if kind != "text/html" or b"<html" not in content.lower():
        raise RuntimeError(f"the page is {kind}, {len(content)} bytes")
    if b"was not built" in content:
        raise RuntimeError("the page was not built; run 'python3 dev.py setup'")
    return f"{len(content)} bytes"


def _store(client: Client) -> str:
    chat = client.call("POST", "/local/v1/chats", {"title": "selftest"})
    if client.call("GET", f"/local/v1/chats/{chat['id']}")["info"]["title"] != "selftest":
        raise RuntimeError("a conversation was not read back as it was written")
    client.call("DELETE", f"/local/v1/chats/{chat['id']}")
    if any(other["id"] == chat["id"] for other in client.call("GET", "/local/v1/chats")):
        raise RuntimeError("a deleted conversation is still there")
    return "a conversation was written, read and deleted"


def _appears(client: Client) -> bool:
    """Whether the starter model is offered; engines start after the node answers, so it gets a while."""
    deadline = time.monotonic() + MODEL_S
    while time.monotonic() < deadline:
        models = client.call("GET", "/local/v1/models")
        if any(model["name"] == STARTER_NAME and not model["problem"] for model in models):
            return True
        time.sleep(0.2)
    return False


def _answer(client: Client) -> str:
    """Stream an answer of the starter model on the built-in engine."""
    if not _appears(client):
        raise RuntimeError("the starter model is not there; run 'python3 dev.py setup', or set QUORUM_STARTER_MODEL")
    body = {
        "model": STARTER_NAME,
        "messages": [{"role": "user", "content": QUESTION}],
        "stream": True,
        "max_tokens": 32,
        "temperature": 0,
    }
    started, first_s, words, done = time.monotonic(), 0.0, 0, False
    with client.open("POST", "/v1/chat/completions", body, timeout_s=STREAM_TIMEOUT_S) as response:
        for event in read_events(response):
            if event.name == "comment":
                continue
            if event.data == "[DONE]":
                done = True
                break
            chunk = json.loads(event.data)
            if "error" in chunk or event.name == "error":
                raise RuntimeError(chunk.get("error", chunk).get("message", "the answer failed"))
            if any((choice.get("delta") or {}).get("content") for choice in chunk.get("choices", [])):
                words += 1
                first_s = first_s or time.monotonic() - started
    if not done or not words:
        raise RuntimeError(f"the answer ended after {words} pieces without its end mark")
    return f"{STARTER_NAME}: first word after {first_s:.1f} s, {words} pieces"


def _child(*arguments: str, stdin: str = "") -> dict[str, Any]:
    """What a probe prints; the frozen program is its own interpreter."""
    itself = [sys.executable] if getattr(sys, "frozen", False) else [sys.executable, "-m", "app"]
    done = subprocess.run(  # noqa: S603 (our own program with fixed words)
        [*itself, "--window-probe", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=CHILD_S,
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        raise RuntimeError(f"the probe ended with code {done.returncode}: {last}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def _need_window_packages() -> None:
    needed = ("webview", "PySide6") if sys.platform == "linux" else ("webview",)
    if any(importlib.util.find_spec(name) is None for name in needed):
        raise AbsentError("the window's packages are not installed")


def _window(told: str) -> str:
    """The page in the product's own window, off-screen: it must have signed in and show where to type."""
    _need_window_packages()
    title, _, words = str(_child("window", stdin=f"{told}\n")["text"]).partition("\n")
    if "Quorum" not in title or not words.strip():
        raise RuntimeError("the page did not get ready in the window")
    return f"'{title}' off-screen"


def _tray() -> str:
    _need_window_packages()
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise AbsentError("there is no display")
    if not _child("tray")["present"]:
        raise AbsentError("this desktop has no tray; closing the window will ask instead of hiding")
    return "present"
