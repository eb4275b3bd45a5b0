"""Data that waits in the kernel comes in the turn after somebody begins to read, as in asyncio.

What is scheduled from then on follows it: programs that move a descriptor from one reader to
another lose data otherwise.
"""

import asyncio
import os
import socket

import support
from datagrams import Datagrams

TIMES = 50


async def call_soon_twice(loop, log):
    loop.call_soon(log.append, "soon")
    for _ in range(2):
        await asyncio.sleep(0)


async def test_of_a_connected_socket(loop, kind):
    for _ in range(TIMES):
        ours, peer = support.socket_pair(kind)
        with peer:
            peer.send(b"x")
            transport, protocol = await loop.create_connection(support.Recorder, sock=ours)
            await call_soon_twice(loop, protocol.events)
            assert protocol.events == ["made", "data", "soon"]
            transport.abort()
            await protocol.wait_event("lost")


async def test_of_a_reader(loop):
    for _ in range(TIMES):
        ours, peer = support.socket_pair("unix")
        with ours, peer:
            log = []
            peer.send(b"x")
            loop.add_reader(ours, lambda: log.append(ours.recv(1)))  # noqa: B023
            loop.call_soon(loop.call_soon, log.append, "soon")
            for _ in range(3):
                await asyncio.sleep(0)
            loop.remove_reader(ours)
            assert log == [b"x", "soon"]


async def test_of_a_paused_connection(loop, kind):
    protocol = support.Recorder()
    async with support.transport_and_socket(protocol, kind) as (transport, peer):
        for _ in range(TIMES):
            transport.pause_reading()
            peer.send(b"x")
            del protocol.events[1:]
            transport.resume_reading()
            loop.call_soon(loop.call_soon, protocol.events.append, "soon")
            for _ in range(3):
                await asyncio.sleep(0)
            assert protocol.events == ["made", "data", "soon"]


async def test_of_a_pipe(loop):
    for _ in range(TIMES):
        reading, writing = os.pipe()
        os.write(writing, b"x")
        pipe = os.fdopen(reading, "rb", 0)
        transport, protocol = await loop.connect_read_pipe(support.Recorder, pipe)
        await call_soon_twice(loop, protocol.events)
        assert protocol.events == ["made", "data", "soon"]
        transport.close()
        await protocol.wait_event("lost")
        os.close(writing)


async def test_of_a_datagram_endpoint(loop):
    for _ in range(TIMES):
        ours, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with peer:
            ours.setblocking(False)
            peer.send(b"x")
            log = []
            transport, protocol = await loop.create_datagram_endpoint(
                lambda: Datagrams(log.append),  # noqa: B023
                sock=ours,
            )
            await call_soon_twice(loop, log)
            assert log == [b"x", "soon"]
            transport.abort()
            await protocol.lost
