"""The words of the datagram tests: a recording protocol, endpoints that end, places to bind to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import support

HOST = "127.0.0.1"
KINDS = ["ip4", "ip6", "path", "abstract"]


class Datagrams(asyncio.DatagramProtocol):
    """Keeps what it receives, and can be waited for."""

    def __init__(self, action: Callable[[bytes], object] = lambda data: None) -> None:
        self.action = action
        self.received: list[tuple[bytes, Any]] = []
        self.errors: list[Exception] = []
        self.flow: list[str] = []
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self._changed = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        assert type(data) is bytes
        self.received.append((data, addr))
        self._changed.set()
        self.action(data)

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)
        self._changed.set()

    def pause_writing(self) -> None:
        self.flow.append("pause")

    def resume_writing(self) -> None:
        self.flow.append("resume")
        self._changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)

    @property
    def data(self) -> list[bytes]:
        """What was received, without addresses."""
        return [data for data, _ in self.received]

    async def wait(self, happened: Callable[[], bool]) -> None:
        """Wait until the condition holds; it is looked at after every event."""
        while not happened():
            self._changed.clear()
            await self._changed.wait()

    async def wait_count(self, count: int) -> list[bytes]:
        """Wait until that many datagrams came in all, and return all that came."""
        await self.wait(lambda: len(self.received) >= count)
        return self.data


@contextlib.asynccontextmanager
async def endpoint(
    *arguments: Any, action: Callable[[bytes], object] = lambda data: None, **keywords: Any
) -> AsyncIterator[Datagrams]:
    """The protocol of an endpoint that is closed at the end."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(
        lambda: Datagrams(action), *arguments, **keywords
    )
    try:
        yield protocol
    finally:
        support.abort(transport)
        await protocol.lost


@contextlib.contextmanager
def places(kind: str) -> Iterator[tuple[Any, Any, int]]:
    """Two addresses to bind to, and the family to ask for."""
    if kind == "abstract" and sys.platform != "linux":
        pytest.skip("abstract names are Linux's alone")
    if kind == "ip4":
        yield (HOST, 0), (HOST, 0), socket.AF_INET
    elif kind == "ip6":
        try:
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
                sock.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 here")
        yield ("::1", 0), ("::1", 0), socket.AF_INET6
    elif kind == "path":
        with support.unix_path() as path:
            yield path, path + "2", socket.AF_UNIX
    else:
        name = f"\0mioloop-{os.getpid()}"
        yield name, name + "2", socket.AF_UNIX


def name_of(protocol: Datagrams) -> Any:
    """The address of an endpoint."""
    return protocol.transport.get_extra_info("sockname")


def as_argument(address: Any) -> Any:
    """An address as `remote_addr` takes it."""
    if isinstance(address, bytes):
        return address.decode()
    return address[:2] if isinstance(address, tuple) else address


NUMBERS = [b"%d" % number for number in range(100)]


@contextlib.contextmanager
def hundred_waiting() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A socket in which NUMBERS wait, and their sender; the first is the caller's to close."""
    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        sock = socket.socket(type=socket.SOCK_DGRAM)
        sock.bind((HOST, 0))
        sock.setblocking(False)
        for data in NUMBERS:
            sender.sendto(data, sock.getsockname())
        yield sock, sender
        sock.close()
