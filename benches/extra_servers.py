"""More servers under test than the command has.

Owns the buffered protocol, the protocols that write ten times, the Unix socket servers, the
receiver of floods, and the servers whose memory is looked at.

Rules: those of `mioloop.bench.servers`.
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import cast

from mioloop.bench.model import LoopFactory
from mioloop.bench.servers import (
    BACKLOG,
    Announce,
    Control,
    Echo,
    echo_stream,
    serve,
    serve_protocol,
    serve_streams,
)

BUFFER = 256 * 1024
# What the load generator expects from these servers: see `extra_suite`.
REQUEST = 64
LINES = 10
LINE = b"y" * 100


class EchoBuffered(asyncio.BufferedProtocol):
    """Sends back what comes, received into a buffer of its own."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.view = memoryview(bytearray(BUFFER))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.view

    def buffer_updated(self, nbytes: int) -> None:
        self.transport.write(bytes(self.view[:nbytes]))


class TenWrites(Echo):
    """Answers each request with ten small writes in one callback, as a template engine may."""

    def __init__(self) -> None:
        self.received = 0

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        while self.received >= REQUEST:
            self.received -= REQUEST
            self.answer()

    def answer(self) -> None:
        for _ in range(LINES):
            self.transport.write(LINE)


class TenLines(TenWrites):
    """The same with one `writelines`."""

    def answer(self) -> None:
        self.transport.writelines([LINE] * LINES)


def serve_buffered(factory: LoopFactory, announce: Announce) -> None:
    serve_protocol(factory, announce, EchoBuffered)


def serve_ten_writes(factory: LoopFactory, announce: Announce) -> None:
    serve_protocol(factory, announce, TenWrites)


def serve_ten_lines(factory: LoopFactory, announce: Announce) -> None:
    serve_protocol(factory, announce, TenLines)


# Memory is only comparable in processes that have done nothing else, and servers with other names
# get processes of their own.
def serve_idle_protocol(factory: LoopFactory, announce: Announce) -> None:
    serve_protocol(factory, announce)


def serve_idle_streams(factory: LoopFactory, announce: Announce) -> None:
    serve_streams(factory, announce)


def serve_unix_protocol(factory: LoopFactory, announce: Announce) -> None:
    async def start(sock: socket.socket) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        return await loop.create_unix_server(Echo, sock=sock, backlog=BACKLOG)

    _on_unix_socket(lambda sock: serve(factory, announce, sock, start))


def serve_unix_streams(factory: LoopFactory, announce: Announce) -> None:
    async def start(sock: socket.socket) -> asyncio.Server:
        return await asyncio.start_unix_server(echo_stream, sock=sock, backlog=BACKLOG)

    _on_unix_socket(lambda sock: serve(factory, announce, sock, start))


def _on_unix_socket(run: Callable[[socket.socket], None]) -> None:
    # The benchmark gives its children a directory for temporary files and removes it.
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(Path(tempfile.mkdtemp()) / "echo"))
    sock.listen(BACKLOG)
    sock.setblocking(False)
    run(sock)


class Sink(asyncio.DatagramProtocol):
    """Counts what comes, and keeps the last of it."""

    received = 0
    last = b""

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.received += 1
        self.last = data


class SinkControl(Control):
    """Tells how much a sink has received, too."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def usage(self) -> dict[str, float]:
        return {**super().usage(), "received": self._sink.received, "last": sum(self._sink.last)}


def serve_sink(factory: LoopFactory, announce: Announce) -> None:
    sink = Sink()

    async def start(sock: socket.socket) -> asyncio.BaseTransport:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: sink, sock=sock)
        return transport

    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    serve(factory, announce, sock, start, lambda: SinkControl(sink))
