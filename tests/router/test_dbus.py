"""A connection to a real bus: what it can't have is an error in words, what breaks ends what waits."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from router.aio import Tasks
from router.dbus import BUS_NAME, DBus, DBusError
from tests.fakes import BOUND_S, happens
from tests.router.logind import MANAGER, NAME, PATH, Logind, SessionBus, need_a_bus

DRIVER = (BUS_NAME, "/org/freedesktop/DBus", BUS_NAME)


@pytest.fixture
def daemon() -> Iterator[SessionBus]:
    need_a_bus()
    made = SessionBus()
    yield made
    made.close()


@pytest.fixture
async def bus(daemon: SessionBus) -> AsyncIterator[DBus]:
    made = await DBus.open(daemon.address, Tasks())
    yield made
    made.close()


async def test_many_calls_at_once_each_get_their_own_answer(bus: DBus) -> None:
    names = [f"org.example.N{number}" for number in range(40)]
    got = await asyncio.gather(*(bus.call(*DRIVER, "RequestName", "su", (name, 4)) for name in names))
    assert got == [(1,)] * 40
    (listed,) = await bus.call(*DRIVER, "ListNames")
    assert set(names) <= set(listed)


async def test_a_refused_call_says_why(bus: DBus) -> None:
    with pytest.raises(DBusError) as refused:
        await bus.call("org.example.Nobody", "/x", "org.example.X", "Y")
    assert refused.value.name.startswith("org.freedesktop.DBus.Error.")
    assert str(refused.value)


@pytest.mark.parametrize("address", ["unix:path=/nonexistent/bus", "disabled:", "tcp:host=127.0.0.1,port=9", "", "x"])
async def test_a_bus_that_can_not_be_had(address: str) -> None:
    with pytest.raises(DBusError, match=r"there is no .*bus"):
        await DBus.open(address, Tasks())


async def test_no_session_bus_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    with pytest.raises(DBusError, match="there is no session bus"):
        await DBus.open("SESSION", Tasks())


@pytest.mark.parametrize("says", [b"", b"ERROR\r\n", b"OK 12\r\nOK 12\r\n", b"OK 12\r\n"])
async def test_whoever_does_not_speak_the_protocol_is_no_bus(
    tmp_path: Path, says: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.dbus.CONNECT_S", 0.3)

    ended = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(says)
        await reader.read()
        writer.close()
        ended.set()

    path = tmp_path / "bus"
    async with await asyncio.start_unix_server(talk, path):
        with pytest.raises(DBusError):
            await DBus.open(f"unix:path={path}", Tasks())
        await happens(ended, BOUND_S)


async def test_when_the_bus_goes_what_waits_gets_an_error(daemon: SessionBus, bus: DBus) -> None:
    logind = await Logind.on(daemon.address)
    gone = asyncio.Event()
    bus.on_close = gone.set
    await bus.listen(NAME, MANAGER, "PrepareForSleep", lambda body: None)
    bus._sock.shutdown(socket.SHUT_RDWR)
    with pytest.raises(DBusError):
        await bus.call(*DRIVER, "ListNames")
    await happens(gone, BOUND_S)
    with pytest.raises(DBusError, match="the bus is gone"):
        await bus.call(NAME, PATH, MANAGER, "Inhibit", "ssss", ("sleep", "x", "y", "block"))
    await logind.close()


async def test_whoever_listens_to_one_that_goes_loses_the_connection(daemon: SessionBus, bus: DBus) -> None:
    logind = await Logind.on(daemon.address)
    gone = asyncio.Event()
    bus.on_close = gone.set
    await bus.listen(NAME, MANAGER, "PrepareForSleep", lambda body: None)
    await logind.close()
    await happens(gone, BOUND_S)


async def test_a_call_that_nobody_answers_ends_in_time(
    daemon: SessionBus, bus: DBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.dbus.CALL_S", 0.1)
    mute = await DBus.open(daemon.address, Tasks())
    await mute.call(*DRIVER, "RequestName", "su", ("org.example.Mute", 4))
    with pytest.raises(DBusError, match="does not answer"):
        await bus.call("org.example.Mute", "/x", "org.example.X", "Y")
    mute.close()
