"""TLS between paired computers: 1.3, pinned before a byte of a request is sent."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from router.identity import Identity, load_identity
from router.peer_tls import certificate_at, client_context, client_session, pin_of, server_context, url_of
from router.trust import fingerprint_of
from tests.fakes import BOUND_S, happens

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}"


class Shown:
    """A TLS server that notes what it was sent."""

    def __init__(self) -> None:
        self.port = 0
        self.got = b""
        self.connections = 0
        self.closed = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while data := await reader.read(65_536):
                self.got += data
                writer.write(ANSWER)
        except ConnectionError:
            pass
        writer.close()
        self.closed.set()


@asynccontextmanager
async def showing(context: ssl.SSLContext) -> AsyncIterator[Shown]:
    shown = Shown()
    server = await asyncio.start_server(shown.serve, "127.0.0.1", 0, ssl=context)
    shown.port = server.sockets[0].getsockname()[1]
    try:
        yield shown
    finally:
        server.close()
        await server.wait_closed()


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return load_identity(tmp_path_factory.mktemp("here"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return load_identity(tmp_path_factory.mktemp("other"))


async def call(session: aiohttp.ClientSession, port: int, pin: object) -> int:
    url = url_of("127.0.0.1", port, "/peer/v1/hello")
    async with session.get(url, ssl=pin, headers={"Authorization": "secret"}) as answer:  # type: ignore[arg-type]
        await answer.read()
        return answer.status


async def test_a_pinned_peer_is_called_over_one_kept_connection(identity: Identity) -> None:
    async with showing(server_context(identity)) as shown, client_session() as session:
        pin = pin_of(fingerprint_of(identity.node_id))
        assert [await call(session, shown.port, pin) for _ in range(5)] == [200] * 5
        assert shown.connections == 1


async def test_another_certificate_gets_no_byte_of_the_request(identity: Identity, stranger: Identity) -> None:
    async with showing(server_context(stranger)) as shown, client_session() as session:
        with pytest.raises(aiohttp.ServerFingerprintMismatch):
            await call(session, shown.port, pin_of(fingerprint_of(identity.node_id)))
        await happens(shown.closed)
        assert shown.got == b""


@pytest.mark.parametrize("pin", [True, False, None])
async def test_a_call_without_a_pin_is_never_made(identity: Identity, pin: object) -> None:
    async with showing(server_context(identity)) as shown, client_session() as session:
        with pytest.raises((ValueError, TypeError)):
            await call(session, shown.port, pin)
        assert shown.connections == 0


async def test_a_server_that_speaks_only_tls_1_2_is_refused(identity: Identity) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    old.load_cert_chain(identity.certificate, identity.key)
    async with showing(old) as shown, client_session() as session:
        with pytest.raises(aiohttp.ClientError):
            await call(session, shown.port, pin_of(fingerprint_of(identity.node_id)))
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await certificate_at("127.0.0.1", shown.port)
        assert shown.got == b""


async def test_a_client_that_speaks_only_tls_1_2_is_refused(identity: Identity) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname = False
    old.verify_mode = ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    async with showing(server_context(identity)) as shown:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", shown.port, ssl=old)


async def test_tls_1_3_is_what_both_speak(identity: Identity) -> None:
    async with showing(server_context(identity)) as shown:
        _, writer = await asyncio.open_connection("127.0.0.1", shown.port, ssl=client_context())
        assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"
        writer.close()


async def test_the_certificate_at_an_address_can_be_seen_without_saying_anything(identity: Identity) -> None:
    async with showing(server_context(identity)) as shown:
        assert await certificate_at("127.0.0.1", shown.port) == fingerprint_of(identity.node_id)
        await happens(shown.closed)
        assert shown.got == b""


async def test_looking_at_a_certificate_is_bounded() -> None:
    gone = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        gone.set()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with asyncio.timeout(BOUND_S):
        with pytest.raises((TimeoutError, ConnectionError)):
            await certificate_at("127.0.0.1", port, timeout_s=0.1)
    await happens(gone)
    server.close()
    await server.wait_closed()


async def test_calls_keep_no_cookies_and_unpack_nothing() -> None:
    async with client_session() as session:
        assert isinstance(session.cookie_jar, aiohttp.DummyCookieJar)
        assert not session.auto_decompress
        assert not session.trust_env


@pytest.mark.parametrize(
    ("address", "url"),
    [("192.168.1.7", "https://192.168.1.7:7412/a"), ("fd00::7", "https://[fd00::7]:7412/a")],
)
def test_addresses_of_both_families_make_urls(address: str, url: str) -> None:
    assert url_of(address, 7412, "/a") == url
