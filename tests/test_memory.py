"""What is done over and over leaves nothing behind: memory blocks are counted."""

import asyncio
import gc
import itertools
import sys

import pytest

import support
from datagrams import endpoint

SIZE = 400_000
ROUNDS = 8


class Buffered(support.BufferedRecorder):
    """Received into a buffer that is no part of a TLS record's size."""

    def __init__(self):
        super().__init__(1000)


class Viewed(Buffered):
    """Received into views of it."""

    def get_buffer(self, sizehint):
        return memoryview(super().get_buffer(sizehint))


class Chatty(support.Recorder):
    """Writes more whenever it may."""

    left = 20

    def resume_writing(self):
        super().resume_writing()
        if self.left:
            self.left -= 1
            self.transport.write(bytes(200_000))


@pytest.fixture(scope="module")
def contexts(certificate):
    return certificate.server_context(), certificate.client_context()


async def through_tls(loop, contexts, factory):
    server = await loop.create_server(support.Echo, "127.0.0.1", 0, ssl=contexts[0])
    async with support.serving(server):
        transport, protocol = await loop.create_connection(
            factory,
            "127.0.0.1",
            support.port_of(server),
            ssl=contexts[1],
            server_hostname="localhost",
        )
        transport.write(bytes(SIZE))
        await protocol.wait_bytes(SIZE)
        transport.close()
        await protocol.wait_event("lost")


async def tls(loop, contexts):
    await through_tls(loop, contexts, support.Recorder)


async def tls_into_a_buffer(loop, contexts):
    await through_tls(loop, contexts, Buffered)


async def tls_into_views(loop, contexts):
    await through_tls(loop, contexts, Viewed)


async def both_ways(loop, contexts, protocol=support.Recorder):
    first, second = protocol(), protocol()
    async with support.transport_pair(first, second, "unix", 4096) as (one, other):
        one.write(bytes(SIZE))
        other.write(bytes(SIZE))
        await first.wait_bytes(SIZE)
        await second.wait_bytes(SIZE)


async def into_views(loop, contexts):
    await both_ways(loop, contexts, Viewed)


async def paused_and_resumed(loop, contexts):
    protocol = Chatty()
    async with support.transport_and_socket(protocol, "unix", 4096) as (transport, peer):
        transport.write(bytes(200_000))
        await support.read_exactly(peer, 21 * 200_000)
        await protocol.wait(lambda: protocol.events.count("resume") == 21)


async def streams(loop, contexts):
    async def answer(reader, writer):
        writer.write(await reader.readexactly(SIZE))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with support.serving(server):
        reader, writer = await asyncio.open_connection("127.0.0.1", support.port_of(server))
        writer.write(bytes(SIZE))
        assert len(await reader.read(-1)) == SIZE
        writer.close()
        await writer.wait_closed()


async def datagrams(loop, contexts):
    local = ("127.0.0.1", 0)
    async with endpoint(local_addr=local) as one, endpoint(local_addr=local) as other:
        for number in range(300):
            one.transport.sendto(b"%d" % number, other.transport.get_extra_info("sockname"))
            await asyncio.sleep(0)
        await other.wait(lambda: len(other.received) > 0)


async def sockets(loop, contexts):
    ours, peer = support.socket_pair("unix")
    with ours, peer:
        room = bytearray(100)
        for _ in range(300):
            await loop.sock_sendall(ours, b"x" * 300)
            assert len(await loop.sock_recv(peer, 200)) == 200
            assert await loop.sock_recv_into(peer, room) == 100


async def callbacks(loop, contexts):
    done = loop.create_future()
    for number in range(1000):
        loop.call_soon(int, number)
        loop.call_later(number / 1e6, int, number)
        loop.call_later(1000, int).cancel()
    loop.call_later(0.002, done.set_result, None)
    await done
    await asyncio.gather(*(loop.run_in_executor(None, int, number) for number in range(300)))


async def subprocesses(loop, contexts):
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec("/bin/cat", stdin=pipe, stdout=pipe)
    assert len((await process.communicate(bytes(SIZE)))[0]) == SIZE


KINDS = [
    tls,
    tls_into_a_buffer,
    tls_into_views,
    both_ways,
    into_views,
    paused_and_resumed,
    streams,
    datagrams,
    sockets,
    callbacks,
    subprocesses,
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_nothing_adds_up(loop, contexts, kind):
    """Each round makes hundreds of objects; one that is lost in each step would be seen."""

    def blocks():
        for _ in range(ROUNDS):
            loop.run_until_complete(kind(loop, contexts))
        gc.collect()
        return sys.getallocatedblocks()

    # Caches fill at first; what adds up never stops.
    counts = [blocks() for _ in range(6)]
    growth = min(after - before for before, after in itertools.pairwise(counts))
    assert growth < 5 * ROUNDS, counts
