"""Pipe transports that write: flow control, the end, and readers that go."""

import asyncio
import fcntl
import logging
import os

import pytest

import support
from pipe_ends import pipe_ends, read_from, write_to


async def test_writes_are_tried_at_once(loop):
    first, second = pipe_ends("pipe")
    with first:
        transport, protocol = await write_to(loop, second)
        transport.write(b"now")
        assert os.read(first.fileno(), 10) == b"now"
        transport.close()
        await protocol.wait_event("lost")


async def test_a_memoryview_with_holes_is_refused(loop, mioloop_only):
    """In asyncio it ends the transport."""
    first, second = pipe_ends("pipe")
    with first:
        transport, protocol = await write_to(loop, second)
        with pytest.raises(BufferError, match="not C-contiguous"):
            transport.write(memoryview(b"some bytes")[::2])
        transport.write(b"more")
        assert os.read(first.fileno(), 10) == b"more"
        transport.close()
        await protocol.wait_event("lost")


async def test_kinds_of_data(loop, model):
    first, second = pipe_ends("pipe")
    with first:
        transport, protocol = await write_to(loop, second)
        changed = bytearray(b" two")
        transport.write(b"one")
        transport.write(changed)
        transport.write(memoryview(b" three"))
        transport.write(b"")
        transport.writelines([b" four", bytearray(b" five"), memoryview(b" six"), b""])
        transport.writelines(iter([b" seven"] * 2))
        transport.writelines([])
        expected = b"one two three four five six seven seven"
        assert os.read(first.fileno(), 100) == expected
        for wrong in ("text", None, [b"list"]):
            kind, text = support.outcome(lambda wrong=wrong: transport.write(wrong))
            assert (kind, text) == (AssertionError, repr(wrong))
        transport.close()
        await protocol.wait_event("lost")


async def test_what_waits_is_a_snapshot(loop, mioloop_only):
    first, second = pipe_ends("pipe")
    transport, _ = await write_to(loop, second)
    fill = transport_fill(transport)
    changed = bytearray(b"before")
    transport.write(changed)
    changed[:] = b"after!"
    transport.close()
    _, received = await read_from(loop, first)
    assert (await received.wait_bytes(fill + 6))[-6:] == b"before"
    await received.wait_event("lost")


def transport_fill(transport):
    """Write until some of it waits; the number of bytes."""
    count = 0
    while transport.get_write_buffer_size() == 0:
        transport.write(b"x" * 10_000)
        count += 10_000
    return count


async def test_flow_control(loop):
    first, second = pipe_ends("pipe")
    transport, protocol = await write_to(loop, second)
    assert transport.get_write_buffer_limits() == (16384, 65536)
    transport.set_write_buffer_limits(high=1000, low=100)
    assert transport.get_write_buffer_limits() == (100, 1000)
    with pytest.raises(ValueError, match=r"high \(1\) must be >= low \(2\) must be >= 0"):
        transport.set_write_buffer_limits(high=1, low=2)
    count = transport_fill(transport)
    transport.write(b"x" * 1001)
    count += 1001
    assert protocol.events == ["made", "pause"]
    assert transport.get_write_buffer_size() > 1000
    _, received = await read_from(loop, first)
    await protocol.wait_event("resume")
    await received.wait_bytes(count)
    assert transport.get_write_buffer_size() == 0
    transport.close()
    await protocol.wait_event("lost")
    assert protocol.events == ["made", "pause", "resume", "lost"]
    await received.wait_event("lost")


async def test_failing_flow_control(loop, reports):
    class Protocol(support.Recorder):
        def pause_writing(self):
            raise ZeroDivisionError

    first, second = pipe_ends("pipe")
    with first:
        transport, protocol = await loop.connect_write_pipe(Protocol, second)
        transport.write(b"x" * 1_000_000)
        context = reports.take_one()
        assert context["message"] == "protocol.pause_writing() failed"
        assert (context["transport"], context["protocol"]) == (transport, protocol)
        transport.abort()
        await protocol.wait_event("lost")


@pytest.mark.parametrize("method", ["close", "write_eof"])
async def test_closing_sends_what_waits(loop, method):
    first, second = pipe_ends("pipe")
    transport, sent = await write_to(loop, second)
    data = support.payload(1_000_000)
    transport.write(data)
    assert transport.can_write_eof()
    getattr(transport, method)()
    getattr(transport, method)()
    assert transport.is_closing()
    transport.write(b"dropped")
    assert sent.events == ["made", "pause"]
    _, received = await read_from(loop, first)
    await received.wait_event("lost")
    await sent.wait_event("lost")
    assert bytes(received.data) == data
    assert sent.error is None


async def test_aborting_drops_what_waits(loop):
    first, second = pipe_ends("pipe")
    with first:
        transport, sent = await write_to(loop, second)
        transport.write(b"x" * 1_000_000)
        transport.abort()
        assert sent.events == ["made", "pause"]
        assert transport.get_write_buffer_size() == 0
        await sent.wait_event("lost")
    assert sent.error is None


async def test_closing_and_aborting(loop, mioloop_only):
    """asyncio calls connection_lost twice."""
    first, second = pipe_ends("pipe")
    with first:
        transport, sent = await write_to(loop, second)
        transport.close()
        transport.abort()
        await sent.wait_event("lost")
        await support.turns(2)
        transport.abort()
    assert sent.events == ["made", "lost"]


@pytest.mark.parametrize("kind", ["pipe", "socket"])
async def test_the_reader_goes_while_idle(loop, kind):
    first, second = pipe_ends(kind)
    transport, sent = await write_to(loop, second)
    transport.write(b"unread")
    await support.turns(2)
    assert sent.events == ["made"]
    first.close()
    await sent.wait_event("lost")
    assert sent.error is None
    assert sent.events == ["made", "lost"]


@pytest.mark.parametrize("kind", ["pipe", "socket"])
async def test_the_reader_goes_while_bytes_wait(loop, kind):
    first, second = pipe_ends(kind)
    transport, sent = await write_to(loop, second)
    transport_fill(transport)
    first.close()
    await sent.wait_event("lost")
    assert isinstance(sent.error, BrokenPipeError)
    assert transport.is_closing()


async def test_the_reader_goes_before_a_write(loop):
    """The write is silent, the protocol is told, and whoever goes on is warned."""
    first, second = pipe_ends("pipe")
    transport, sent = await write_to(loop, second)
    first.close()
    transport.write(b"nobody there")
    assert transport.is_closing()
    await sent.wait_event("lost")
    assert isinstance(sent.error, BrokenPipeError)


async def test_writing_after_the_end(loop, caplog):
    first, second = pipe_ends("pipe")
    transport, sent = await write_to(loop, second)
    first.close()
    await sent.wait_event("lost")
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            transport.write(b"x")
        transport.write(b"")
        assert not caplog.records
        transport.write(b"x")
    assert [record.getMessage() for record in caplog.records] == [
        "pipe closed by peer or os.write(pipe, data) raised exception."
    ]


async def test_stream_writer(loop):
    first, second = pipe_ends("pipe")
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.streams.FlowControlMixin(loop=loop), second
    )
    writer = asyncio.StreamWriter(transport, protocol, None, loop)
    _, received = await read_from(loop, first)
    data = support.payload(300_000)
    for start in range(0, len(data), 50_000):
        writer.write(data[start : start + 50_000])
        await writer.drain()
    transport.close()
    await received.wait_event("lost")
    await support.turns(2)
    assert bytes(received.data) == data


@pytest.mark.skipif(not hasattr(fcntl, "F_SETPIPE_SZ"), reason="pipes have no size here")
@pytest.mark.parametrize("chosen", [False, True])
async def test_pipes_that_much_goes_through_are_widened(loop, chosen, mioloop_only):
    """Unless somebody chose their size."""
    first, second = pipe_ends("pipe")
    default = fcntl.fcntl(first, fcntl.F_GETPIPE_SZ)
    if chosen:
        fcntl.fcntl(first, fcntl.F_SETPIPE_SZ, 2 * default)
    size = fcntl.fcntl(first, fcntl.F_GETPIPE_SZ)
    transport, sent = await write_to(loop, second)
    _, received = await read_from(loop, first)
    transport.write(b"little")
    await received.wait_bytes(6)
    assert fcntl.fcntl(first, fcntl.F_GETPIPE_SZ) == size
    transport.write(b"x" * 1_000_000)
    await received.wait_bytes(1_000_000)
    assert fcntl.fcntl(first, fcntl.F_GETPIPE_SZ) == (size if chosen else 4 * default)
    transport.close()
    await received.wait_event("lost")
    await sent.wait_event("lost")
