"""Pipe transports that read: much data, pauses, and the end."""

import asyncio
import os
import pty

import pytest

import support
from pipe_ends import pipe_ends, read_end, read_from, write_end, write_to


@pytest.fixture(params=["pipe", "socket", "terminal"])
def ends(request):
    pair = pipe_ends(request.param)
    yield pair
    for end in pair:
        end.close()


async def test_much_data(loop, ends):
    _, received = await read_from(loop, ends[0])
    writer, _ = await write_to(loop, ends[1])
    data = support.payload(5_000_000)
    writer.write(data)
    assert await received.wait_bytes(len(data)) == data
    writer.close()
    await received.wait_event("lost")
    await support.turns(2)


async def test_data_before_the_end(loop):
    """What the writer left behind is read to the end, also after a pause."""
    data = support.payload(60_000)
    first, second = pipe_ends("pipe")
    second.write(data)
    second.close()
    transport, received = await read_from(loop, first)
    transport.pause_reading()
    await support.turns(3)
    seen = bytes(received.data)
    await support.turns(3)
    assert bytes(received.data) == seen
    transport.resume_reading()
    await received.wait_event("lost")
    assert bytes(received.data) == data
    assert received.events[-2:] == ["eof", "lost"]


async def test_pausing(loop, ends):
    transport, received = await read_from(loop, ends[0])
    writer, _ = await write_to(loop, ends[1])
    assert transport.is_reading()
    for _ in range(2):
        transport.pause_reading()
        assert not transport.is_reading()
    writer.write(b"later")
    await support.turns(5)
    assert not received.data
    for _ in range(2):
        transport.resume_reading()
        assert transport.is_reading()
    assert await received.wait_bytes(5) == b"later"
    # A pause that ends before anything comes.
    transport.pause_reading()
    transport.resume_reading()
    writer.write(b"again")
    assert await received.wait_bytes(10) == b"lateragain"
    transport.close()
    assert not transport.is_reading()
    transport.pause_reading()
    transport.resume_reading()
    writer.close()
    await received.wait_event("lost")
    await support.turns(2)


async def test_pausing_in_connection_made(loop):
    class Protocol(support.Recorder):
        def connection_made(self, transport):
            transport.pause_reading()
            super().connection_made(transport)

    first, second = pipe_ends("pipe")
    with second:
        second.write(b"early")
        transport, protocol = await loop.connect_read_pipe(Protocol, first)
        await support.turns(3)
        assert not protocol.data
        transport.resume_reading()
        assert await protocol.wait_bytes(5) == b"early"
        transport.close()
        await protocol.wait_event("lost")


async def test_a_paused_pipe_costs_nothing(loop, mioloop_only):
    """Neither waiting data nor an ended writer wake the loop meanwhile."""
    first, second = pipe_ends("pipe")
    transport, received = await read_from(loop, first)
    transport.pause_reading()
    second.write(b"x")
    second.close()
    await support.turns(10)
    before = loop.metrics().turns
    await asyncio.sleep(0.02)
    assert loop.metrics().turns - before <= 3
    transport.close()
    await received.wait_event("lost")


async def test_closing_from_data_received(loop):
    class Protocol(support.Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.close()

    first, second = pipe_ends("pipe")
    with second:
        _, protocol = await loop.connect_read_pipe(Protocol, first)
        second.write(b"x" * 65536)
        await protocol.wait_event("lost")
    assert protocol.events == ["made", "data", "lost"]


async def test_the_end_of_a_terminal(loop):
    """The system reports it as an error, which nobody but the protocol is told."""
    controlling, slave = pty.openpty()
    _, received = await read_from(loop, read_end(controlling))
    os.write(slave, b"last words")
    os.close(slave)
    await received.wait_event("lost")
    assert bytes(received.data) == b"last words"
    assert isinstance(received.error, OSError)
    assert received.events == ["made", "data", "lost"]


async def test_a_failing_read(loop, reports):
    """A descriptor that is not open for reading: reported, and the end."""
    first, second = os.pipe()
    os.close(first)
    file = write_end(second)
    _, protocol = await read_from(loop, file)
    await protocol.wait_event("lost")
    context = reports.take_one()
    assert context["message"] == "Fatal read error on pipe transport"
    assert protocol.error is context["exception"]
    assert protocol.events == ["made", "lost"]


async def test_stream_reader(loop):
    first, second = pipe_ends("pipe")
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), first)
    data = support.payload(1_000_000)
    sending = asyncio.create_task(asyncio.to_thread(write_all, second, data))
    assert await reader.readexactly(10) == data[:10]
    assert await reader.read() == data[10:]
    await sending
    await support.turns(2)


def write_all(file, data):
    with file:
        while data:
            data = data[file.write(data) :]
