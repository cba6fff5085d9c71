"""The guard of the client and control surfaces: who may call, decided from a request's head before anything is read.

The rows of the trust page's input table that concern a head live in ``Guard.check``, in the order of the table.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from typing import Final, Protocol
from urllib.parse import unquote

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web

from router.access import PREFIX
from router.errors import BadRequestError, QuorumError, failure
from router.settings import Settings
from router.web.answers import SAFE_HEADERS, error_answer, shape_of
from router.web.hosts import allowed, is_loopback
from router.web.keys import KEY_ID
from router.web.strict_json import decode

MIB: Final = 1024 * 1024
CHAT_BYTES: Final = 32 * MIB
BODY_BYTES: Final = 8 * MIB
FILE_BYTES: Final = 100 * MIB
COOKIE: Final = "quorum_session"
COOKIE_S: Final = 400 * 86_400  # the longest that browsers keep one

_CHAT_PATHS: Final = frozenset(
    {"/v1/chat/completions", "/v1/responses", "/v1/messages", "/api/chat", "/api/generate", "/jobs"}
)
_FILES_PATH: Final = "/v1/files"
_FORM_BYTES: Final = 64 * 1024  # what a form adds to its file
_CONTROL_CHAT: Final = re.compile(r"/local/v1/chats/[^/]+/messages")
_SESSION_PATH: Final = "/local/v1/session"
_OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})
_CLIENT_PREFIXES: Final = ("/v1/", "/api/", "/jobs")
_AUTHORITY: Final = re.compile(r"[A-Za-z0-9._~:@\[\]-]{1,255}")
_TARGET: Final = re.compile(r"/[!$&-;=?-Z_a-z~%\[\]|]*")
_FIELD_NAMES: Final = re.compile(r"[A-Za-z0-9-]+(?:\s*,\s*[A-Za-z0-9-]+)*")
_EXPOSED: Final = (
    "X-Quorum-Job, X-Quorum-Node, X-Quorum-Reason, X-Quorum-Attempts, X-Quorum-Queued-Ms, X-Quorum-Estimate, "
    "Retry-After"
)


class Keys(Protocol):
    """API keys. ``check`` gets the whole ``Authorization`` value and tells the key's id, or None."""

    def check(self, authorization: str) -> str | None: ...


class Sessions(Protocol):
    """Browser sessions by the hash of their secret; they outlive a restart."""

    def known(self, token_hash: str) -> bool: ...
    async def add(self, token_hash: str) -> None: ...


CORS_ORIGIN: Final = web.RequestKey("cors_origin", str)


def body_limit(path: str) -> int:
    """Most bytes a body for ``path`` may have."""
    if path in _CHAT_PATHS or (path.startswith("/local/v1/chats/") and _CONTROL_CHAT.fullmatch(path)):
        return CHAT_BYTES
    return FILE_BYTES + _FORM_BYTES if path == _FILES_PATH else BODY_BYTES


def session_hash(secret: str) -> str:
    """What is stored of a session's secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


class Guard:
    """Decides over each request. Settings that change count from the next request."""

    def __init__(self, settings: Settings, token: str, sessions: Sessions, keys: Keys | None = None) -> None:
        self._settings = settings
        self._token = token.encode()
        self._sessions = sessions
        self._keys = keys
        self._addresses: tuple[tuple[str, int], ...] = ()
        self._allowed = allowed(settings, ())
        settings.listen(self._changed)

    def bound(self, addresses: Iterable[tuple[str, int]]) -> None:
        """The listener answers at ``addresses`` (host, port) from now on."""
        self._addresses = tuple(addresses)
        self._allowed = allowed(self._settings, self._addresses)

    def _changed(self, names: frozenset[str]) -> None:
        if names & {"origins", "hosts", "require_key"}:
            self._allowed = allowed(self._settings, self._addresses)

    def check(self, request: web.BaseRequest) -> web.Response | None:
        """The refusal of ``request``, or None when it may go on. Reads no byte of the body."""
        ours = self._allowed
        get = request.headers.get
        target = request.raw_path
        if request.version is not HttpVersion11 and not _is_older(request):
            return _refuse(request, "bad_request", "Only HTTP/1.1, and HTTP/1.0 with a plain body, are spoken here.")
        if _TARGET.fullmatch(target) is None:
            return _refuse(request, "bad_request", "The request's target must be a plain path.")
        host = get(hdrs.HOST)
        if host not in ours.hosts and not self._other_host(request, host):
            if host and _AUTHORITY.fullmatch(host) is None:
                return _refuse(request, "bad_request", "The Host header is malformed.")
            return _refuse(request, "forbidden", "This Host is not one of Quorum's addresses.", _HOST_HINT)
        path = target.partition("?")[0]
        if "%" in path:
            path = unquote(path)
            if not path.isprintable():
                return _refuse(request, "bad_request", "The request's path has control characters.")
        control = path.startswith("/local/")
        page = False
        origin = get(hdrs.ORIGIN)
        site = get("Sec-Fetch-Site")
        if origin is not None or site is not None:
            if origin is not None and origin in ours.origins and not control:
                if request.method == hdrs.METH_OPTIONS and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers:
                    return _preflight(request, origin)
                request[CORS_ORIGIN] = origin
            elif (origin is not None and origin != f"http://{(host or '').lower()}") or site not in _OWN_SITES:
                return _refuse(request, "forbidden", "Web pages of other origins may not call Quorum.", _ORIGIN_HINT)
            else:
                page = origin is not None or site == "same-origin"
        if (refusal := _check_body(request, path)) is not None:
            return refusal
        return self._check_caller(request, path, control, page)

    def _other_host(self, request: web.BaseRequest, host: str | None) -> bool:
        """Slow forms: other letter case; on a wildcard socket the very address that was connected to."""
        if not host:
            return False
        if host.lower() in self._allowed.hosts:
            return True
        if not self._allowed.wildcard:
            return False
        at, port = _sockname(request)
        return not is_loopback(at) and host == (f"[{at}]:{port}" if ":" in at else f"{at}:{port}")

    def _check_caller(self, request: web.BaseRequest, path: str, control: bool, page: bool) -> web.Response | None:
        local = _is_local(request)
        if control:
            if not local:
                return _refuse(request, "forbidden", "The control surface answers on this computer only.")
            if path == _SESSION_PATH or self._is_control(request):
                return None
            return _refuse(
                request, "unauthorized", "The control surface needs the control token or a session.", _TOKEN_HINT
            )
        if not _is_client(path):
            return None if local else _refuse(request, "forbidden", "The page opens on this computer only.")
        authorization = request.headers.get(hdrs.AUTHORIZATION)
        if page:
            if local and self._is_control(request):
                return None
            return _refuse(request, "unauthorized", "The page needs its session.", _TOKEN_HINT)
        if authorization is None and (other := request.headers.get("x-api-key")) is not None:
            authorization = f"Bearer {other}"
        if authorization is not None and (found := self._key(authorization)) is not None:
            request[KEY_ID] = found
            return None
        if _needs_no_key(path, local):
            return None
        if authorization is not None and authorization.partition(" ")[2].lstrip().startswith(PREFIX):
            # whoever means to be known is told, rather than served as a stranger
            return _refuse(request, "unauthorized", "This API key opens nothing: it was revoked or mistyped.")
        if local and (not self._allowed.require_key or self._has_token(authorization or "")):
            return None
        return _refuse(request, "unauthorized", "This address needs an API key.", _KEY_HINT)

    def _key(self, authorization: str) -> str | None:
        return self._keys.check(authorization) if self._keys is not None else None

    def _is_control(self, request: web.BaseRequest) -> bool:
        """Whether ``request`` carries the control token, or the cookie from the own page."""
        authorization = request.headers.get(hdrs.AUTHORIZATION)
        if authorization is not None and self._has_token(authorization):
            return True
        raw = request.headers.get(hdrs.COOKIE)
        if raw is None or COOKIE not in raw:
            return False
        # Cookies are shared between ports of one host: a call that changes something must say it is the own page's.
        safe = request.method in (hdrs.METH_GET, hdrs.METH_HEAD)
        if not safe and hdrs.ORIGIN not in request.headers and request.headers.get("Sec-Fetch-Site") != "same-origin":
            return False
        secret = request.cookies.get(COOKIE)
        return secret is not None and self._sessions.known(session_hash(secret))

    def _has_token(self, authorization: str) -> bool:
        scheme, _, given = authorization.partition(" ")
        return scheme.lower() == "bearer" and self._is_token(given)

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), self._token)

    async def open_session(self, request: web.Request) -> web.Response:
        """``POST /local/v1/session``: the control token, traded for a cookie that outlives a restart."""
        token = decode(await request.read()).get("token")
        if not isinstance(token, str):
            raise BadRequestError("'token' must be text.", field="token")
        if not self._is_token(token):
            raise QuorumError("unauthorized", "That is not the control token of this start.", _TOKEN_HINT)
        secret = secrets.token_urlsafe(32)
        await self._sessions.add(session_hash(secret))
        answer = web.Response(status=204)
        answer.set_cookie(COOKIE, secret, path="/", httponly=True, samesite="Strict", max_age=COOKIE_S)
        return answer

    async def finish(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Put the headers every answer has; for ``Application.on_response_prepare``."""
        dress(request, response)


def dress(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """The safety headers, and those of CORS where the origin is allowed."""
    headers = response.headers
    headers.update(SAFE_HEADERS)
    headers.setdefault("Cache-Control", "no-store")
    origin = request.get(CORS_ORIGIN)
    if origin is not None:
        headers["Access-Control-Allow-Origin"] = origin
        headers["Access-Control-Expose-Headers"] = _EXPOSED
        headers["Cross-Origin-Resource-Policy"] = "cross-origin"
        headers["Vary"] = "Origin"


_OWN_SITES: Final = (None, "same-origin", "none")
_HOST_HINT: Final = "Call it as localhost with the right port, or add the name to the setting 'hosts'."
_ORIGIN_HINT: Final = "If you trust the page, add its origin to the setting 'origins'."
_KEY_HINT: Final = "Send one as 'Authorization: Bearer <key>'; 'quorum keys add NAME' makes it."
_TOKEN_HINT: Final = "Open the address that 'quorum serve' prints, or open the window."  # noqa: S105 - a sentence


def _refuse(request: web.BaseRequest, code: str, message: str, hint: str = "") -> web.Response:
    answer = error_answer(shape_of(request.path), failure(code, message, hint))
    dress(request, answer)
    if code == "bad_request" or request.body_exists:
        answer.force_close()
    return answer


def _preflight(request: web.BaseRequest, origin: str) -> web.Response:
    request[CORS_ORIGIN] = origin
    answer = web.Response(status=204)
    dress(request, answer)
    answer.headers["Access-Control-Allow-Methods"] = "GET, POST, DELETE, OPTIONS"
    answer.headers["Access-Control-Max-Age"] = "600"
    asked = request.headers.get("Access-Control-Request-Headers", "")
    if len(asked) <= 1024 and _FIELD_NAMES.fullmatch(asked):
        answer.headers["Access-Control-Allow-Headers"] = asked
    if request.headers.get("Access-Control-Request-Private-Network") == "true":
        answer.headers["Access-Control-Allow-Private-Network"] = "true"
    return answer


def _check_body(request: web.BaseRequest, path: str) -> web.Response | None:
    get = request.headers.get
    coding = get(hdrs.TRANSFER_ENCODING)
    if coding is not None and coding.lower() != "chunked":
        return _refuse(request, "bad_request", "Transfer-Encoding must be 'chunked' or absent.")
    if get(hdrs.UPGRADE, "").lower() == "websocket":
        return _refuse(request, "bad_request", "Nothing here speaks WebSocket.")
    if get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        return _refuse(request, "unsupported_media_type", "Bodies must not be compressed.")
    if not request.body_exists:
        return None
    declared = request.content_length
    if declared is not None and declared > body_limit(path):
        most = body_limit(path) // MIB
        return _refuse(request, "payload_too_large", f"This address takes at most {most} MiB.")
    kind = get(hdrs.CONTENT_TYPE, "")
    wanted = "application/json" if path != _FILES_PATH else "multipart/form-data"
    if kind != wanted and kind.partition(";")[0].strip().lower() != wanted:
        return _refuse(request, "unsupported_media_type", f"The body must be {wanted}.")
    return None


def _is_older(request: web.BaseRequest) -> bool:
    """HTTP/1.0 knows no chunks: whoever sends both means to be read in two ways."""
    return request.version == HttpVersion10 and hdrs.TRANSFER_ENCODING not in request.headers


def _is_client(path: str) -> bool:
    return path.startswith(_CLIENT_PREFIXES) or path in ("/metrics", "/v1", "/api") or path in _OPEN_PATHS


def _needs_no_key(path: str, local: bool) -> bool:
    return path in _OPEN_PATHS or (local and path == "/metrics")


def _sockname(request: web.BaseRequest) -> tuple[str, int]:
    transport = request.transport
    name = transport.get_extra_info("sockname") if transport is not None else None
    return (str(name[0]).partition("%")[0], int(name[1])) if name else ("", 0)


def _is_local(request: web.BaseRequest) -> bool:
    """Whether the connection came over loopback."""
    known: bool | None = getattr(request.protocol, "local", None)
    return is_loopback(_sockname(request)[0]) if known is None else known
