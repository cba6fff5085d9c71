"""The built page: its files are read once at start and served from a table, so that no path ever meets the disk."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from aiohttp import web

DIRECTORY: Final = Path(__file__).parent / "page"
CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
RUNNING: Final = "Quorum is running"

_UNBUILT: Final = (
    b"<!doctype html><html lang=en><meta charset=utf-8><title>Quorum</title><h1>Quorum is running</h1>"
    b"<p>The page was not built. Run <code>python3 dev.py setup</code> in the clone and start Quorum again; "
    b"the API and the commands work meanwhile.</p></html>"
)
_TYPES: Final = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".json": "application/json",
    ".woff2": "font/woff2",
    ".txt": "text/plain",
}
_TEXT: Final = ("text/", "application/json", "image/svg+xml")
_FOREVER: Final = "public, max-age=31536000, immutable"
_ASK_AGAIN: Final = "no-cache"


class Page:
    """Routes of the files below ``directory``; ``/`` is ``index.html`` for browsers and a line of text for the rest."""

    def __init__(self, directory: Path = DIRECTORY) -> None:
        self._files = dict(_read(directory)) if directory.is_dir() else {}
        self._index = self._files.pop("/index.html", _UNBUILT)

    @property
    def built(self) -> bool:
        """Whether there is a page."""
        return self._index is not _UNBUILT

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        app.router.add_get("/", self.index)
        for path in self._files:
            app.router.add_get(path, self.file)

    async def index(self, request: web.Request) -> web.Response:
        """``GET /`` and ``HEAD /``: Ollama's clients ask here whether somebody is at home."""
        if "text/html" not in request.headers.get("Accept", ""):
            return web.Response(text=RUNNING)
        return _answer(self._index, "text/html", _ASK_AGAIN)

    async def file(self, request: web.Request) -> web.Response:
        """One file; those below ``/assets/`` have their hash in the name and never change."""
        resource = request.match_info.route.resource
        path = resource.canonical if resource is not None else ""
        cache = _FOREVER if path.startswith("/assets/") else _ASK_AGAIN
        return _answer(self._files[path], _type(path), cache)


def _read(directory: Path) -> Iterable[tuple[str, bytes]]:
    for file in sorted(directory.rglob("*")):
        if file.is_file() and not file.is_symlink() and not file.name.startswith("."):
            yield "/" + file.relative_to(directory).as_posix(), file.read_bytes()


def _type(path: str) -> str:
    suffix = Path(path).suffix
    return _TYPES.get(suffix) or mimetypes.guess_type(path)[0] or "application/octet-stream"


def _answer(body: bytes, kind: str, cache: str) -> web.Response:
    headers = {"Cache-Control": cache, "Content-Security-Policy": CSP}
    charset = "utf-8" if kind.startswith(_TEXT) else None
    return web.Response(body=body, content_type=kind, charset=charset, headers=headers)
