"""`BufferedProtocol`: received straight into the protocol's own buffers."""

import array
import asyncio
import gc
import hashlib
import weakref

import pytest

import support


class Ring(support.BufferedRecorder):
    """Gives out a different part of its buffer each time."""

    def __init__(self, size=1000, part=100):
        super().__init__(size)
        self.part = part
        self.place = 0

    def get_buffer(self, sizehint):
        self.hints.append(sizehint)
        if self.place + self.part > len(self.buffer):
            self.place = 0
        return memoryview(self.buffer)[self.place : self.place + self.part]

    def buffer_updated(self, count):
        assert 0 < count <= self.part
        self.data += self.buffer[self.place : self.place + count]
        self.place += count
        self.note()


@pytest.mark.parametrize("size", [1, 10, 4096, 1_000_000])
async def test_received_into_the_buffer(loop, kind, size):
    protocol = support.BufferedRecorder(size)
    async with support.transport_and_socket(protocol, kind) as (_, peer):
        peer.send(b"some data")
        assert await protocol.wait_bytes(9) == b"some data"
        peer.send(b" more")
        assert await protocol.wait_bytes(14) == b"some data more"
        peer.close()
        await protocol.wait_event("lost")
    assert protocol.events == ["made", "data", "eof", "lost"]
    assert set(protocol.hints) == {-1}


@pytest.mark.parametrize("protocol", [support.BufferedRecorder, Ring])
async def test_much_data(loop, kind, protocol):
    data = support.payload(3_000_000)
    receiver = protocol(5000)
    async with support.transport_pair(receiver, support.Recorder(), kind) as (_, other):
        other.write(data)
        received = await receiver.wait_bytes(len(data))
        assert hashlib.sha256(received).digest() == hashlib.sha256(data).digest()


async def test_both_ways(loop, kind):
    one, other = support.BufferedRecorder(70_000), support.BufferedRecorder(333)
    data = [support.payload(1_000_000, 1), support.payload(1_000_000, 2)]
    async with support.transport_pair(one, other, kind, 4096) as (first, second):
        first.write(data[0])
        second.write(data[1])
        assert await other.wait_bytes(1_000_000) == data[0]
        assert await one.wait_bytes(1_000_000) == data[1]


BUFFERS = {
    "bytearray": lambda: bytearray(100),
    "memoryview": lambda: memoryview(bytearray(200))[50:150],
    "array of bytes": lambda: array.array("B", bytes(100)),
    "array of integers": lambda: array.array("i", [0] * 25),
}


@pytest.mark.parametrize("make", BUFFERS.values(), ids=BUFFERS)
async def test_sorts_of_buffers(loop, kind, make):
    protocol = support.BufferedRecorder()
    received = bytearray()
    buffer = make()

    def updated(count):
        received.extend(bytes(buffer)[:count])
        protocol.note("updated")

    protocol.get_buffer = lambda sizehint: buffer
    protocol.buffer_updated = updated
    async with support.transport_and_socket(protocol, kind) as (_, peer):
        peer.send(b"some data")
        await protocol.wait_event("updated")
        assert received == b"some data"


async def test_the_buffer_may_be_resized_as_soon_as_it_was_filled(loop, kind):
    """No view of it is kept while the protocol runs."""

    class Resizing(support.BufferedRecorder):
        def buffer_updated(self, count):
            self.data += self.buffer[:count]
            self.buffer.clear()
            self.buffer.extend(bytes(len(self.data) + 1))
            self.note()

    protocol = Resizing(3)
    async with support.transport_and_socket(protocol, kind) as (_, peer):
        peer.send(b"x" * 1000)
        assert await protocol.wait_bytes(1000) == b"x" * 1000


async def test_a_buffer_for_every_call(loop, kind):
    class Fresh(support.BufferedRecorder):
        made = 0

        def get_buffer(self, sizehint):
            self.made += 1
            self.buffer = bytearray(64)
            return self.buffer

    protocol = Fresh()
    async with support.transport_and_socket(protocol, kind) as (_, peer):
        for number in range(1, 20):
            peer.send(b"x")
            await protocol.wait_bytes(number)
    assert protocol.made >= 19


async def test_pausing(loop, kind):
    class Stopping(support.BufferedRecorder):
        def buffer_updated(self, count):
            self.transport.pause_reading()
            super().buffer_updated(count)

    protocol = Stopping(10)
    async with support.transport_and_socket(protocol, kind) as (transport, peer):
        peer.send(b"x" * 100)
        for count in range(10, 110, 10):
            await protocol.wait_bytes(count)
            await support.turns(3)
            assert len(protocol.data) == count
            transport.resume_reading()


@pytest.mark.parametrize("keep", [True, False])
async def test_the_end(loop, kind, keep):
    protocol = support.BufferedRecorder()
    protocol.keep_open_at_eof = keep
    async with support.transport_and_socket(protocol, kind) as (transport, peer):
        peer.shutdown(1)
        await protocol.wait_event("eof")
        assert transport.is_closing() is not keep
        transport.close()
        await protocol.wait_event("lost")
    assert protocol.events == ["made", "eof", "lost"]


# What goes wrong -----------------------------------------------------------------------------


def raising(*arguments):
    raise ValueError("on purpose")


WRONG = {
    "get_buffer fails": {"get_buffer": raising},
    "no buffer": {"get_buffer": lambda sizehint: None},
    "an empty buffer": {"get_buffer": lambda sizehint: bytearray()},
    "a buffer that is read-only": {"get_buffer": lambda sizehint: b"x" * 100},
    "a text": {"get_buffer": lambda sizehint: "text"},
    "buffer_updated fails": {"buffer_updated": raising},
    "eof_received fails": {"eof_received": raising},
}


async def what_happens(methods, kind, collected):
    """What a protocol whose methods were replaced causes: reports, and the connection's end."""
    asyncio.get_running_loop().set_exception_handler(collected)
    protocol = support.BufferedRecorder()
    vars(protocol).update(methods)
    async with support.transport_and_socket(protocol, kind) as (_, peer):
        peer.send(b"data")
        peer.shutdown(1)
        await protocol.wait_event("lost")
        ending, _ = await support.outcome_of(lambda: support.read_to_end(peer))
        assert ending in (None, ConnectionResetError)
    told = [
        (context["message"], type(context["exception"]), set(context))
        for context in collected.take()
    ]
    return told, protocol.events[-1], type(protocol.error)


@pytest.mark.parametrize("methods", WRONG.values(), ids=WRONG)
def test_errors_end_the_connection(loop, model, kind, methods):
    expected = model.run_until_complete(what_happens(methods, kind, support.Reports()))
    assert loop.run_until_complete(what_happens(methods, kind, support.Reports())) == expected
    assert len(expected[0]) == 1


@pytest.mark.parametrize("exception", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("name", ["get_buffer", "buffer_updated"])
def test_leaving_from_a_method(loop, kind, name, exception):
    def leave(*arguments):
        raise exception

    protocol = support.BufferedRecorder()
    setattr(protocol, name, leave)
    ours, theirs = support.socket_pair(kind)
    transport, _ = loop.run_until_complete(loop.create_connection(lambda: protocol, sock=ours))
    theirs.send(b"data")
    with pytest.raises(exception):
        loop.run_forever()
    transport.abort()
    theirs.close()
    support.spin(loop, 3)
    assert protocol.events == ["made", "lost"]


async def test_the_buffer_is_let_go(loop, kind):
    class Buffer(bytearray):
        pass

    protocol = support.BufferedRecorder()
    protocol.buffer = Buffer(100)
    dead = weakref.ref(protocol.buffer)
    async with support.transport_and_socket(protocol, kind) as (_, peer):
        peer.send(b"data")
        await protocol.wait_bytes(4)
        protocol.buffer = bytearray(100)
        await support.turns(2)
        gc.collect()
        assert dead() is None
        peer.send(b"data")
        await protocol.wait_bytes(8)
