"""The echo servers under test, each in a process of its own.

Owns the protocols, the listening socket, and the control connection over which a load generator
asks for the CPU time that the server has used.

Rules: a server is a function of the loop factory, its parameters and `announce`; it calls
`announce` once it listens and then serves until its process is ended. The programs are the ones
that people write: no tricks for any loop.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

from mioloop.bench.machine import avoid_pacing, resident_bytes
from mioloop.bench.model import LoopFactory

Announce = Callable[[dict[str, Any]], None]
# Starts one server on its socket and returns what has to be kept alive, and closed at the end.
Start = Callable[[socket.socket], Awaitable[asyncio.Server | asyncio.BaseTransport]]

BACKLOG = 2048
CHUNK = 64 * 1024


class Echo(asyncio.Protocol):
    """Sends back what comes."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # Not every loop's transports are instances of asyncio's.
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer."""
        self.transport.write(data)


class Control(Echo):
    """Answers every message with what this process has used so far, in one line of JSON."""

    def data_received(self, _data: bytes) -> None:
        """Answer."""
        self.transport.write(json.dumps(self.usage()).encode() + b"\n")

    def usage(self) -> dict[str, float]:
        """Look up CPU time in seconds and memory in bytes."""
        return {"cpu": time.process_time(), "resident": resident_bytes()}


async def echo_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection with streams: send back what comes until it ends."""
    try:
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        # The load generator may close while an answer is on its way.
        return
    finally:
        writer.close()


def listen_tcp() -> socket.socket:
    """Make a listening socket on the loopback device."""
    # With the protocol number: asyncio sets TCP_NODELAY only on sockets that carry it.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    avoid_pacing(sock)
    sock.bind(("127.0.0.1", 0))
    sock.listen(BACKLOG)
    sock.setblocking(False)
    return sock


def serve(
    factory: LoopFactory,
    announce: Announce,
    listener: socket.socket,
    start: Start,
    make_control: Callable[[], asyncio.BaseProtocol] = Control,
) -> None:
    """Serve on a loop until the process is ended.

    Args:
        factory: makes the loop under test.
        announce: is told the addresses of the server and of its control connection.
        listener: the socket that is served.
        start: starts the server on that socket.
        make_control: makes the protocol of a control connection.
    """

    async def main() -> None:
        loop = asyncio.get_running_loop()
        control = listen_tcp()
        # Asked for first: a loop may take the descriptor out of the socket object.
        addresses = {"address": listener.getsockname(), "control": control.getsockname()}
        servers = (
            await start(listener),
            await loop.create_server(make_control, sock=control, backlog=BACKLOG),
        )
        announce(addresses)
        try:
            await loop.create_future()
        finally:
            for server in servers:
                server.close()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


def serve_protocol(
    factory: LoopFactory,
    announce: Announce,
    make_protocol: Callable[[], asyncio.BaseProtocol] = Echo,
) -> None:
    """Serve a protocol over TCP."""

    async def start(sock: socket.socket) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        return await loop.create_server(make_protocol, sock=sock, backlog=BACKLOG)

    serve(factory, announce, listen_tcp(), start)


def serve_streams(factory: LoopFactory, announce: Announce) -> None:
    """Serve `echo_stream` over TCP."""

    async def start(sock: socket.socket) -> asyncio.Server:
        return await asyncio.start_server(echo_stream, sock=sock, backlog=BACKLOG)

    serve(factory, announce, listen_tcp(), start)
