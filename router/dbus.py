"""A connection to a D-Bus message bus on the loop: calls, signals, and file descriptors that come with an answer.

The protocol is jeepney's; its own asyncio connection takes no descriptors, which logind's locks are.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Callable
from itertools import count
from typing import Any, Final

from router.aio import Tasks

CONNECT_S: Final = 2.0
CALL_S: Final = 5.0
BUS_NAME: Final = "org.freedesktop.DBus"

Body = tuple[Any, ...]


class DBusError(Exception):
    """No bus, or a call that was refused; ``name`` is the bus's own for it, empty when there is none."""

    def __init__(self, message: str, name: str = "") -> None:
        super().__init__(message)
        self.name = name


class DBus:
    """One connection; ``await DBus.open(...)``. ``on_close`` hears once that it broke."""

    def __init__(self, sock: socket.socket, tasks: Tasks) -> None:
        from jeepney import Parser

        self.on_close: Callable[[], None] = lambda: None
        self._sock = sock
        self._tasks = tasks
        self._parser = Parser()
        self._serials = count(1)
        self._replies: dict[int, asyncio.Future[Any]] = {}
        self._listeners: dict[tuple[str, str, str], Callable[[Body], None]] = {}
        self._owners: dict[str, str] = {}
        self._open = True

    @classmethod
    async def open(cls, which: str, tasks: Tasks) -> DBus:
        """Connect to the bus that ``which`` ("SYSTEM", "SESSION", or an address) names. Raises DBusError."""
        if sys.platform == "win32":
            raise DBusError("there is no D-Bus on this system")
        try:
            from jeepney.bus import get_bus
        except ImportError:
            raise DBusError("there is no D-Bus on this system") from None
        try:
            path = get_bus(which)
        except (KeyError, RuntimeError, ValueError, StopIteration):
            raise DBusError(f"there is no {which.lower()} bus") from None
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        try:
            async with asyncio.timeout(CONNECT_S):
                await asyncio.get_running_loop().sock_connect(sock, path)
                await _authenticate(sock)
        except (OSError, TimeoutError, ValueError) as error:
            sock.close()
            raise DBusError(f"there is no {which.lower()} bus") from error
        except BaseException:
            sock.close()
            raise
        bus = cls(sock, tasks)
        asyncio.get_running_loop().add_reader(sock, bus._readable)
        try:
            await bus.call(BUS_NAME, "/org/freedesktop/DBus", BUS_NAME, "Hello")
        except BaseException:
            bus.close()
            raise
        return bus

    def close(self) -> None:
        """End it; what waits for an answer gets a DBusError. May be called twice."""
        if not self._open:
            return
        self._open = False
        asyncio.get_running_loop().remove_reader(self._sock)
        self._sock.close()
        for fd in self._parser.fds:
            fd.close()
        for reply in self._replies.values():
            if not reply.done():
                reply.set_exception(DBusError("the bus is gone"))
        self._replies.clear()

    async def call(
        self, name: str, path: str, interface: str, method: str, signature: str = "", body: Body = ()
    ) -> Body:
        """The answer's body. Raises DBusError. Descriptors in it are the caller's, who must close them."""
        from jeepney import DBusAddress, HeaderFields, MessageType, new_method_call

        if not self._open:
            raise DBusError("the bus is gone")
        message = new_method_call(DBusAddress(path, name, interface), method, signature or None, body)
        serial = next(self._serials)
        reply = self._replies[serial] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(CALL_S):
                await asyncio.get_running_loop().sock_sendall(self._sock, message.serialise(serial))
                answer = await reply
        except TimeoutError:
            raise DBusError(f"{name} does not answer") from None
        except OSError as error:
            raise DBusError("the bus is gone") from error
        finally:
            self._replies.pop(serial, None)
        if answer.header.message_type is MessageType.error:
            said = answer.body[0] if answer.body and isinstance(answer.body[0], str) else "it refused"
            raise DBusError(said, str(answer.header.fields.get(HeaderFields.error_name, "")))
        return tuple(answer.body)

    async def listen(self, name: str, interface: str, signal: str, heard: Callable[[Body], None]) -> None:
        """Give ``heard`` the body of each ``signal`` that the owner of ``name`` sends. Raises DBusError.

        When that owner goes, the connection breaks: whatever it had promised is void. Anybody may send anybody a
        signal, so the sender is compared.
        """
        driver = (BUS_NAME, "/org/freedesktop/DBus", BUS_NAME)
        if name not in self._owners:
            gone = f"type='signal',sender='{BUS_NAME}',member='NameOwnerChanged',arg0='{name}'"
            await self.call(*driver, "AddMatch", "s", (gone,))
            (self._owners[name],) = await self.call(*driver, "GetNameOwner", "s", (name,))
        self._listeners[self._owners[name], interface, signal] = heard
        rule = f"type='signal',sender='{name}',interface='{interface}',member='{signal}'"
        await self.call(*driver, "AddMatch", "s", (rule,))

    def _readable(self) -> None:
        if sys.platform == "win32":
            return
        from jeepney.fds import FileDescriptor, fds_buf_size

        try:
            data, ancillary, flags, _ = self._sock.recvmsg(self._parser.bytes_desired(), fds_buf_size())
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data, ancillary, flags = b"", [], 0
        if not data or flags & socket.MSG_CTRUNC:
            self._broke()
            return
        try:
            self._parser.add_data(data, fds=FileDescriptor.from_ancdata(ancillary))
            while self._open and (message := self._parser.get_next_message()) is not None:
                self._came(message)
        except (ValueError, KeyError, IndexError):  # not D-Bus any more
            self._broke()

    def _broke(self) -> None:
        self.close()
        self.on_close()

    def _came(self, message: Any) -> None:
        from jeepney import HeaderFields, MessageType

        fields = message.header.fields
        if message.header.message_type is MessageType.signal:
            sender, member = fields.get(HeaderFields.sender), fields.get(HeaderFields.member)
            if sender == BUS_NAME and member == "NameOwnerChanged" and message.body[0] in self._owners:
                self._broke()
            elif heard := self._listeners.get((sender, fields.get(HeaderFields.interface), member)):
                heard(tuple(message.body))
            return
        reply = self._replies.get(fields.get(HeaderFields.reply_serial, -1))
        if reply is not None and not reply.done():
            reply.set_result(message)
        else:
            close_all(message.body)


def close_all(body: object) -> None:
    """Close the descriptors of an answer that nobody wants any more."""
    for part in body if isinstance(body, tuple | list) else ():
        if hasattr(part, "to_raw_fd"):
            with contextlib.suppress(OSError, RuntimeError):
                part.close()


async def _authenticate(sock: socket.socket) -> None:
    """As the user of this process, with descriptors. Raises OSError, ValueError."""
    from jeepney.auth import BEGIN, Authenticator

    loop = asyncio.get_running_loop()
    talk = Authenticator(enable_fds=True)
    for line in talk:
        await loop.sock_sendall(sock, line)
        if not (said := await loop.sock_recv(sock, 1024)):
            raise ConnectionResetError(os.strerror(104))
        talk.feed(said)
    await loop.sock_sendall(sock, BEGIN)
