"""Where a webhook may go, and that it goes nowhere else: names are resolved, checked and connected to in one step."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from router import webhook_sender
from router.errors import BadRequestError
from router.identity import load_identity
from router.webhook_sender import Sender, _Lookups, parse, permitted
from tests.fakes import free_port
from tests.router.engines.fakes import serving

LOOPBACK = ("127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1")
PUBLIC = ("8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8")
PRIVATE = (
    "10.0.0.1",
    "172.16.5.4",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "240.0.0.1",
    "fc00::1",
    "fd12::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "::ffff:10.0.0.1",
    "64:ff9b::a00:1",
    "64:ff9b:1::a00:1",
    "2002:a00:1::1",
    "2001:0:4136:e378:8000:63bf:f5ff:fffe",
    "2001:db8::1",
    "::10.0.0.1",
)
NOWHERE = ("0.0.0.0", "::", "224.0.0.1", "239.1.2.3", "ff02::1", "::ffff:0.0.0.0", "::ffff:224.0.0.1")


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_always_permitted(address: str) -> None:
    assert permitted(address, loopback=False, private=False)


@pytest.mark.parametrize("address", LOOPBACK)
def test_this_computer_is_permitted_to_jobs_of_this_computer_only(address: str) -> None:
    assert permitted(address, loopback=True, private=False)
    assert not permitted(address, loopback=False, private=True)


@pytest.mark.parametrize("address", PRIVATE)
def test_private_networks_are_permitted_by_the_setting_only(address: str) -> None:
    assert not permitted(address, loopback=True, private=False)
    assert permitted(address, loopback=True, private=True)


@pytest.mark.parametrize("address", NOWHERE)
def test_nobody_may_send_to_everybody_or_nobody(address: str) -> None:
    assert not permitted(address, loopback=True, private=True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hook.example",
        "//hook.example/",
        "ftp://hook.example/",
        "file:///etc/passwd",
        "http://",
        "http:///path",
        "http://:80/",
        "http://hook.example:0/",
        "http://hook.example:99999/",
        "http://hook.example:x/",
        "http://user@hook.example/",
        "http://user:password@hook.example/",
        "http://hook.example/a b",
        "http://hook.example/\r\nHost: other",
        "http://höök.example/",
        "http://[::1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://127.1/",
        "http://1.2.3.4.5/",
        "http://0177.0.0.1/",
        "http://hook.example/" + "x" * 2048,
    ],
)
def test_what_is_no_plain_address_is_refused_by_its_field(text: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse(text)
    assert caught.value.field == "webhook"
    assert "password" not in str(caught.value) or "user or password" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "used"),
    [
        ("https://hook.example", "https://hook.example"),
        ("http://127.0.0.1:9/a?b=c%20d#e", "http://127.0.0.1:9/a?b=c%20d"),
        ("http://[::1]:9/", "http://[::1]:9/"),
        ("HTTP://Hook.Example/", "http://hook.example/"),
    ],
)
def test_an_address_is_used_as_it_was_given(text: str, used: str) -> None:
    assert str(parse(text)) == used


class Names:
    """A resolver that says what the test wants, one answer after the other; the last stays."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if not answer:
            raise OSError("no such name")
        return answer


@asynccontextmanager
async def sending(names: Names | None = None, *, private: bool = False) -> AsyncIterator[Sender]:
    sender = Sender(lambda: private, names)
    try:
        yield sender
    finally:
        await sender.close()


class Receiver:
    """Takes webhooks and remembers them."""

    def __init__(self, *statuses: int, headers: dict[str, str] | None = None) -> None:
        self.statuses = list(statuses) or [204]
        self.headers = headers or {}
        self.got: list[tuple[dict[str, str], bytes]] = []

    async def take(self, request: web.Request) -> web.Response:
        self.got.append((dict(request.headers), await request.read()))
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return web.Response(status=status, headers=self.headers)


async def test_a_webhook_arrives_as_it_was_sent() -> None:
    receiver = Receiver()
    async with serving({"/hook": receiver.take}) as address, sending() as sender:
        assert await sender.post(f"{address}/hook?a=%2F", b"{}", {"X-Test": "1"}, loopback=True) == ""
    ((headers, body),) = receiver.got
    assert (headers["X-Test"], body) == ("1", b"{}")
    assert "Cookie" not in headers


async def test_any_answer_but_success_is_a_failure_and_redirects_are_not_followed() -> None:
    receiver, other = Receiver(301, 302, 307, 404, 500, headers={"Location": "/other"}), Receiver()
    async with serving({"/hook": receiver.take, "/other": other.take}) as address, sending() as sender:
        said = [await sender.post(f"{address}/hook", b"{}", {}, loopback=True) for _ in range(5)]
    assert said == [f"It answered {status}." for status in (301, 302, 307, 404, 500)]
    assert not other.got


async def test_the_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    async with serving({"/hook": Receiver().take}) as address, sending() as sender:
        assert await sender.post(f"{address}/hook", b"{}", {}, loopback=True) == ""


async def test_a_name_is_connected_to_at_exactly_the_address_that_was_checked() -> None:
    receiver, names = Receiver(), Names(["127.0.0.1"])
    async with serving({"/hook": receiver.take}) as address, sending(names) as sender:
        port = address.rpartition(":")[2]
        assert await sender.post(f"http://hook.example:{port}/hook", b"{}", {}, loopback=True) == ""
    assert receiver.got[0][0]["Host"] == f"hook.example:{port}"
    assert names.asked == 1


async def test_a_name_that_changes_its_address_later_leads_nowhere() -> None:
    receiver = Receiver()
    async with (
        serving({"/hook": receiver.take}) as address,
        sending(Names(["127.0.0.1"], ["10.0.0.1"], ["127.0.0.1", "10.0.0.1"])) as sender,
    ):
        url = f"http://hook.example:{address.rpartition(':')[2]}/hook"
        assert await sender.check(url, loopback=True) == url
        for _ in range(2):
            assert await sender.post(url, b"{}", {}, loopback=True) == "Its address is in a private network."
    assert not receiver.got


@pytest.mark.parametrize("host", ["10.0.0.1", "169.254.169.254", "[fe80::1]", "0.0.0.0", "[::ffff:10.0.0.1]"])
async def test_an_address_that_no_webhook_may_go_to_is_not_dialled(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    def dialled(*_: object, **__: object) -> socket.socket:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(webhook_sender.socket, "socket", dialled)
    async with sending() as sender:
        assert await sender.post(f"http://{host}/", b"{}", {}, loopback=True) == "Its address is in a private network."
        with pytest.raises(BadRequestError):
            await sender.check(f"http://{host}/", loopback=True)


async def test_the_connection_itself_looks_again() -> None:
    """Even where the resolver was deceived, the socket is not opened."""
    async with sending() as sender:
        session = sender._session(False)
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.post(f"http://127.0.0.1:{free_port()}/")
        with pytest.raises(OSError, match="forbidden"):
            webhook_sender._socket((2, 1, 6, "", ("127.0.0.1", 9)), lambda address: False)


async def test_a_job_of_another_computer_does_not_reach_this_one() -> None:
    receiver = Receiver()
    async with serving({"/hook": receiver.take}) as address, sending(Names(["127.0.0.1"])) as sender:
        for host in ("127.0.0.1", "hook.example"):
            url = f"http://{host}:{address.rpartition(':')[2]}/hook"
            assert await sender.post(url, b"{}", {}, loopback=False) == "Its address is in a private network."
            with pytest.raises(BadRequestError):
                await sender.check(url, loopback=False)
    assert not receiver.got


async def test_the_setting_opens_private_networks() -> None:
    async with sending(Names(["10.0.0.1"]), private=True) as sender:
        assert await sender.check("http://hook.example/", loopback=False) == "http://hook.example/"
        assert await sender.check("http://192.168.1.1/", loopback=False) == "http://192.168.1.1/"


async def test_a_name_that_can_not_be_resolved_now_may_be_later() -> None:
    async with sending(Names([])) as sender:
        assert await sender.check("http://hook.example/", loopback=True) == "http://hook.example/"
        assert await sender.post("http://hook.example/", b"{}", {}, loopback=True) == "It can't be reached."


async def test_a_receiver_that_is_not_there_or_says_nothing_costs_one_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_sender, "TRY_S", 0.2)
    gone = asyncio.Event()

    async def silent(request: web.Request) -> web.Response:
        await gone.wait()
        return web.Response()

    async with serving({"/hook": silent}) as address, sending() as sender:
        url = f"http://127.0.0.1:{free_port()}/"
        assert await sender.post(url, b"{}", {}, loopback=True) == "It can't be reached."
        assert await sender.post(f"{address}/hook", b"{}", {}, loopback=True) == "It did not answer within 0.2 s."
        gone.set()


async def test_a_certificate_that_nobody_vouches_for_is_not_trusted(tmp_path: Path) -> None:
    identity = load_identity(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.certificate, identity.key)
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/", receiver.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context).start()
    async with sending() as sender:
        said = await sender.post(f"https://127.0.0.1:{port}/", b"{}", {}, loopback=True)
    await runner.cleanup()
    assert said == "Its certificate is not trusted."
    assert not receiver.got


async def test_the_systems_resolver_is_asked_beside_the_loop() -> None:
    found = await _Lookups().find("localhost", 80)
    assert set(found) <= {"127.0.0.1", "::1"}
    assert found


async def test_a_lookup_that_hangs_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    begun, lookups = asyncio.Event(), _Lookups()
    release: list[Callable[[], None]] = []

    def hang(*_: object, **__: object) -> list[object]:
        lock = threading.Event()
        release.append(lock.set)
        loop.call_soon_threadsafe(begun.set)
        assert lock.wait(10)
        raise OSError("late")

    monkeypatch.setattr(webhook_sender.socket, "getaddrinfo", hang)
    asking = asyncio.ensure_future(lookups.find("slow.example", 80))
    await asyncio.wait_for(begun.wait(), 10)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    release[0]()
    begun.clear()
    again = asyncio.ensure_future(lookups.find("slow.example", 80))
    await asyncio.wait_for(begun.wait(), 10)
    release[1]()
    with pytest.raises(OSError, match="late"):
        await again
