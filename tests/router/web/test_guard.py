"""The rows of the trust page's input table for the client and control surfaces, byte by byte on real sockets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable

import pytest

from router.web.guard import BODY_BYTES, CHAT_BYTES, COOKIE, FILE_BYTES, body_limit
from tests.router.web.web_kit import GOOD_KEY, TOKEN, Served, closed, read_answer, serving

BEARER = b"Authorization: Bearer " + TOKEN.encode() + b"\r\n"
Build = Callable[[Served], bytes]


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as one:
        yield one


def error_of(body: bytes) -> tuple[str, str]:
    error = json.loads(body)["error"]
    return error["code"], error["message"]


# Host


@pytest.mark.parametrize(
    "host", ["localhost:{port}", "127.0.0.1:{port}", "[::1]:{port}", "LOCALHOST:{port}", "LocalHost:{port}"]
)
async def test_own_names_with_the_own_port_are_answered(served: Served, host: str) -> None:
    line = f"Host: {host.format(port=served.port)}\r\n".encode()
    assert (await served.ask(served.post(b"{}", host=line))).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:{port}",
        "evil.example",
        "127.0.0.1.nip.io:{port}",
        "localhost.evil.example:{port}",
        "x.localhost:{port}",
        "x.local:{port}",
        "2130706433:{port}",
        "0x7f000001:{port}",
        "127.1:{port}",
        "0.0.0.0:{port}",
        "192.168.1.5:{port}",
        "[::ffff:127.0.0.1]:{port}",
        "[::]:{port}",
        "localhost.:{port}",
        "127.0.0.1.:{port}",
        "localhost",
        "localhost:1",
        "localhost:80",
        "localhost:0{port}",
        "localhost@evil:{port}",
        "evil@localhost:{port}",
        "",
    ],
)
async def test_a_foreign_host_is_forbidden(served: Served, host: str) -> None:
    line = f"Host: {host.format(port=served.port)}\r\n".encode()
    answer = await served.ask(served.post(b"{}", host=line))
    assert answer.status == 403
    assert error_of(answer.body)[0] == "forbidden"
    assert served.seen == []


@pytest.mark.parametrize("host", ["local host", "localhost/x", "localhost:{port}, evil", 'local"host', "l\xf6calhost"])
async def test_a_malformed_host_is_a_bad_request(served: Served, host: str) -> None:
    line = f"Host: {host.format(port=served.port)}\r\n".encode("latin-1")
    assert (await served.ask(served.post(b"{}", host=line))).status == 400


async def test_an_absent_host_is_refused(served: Served) -> None:
    assert (await served.ask(b"GET /v1/models HTTP/1.1\r\n\r\n")).status == 400
    assert (await served.ask(b"GET /v1/models HTTP/1.0\r\n\r\n")).status == 403
    assert served.seen == []


@pytest.mark.parametrize(
    "target",
    [
        b"http://evil/v1/models",
        b"http://localhost/v1/models",
        b"https://localhost:1/",
        b"*",
        b"evil:80",
        b"/v1/models#x",
        b"/v1\\models",
        b'/v1/"models"',
        b"/v1/models/a%0d%0ab",
        b"/v1/models/a%00b",
        b"/v1/models/%1b[31m",
        b"/v1/\xffmodels",
    ],
)
async def test_a_target_that_is_no_plain_path_is_a_bad_request(served: Served, target: bytes) -> None:
    assert (await served.ask(served.get(target))).status == 400
    assert served.seen == []


async def test_further_names_of_the_settings_are_answered_at_once(served: Served) -> None:
    line = b"Host: Host.Docker.Internal:%d\r\n" % served.port
    assert (await served.ask(served.get(host=line))).status == 403
    served.settings.update({"hosts": "host.docker.internal, quorum.test:8080"})
    assert (await served.ask(served.get(host=line))).status == 200
    assert (await served.ask(served.get(host=b"Host: quorum.test:8080\r\n"))).status == 200
    assert (await served.ask(served.get(host=b"Host: host.docker.internal:1\r\n"))).status == 403


# Origin


@pytest.mark.parametrize(
    "extra",
    [
        b"Origin: https://evil.example\r\n",
        b"Origin: null\r\n",
        b"Origin: http://localhost:3000\r\n",
        b"Origin: http://localhost\r\n",
        b"Origin: \r\n",
        b"Origin: file://\r\n",
        b"Origin: https://evil.example\r\nSec-Fetch-Site: same-origin\r\n",
        b"Sec-Fetch-Site: cross-site\r\n",
        b"Sec-Fetch-Site: same-site\r\n",
        b"Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n",
        b"Sec-Fetch-Site: nonsense\r\n",
    ],
)
@pytest.mark.parametrize("path", [b"/v1/models", b"/local/v1/status", b"/api/tags", b"/"])
async def test_foreign_pages_are_forbidden_even_with_the_token(served: Served, extra: bytes, path: bytes) -> None:
    answer = await served.ask(served.get(path, extra + BEARER))
    assert answer.status == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert served.seen == []


async def test_a_foreign_preflight_is_forbidden(served: Served) -> None:
    head = b"OPTIONS /v1/chat/completions HTTP/1.1\r\n" + served.host
    ask = b"Origin: https://evil.example\r\nAccess-Control-Request-Method: POST\r\n\r\n"
    answer = await served.ask(head + ask)
    assert answer.status == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_an_origin_of_the_settings_gets_cors_for_the_client_surface_alone(served: Served) -> None:
    served.settings.update({"origins": "http://localhost:3000, app://obsidian.md"})
    origin = b"Origin: http://localhost:3000\r\nSec-Fetch-Site: same-site\r\n"
    answer = await served.ask(served.post(b"{}", origin))
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert answer.headers["vary"] == "Origin"
    assert "X-Quorum-Job" in answer.headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in answer.headers
    head = b"OPTIONS /v1/chat/completions HTTP/1.1\r\n" + served.host + b"Origin: app://obsidian.md\r\n"
    asked = b"Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization, x-stainless-os\r\n"
    preflight = await served.ask(head + asked + b"\r\n")
    assert preflight.status == 204
    assert preflight.headers["access-control-allow-origin"] == "app://obsidian.md"
    assert preflight.headers["access-control-allow-headers"] == "authorization, x-stainless-os"
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert (await served.ask(served.get(b"/local/v1/status", origin + BEARER))).status == 403
    assert (await served.ask(served.get(b"/v1/models", b"Origin: https://evil.example\r\n"))).status == 403


async def test_refused_answers_to_an_allowed_origin_can_be_read_by_it(served: Served) -> None:
    served.settings.update({"origins": "http://localhost:3000"})
    answer = await served.ask(served.post(b"{}", b"Origin: http://localhost:3000\r\n", kind=b""))
    assert answer.status == 415
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"


# The own page and the control surface


def own_origin(served: Served) -> bytes:
    return b"Origin: http://localhost:%d\r\nSec-Fetch-Site: same-origin\r\n" % served.port


async def cookie_of(served: Served) -> bytes:
    body = json.dumps({"token": TOKEN}).encode()
    answer = await served.ask(served.post(body, own_origin(served), path=b"/local/v1/session"))
    assert answer.status == 204
    assert {"HttpOnly", "Path=/", "SameSite=Strict"} <= set(answer.headers["set-cookie"].split("; "))
    return b"Cookie: theme=dark; " + answer.headers["set-cookie"].partition(";")[0].encode() + b"\r\n"


@pytest.mark.parametrize(
    "extra",
    [
        b"",
        b"Authorization: Bearer \r\n",
        b"Authorization: Bearer wrong\r\n",
        b"Authorization: Basic " + TOKEN.encode() + b"\r\n",
        b"Authorization: " + TOKEN.encode() + b"\r\n",
        b"Authorization: Bearer " + TOKEN.encode()[:-1] + b"\r\n",
        b"Authorization: Bearer \xff\xfe\r\n",
        b"Cookie: quorum_session=guess\r\n",
        b"Cookie: quorum_session=" + TOKEN.encode() + b"\r\n",
        b"X-Api-Key: " + TOKEN.encode() + b"\r\n",
    ],
)
@pytest.mark.parametrize("path", [b"/local/v1/status", b"/%6cocal/v1/status", b"/local%2Fv1/status", b"/local/v1/none"])
async def test_the_control_surface_wants_the_token(served: Served, extra: bytes, path: bytes) -> None:
    answer = await served.ask(served.get(path, extra))
    assert answer.status == 401
    assert served.seen == []


async def test_the_token_opens_the_control_surface(served: Served) -> None:
    assert (await served.ask(served.get(b"/local/v1/status", BEARER))).status == 200
    assert (await served.ask(served.post(b"{}", BEARER, path=b"/local/v1/pause"))).status == 200
    assert (await served.ask(served.get(b"/local/v1/status", BEARER + own_origin(served)))).status == 200


async def test_a_cookie_of_the_own_page_opens_both_surfaces(served: Served) -> None:
    cookie = await cookie_of(served)
    page = cookie + own_origin(served)
    assert (await served.ask(served.post(b"{}", page, path=b"/local/v1/pause"))).status == 200
    assert (await served.ask(served.post(b"{}", page))).status == 200
    get_only = cookie + b"Sec-Fetch-Site: same-origin\r\n"
    assert (await served.ask(served.get(b"/local/v1/status", get_only))).status == 200
    assert (await served.ask(served.get(b"/v1/models", get_only))).status == 200


async def test_a_cookie_alone_changes_nothing(served: Served) -> None:
    cookie = await cookie_of(served)
    assert (await served.ask(served.post(b"{}", cookie, path=b"/local/v1/pause"))).status == 401
    for site in (b"same-site", b"cross-site"):
        extra = cookie + b"Sec-Fetch-Site: " + site + b"\r\n"
        assert (await served.ask(served.post(b"{}", extra, path=b"/local/v1/pause"))).status == 403
    other_port = cookie + b"Origin: http://localhost:3000\r\n"
    assert (await served.ask(served.post(b"{}", other_port, path=b"/local/v1/pause"))).status == 403
    assert served.seen == []


async def test_only_the_hash_of_a_session_is_kept_and_it_outlives_the_start(served: Served) -> None:
    cookie = await cookie_of(served)
    secret = cookie.decode().rpartition("=")[2].strip()
    assert COOKIE in cookie.decode()
    assert len(served.sessions.hashes) == 1
    assert secret not in served.sessions.hashes
    async with serving() as later:
        later.sessions.hashes |= served.sessions.hashes
        extra = cookie + b"Sec-Fetch-Site: same-origin\r\n"
        assert (await later.ask(later.get(b"/local/v1/status", extra))).status == 200


@pytest.mark.parametrize("body", [b"{}", b'{"token": 1}', b'{"token": "wrong"}', b'{"token": ""}', b"[]"])
async def test_a_session_needs_the_control_token(served: Served, body: bytes) -> None:
    answer = await served.ask(served.post(body, own_origin(served), path=b"/local/v1/session"))
    assert answer.status in (400, 401)
    assert "set-cookie" not in answer.headers
    assert not served.sessions.hashes


@pytest.mark.parametrize("path", [b"/v1/models", b"/api/tags", b"/healthz"])
async def test_the_own_page_without_its_session_may_not_use_the_client_surface(served: Served, path: bytes) -> None:
    for extra in (own_origin(served), b"Sec-Fetch-Site: same-origin\r\n"):
        assert (await served.ask(served.get(path, extra))).status == 401
    assert (await served.ask(served.get(path, b"Sec-Fetch-Site: none\r\n"))).status == 200


async def test_an_origin_that_is_ours_by_another_name_is_foreign(served: Served) -> None:
    extra = b"Origin: http://127.0.0.1:%d\r\n" % served.port + BEARER
    assert (await served.ask(served.get(b"/local/v1/status", extra))).status == 403


# Keys


@pytest.mark.parametrize(
    "form", [b"Authorization: Bearer %b\r\n", b"Authorization: bearer  %b\r\n", b"x-api-key: %b\r\n"]
)
async def test_a_key_of_ours_that_opens_nothing_is_told_so_where_none_is_needed(form: bytes) -> None:
    async with serving(keys=True) as served:
        wrong = await served.ask(served.get(extra=form % b"qk_revoked"))
        assert (wrong.status, error_of(wrong.body)[0]) == (401, "unauthorized")
        assert (await served.ask(served.get(extra=form % b"sk-anything"))).status == 200
        assert (await served.ask(served.get(b"/healthz", form % b"qk_revoked"))).status == 200


async def test_keys_are_asked_for_when_switched_on() -> None:
    async with serving(keys=True) as served:
        free = await served.ask(served.post(b"{}", b"Authorization: Bearer sk-anything\r\n"))
        assert json.loads(free.body)["key"] is None
        named = await served.ask(served.post(b"{}", f"Authorization: {GOOD_KEY}\r\n".encode()))
        assert json.loads(named.body)["key"] == "key-1"
        served.settings.update({"require_key": True})
        for extra in (b"", b"Authorization: Bearer sk-anything\r\n", b"Authorization: x\r\n"):
            assert (await served.ask(served.post(b"{}", extra))).status == 401
        for extra in (f"Authorization: {GOOD_KEY}\r\n".encode(), b"X-Api-Key: qk-good\r\n", BEARER):
            assert (await served.ask(served.post(b"{}", extra))).status == 200
        assert (await served.ask(served.get(b"/healthz"))).status == 200
        assert (await served.ask(served.get(b"/metrics"))).status == 200


# Bodies


@pytest.mark.parametrize(
    "kind", [b"application/json", b"application/json; charset=utf-8", b"Application/JSON", b"application/json ;x=y"]
)
async def test_json_is_taken(served: Served, kind: bytes) -> None:
    assert (await served.ask(served.post(b'{"a":1}', kind=b"Content-Type: " + kind + b"\r\n"))).status == 200


@pytest.mark.parametrize(
    "kind",
    [
        b"",
        b"Content-Type: text/plain\r\n",
        b"Content-Type: application/x-www-form-urlencoded\r\n",
        b"Content-Type: multipart/form-data; boundary=x\r\n",
        b"Content-Type: application/jsonp\r\n",
        b"Content-Type: text/plain; application/json\r\n",
        b"Content-Type: application/json, text/plain\r\n",
        b"Content-Type: \r\n",
    ],
)
async def test_a_body_that_is_not_json_by_type_is_unsupported(served: Served, kind: bytes) -> None:
    answer = await served.ask(served.post(b"{}", kind=kind))
    assert answer.status == 415
    assert error_of(answer.body)[0] == "unsupported_media_type"
    assert served.seen == []


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"br", b"zstd", b"x-unknown", b"gzip, identity", b"\xff"])
async def test_a_compressed_body_is_unsupported(served: Served, coding: bytes) -> None:
    answer = await served.ask(served.post(b"{}", b"Content-Encoding: " + coding + b"\r\n"))
    assert answer.status == 415
    assert served.seen == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"a":' * 65 + b"1" + b"}" * 65, "deeper than 64"),
        (b"[" * 100_000, "deeper than 64"),
        (b'{"a":NaN}', "NaN or Infinity"),
        (b'{"a":-Infinity}', "NaN or Infinity"),
        (b'{"a":1e999}', "out of range"),
        (b'{"a":' + b"1" * 5000 + b"}", "out of range"),
        (b'{"a":123456789012345678901234567890}', "beyond 64 bits"),
        (b'{"a":"\\ud800"}', "surrogate"),
        (b'{"a":1,"a":2}', "twice"),
        (b'{"a":"\xff"}', "UTF-8"),
        (b"[]", "must be a JSON object"),
        (b'"x"', "must be a JSON object"),
        (b"   ", "empty"),
        (b"{", "ends too early"),
    ],
)
async def test_json_that_two_parsers_could_read_differently_is_refused(served: Served, body: bytes, words: str) -> None:
    answer = await served.ask(served.post(body))
    assert answer.status == 400
    code, message = error_of(answer.body)
    assert code == "bad_request"
    assert words in message


async def test_an_empty_body_is_refused(served: Served) -> None:
    answer = await served.ask(served.post(b""))
    assert (answer.status, "empty" in error_of(answer.body)[1]) == (400, True)


@pytest.mark.parametrize(
    ("path", "most"),
    [
        (b"/v1/chat/completions", CHAT_BYTES),
        (b"/api/chat", CHAT_BYTES),
        (b"/local/v1/chats/01ABC/messages", CHAT_BYTES),
        (b"/v1/embeddings", BODY_BYTES),
        (b"/local/v1/pause", BODY_BYTES),
        (b"/v1/chat/completions/x", BODY_BYTES),
    ],
)
async def test_a_declared_length_over_the_cap_is_refused_at_once(served: Served, path: bytes, most: int) -> None:
    head = b"POST %b HTTP/1.1\r\n" % path + served.host + BEARER + b"Content-Type: application/json\r\n"
    answer = await served.ask(head + b"Content-Length: %d\r\n\r\n" % (most + 1))
    assert answer.status == 413
    assert answer.headers["connection"] == "close"


async def test_expect_over_the_cap_gets_413_and_no_100(served: Served) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\n" + served.host + b"Content-Type: application/json\r\n"
    async with served.connection() as (reader, writer):
        writer.write(head + b"Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n")
        everything = await closed(reader)
    assert everything.startswith(b"HTTP/1.1 413 ")
    assert b" 100 " not in everything


async def test_expect_within_the_cap_gets_100_then_the_answer(served: Served) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\n" + served.host + b"Content-Type: application/json\r\n"
    async with served.connection() as (reader, writer):
        writer.write(head + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"{}")
        assert (await read_answer(reader)).status == 200


async def test_expect_from_a_foreign_page_gets_no_100(served: Served) -> None:
    extra = b"Expect: 100-continue\r\nOrigin: https://evil.example\r\n"
    head = b"POST /v1/chat/completions HTTP/1.1\r\n" + served.host + extra
    async with served.connection() as (reader, writer):
        writer.write(head + b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n")
        everything = await closed(reader)
    assert everything.startswith(b"HTTP/1.1 403 ")


async def test_a_chunked_body_is_cut_at_the_cap(served: Served) -> None:
    head = b"POST /v1/embeddings HTTP/1.1\r\n" + served.host + b"Content-Type: application/json\r\n"
    chunk = b"%x\r\n" % 1_000_000 + b"x" * 1_000_000 + b"\r\n"
    async with served.connection() as (reader, writer):
        writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 9)
        answer = await read_answer(reader)
    assert answer.status == 413
    assert error_of(answer.body)[0] == "payload_too_large"


async def test_the_largest_body_within_the_cap_is_taken(served: Served) -> None:
    body = b'{"a":"' + b"x" * (BODY_BYTES - 8) + b'"}'
    assert (await served.ask(served.post(body, path=b"/v1/embeddings"))).status == 200


# Every answer


@pytest.mark.parametrize(
    "build",
    [
        lambda served: served.get(),
        lambda served: served.get(b"/v1/nothing"),
        lambda served: served.post(b"{"),
        lambda served: served.get(b"/local/v1/status"),
        lambda served: served.get(host=b"Host: evil\r\n"),
        lambda served: b"POST /v1/models HTTP/1.1\r\n" + served.host + b"\r\n",
    ],
)
async def test_every_answer_has_the_safety_headers(served: Served, build: Build) -> None:
    headers = (await served.ask(build(served))).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"
    assert "aiohttp" not in headers.get("server", "").lower()


async def test_a_refusal_speaks_the_dialect_of_its_path(served: Served) -> None:
    foreign = b"Origin: https://evil.example\r\n"
    ollama = json.loads((await served.ask(served.get(b"/api/tags", foreign))).body)
    assert isinstance(ollama["error"], str)
    anthropic = json.loads((await served.ask(served.post(b"{}", foreign, path=b"/v1/messages"))).body)
    assert (anthropic["type"], anthropic["error"]["type"]) == ("error", "permission_error")
    control = json.loads((await served.ask(served.get(b"/local/v1/status"))).body)
    assert control["error"]["status"] == 401


# Uploads: the one route that takes another type, and more of it

FORM = b"Content-Type: multipart/form-data; boundary=x\r\n"


def upload(served: Served, extra: bytes = b"", *, path: bytes = b"/v1/files", kind: bytes = FORM) -> bytes:
    return served.post(b"--x--\r\n", extra, path=path, kind=kind)


async def test_a_form_is_taken_where_files_are_uploaded(served: Served) -> None:
    assert (await served.ask(upload(served))).status == 404  # the guard let it pass to an application without the route


@pytest.mark.parametrize(
    "path",
    [
        b"/v1/chat/completions",
        b"/v1/files/",
        b"/v1/files/file-1",
        b"/v1/batches",
        b"/v1/messages",
        b"/api/chat",
        b"/jobs",
    ],
)
async def test_a_form_is_unsupported_everywhere_else(served: Served, path: bytes) -> None:
    assert (await served.ask(upload(served, path=path))).status == 415


@pytest.mark.parametrize(
    "kind",
    [b"Content-Type: application/json\r\n", b"Content-Type: text/plain\r\n", b"", b"Content-Type: multipart/mixed\r\n"],
)
async def test_uploads_must_be_forms(served: Served, kind: bytes) -> None:
    assert (await served.ask(upload(served, kind=kind))).status == 415


@pytest.mark.parametrize(
    "extra", [b"Origin: http://evil.example\r\n", b"Origin: null\r\n", b"Sec-Fetch-Site: cross-site\r\n"]
)
async def test_a_form_of_another_page_uploads_nothing(served: Served, extra: bytes) -> None:
    assert (await served.ask(upload(served, extra))).status == 403


async def test_an_upload_needs_a_key_where_keys_are_needed() -> None:
    async with serving(keys=True, require_key=True) as served:
        assert (await served.ask(upload(served))).status == 401
        assert (await served.ask(upload(served, b"Authorization: " + GOOD_KEY.encode() + b"\r\n"))).status == 404


async def test_a_file_that_declares_too_much_is_refused_without_being_read(served: Served) -> None:
    head = b"POST /v1/files HTTP/1.1\r\n" + served.host + FORM
    answer = await served.ask(head + b"Content-Length: %d\r\n\r\n" % (FILE_BYTES + 2**20))
    assert answer.status == 413
    assert "100 MiB" in error_of(answer.body)[1]


def test_only_uploads_may_be_larger_than_chats() -> None:
    assert body_limit("/v1/files") > FILE_BYTES > body_limit("/v1/responses") == CHAT_BYTES
    assert body_limit("/v1/files/x") == body_limit("/v1/batches") == BODY_BYTES
