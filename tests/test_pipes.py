"""Pipe transports: FIFOs, pipes, sockets, terminals and devices."""

import asyncio
import contextvars
import gc
import logging
import os
import pty
import re
import socket
import weakref

import pytest

import support
from pipe_ends import pipe_ends, read_end, read_from, write_end, write_to


@pytest.fixture(params=["pipe", "socket", "terminal"])
def ends(request):
    pair = pipe_ends(request.param)
    yield pair
    for end in pair:
        end.close()


# Both directions ---------------------------------------------------------------------------------


async def test_data_in_order(loop, ends):
    reader, received = await read_from(loop, ends[0])
    writer, _ = await write_to(loop, ends[1])
    data = support.payload(300_000)
    for start in range(0, len(data), 1000):
        writer.write(data[start : start + 1000])
    assert await received.wait_bytes(len(data)) == data
    reader.close()
    writer.close()
    await received.wait_event("lost")
    assert received.events == ["made", "data", "lost"]
    assert received.error is None


async def test_collections_at_any_moment(loop, ends):
    """Also between a transport's allocation and its first reference."""
    descriptors = [os.dup(ends[0].fileno()), os.dup(ends[1].fileno())]
    taken = []

    def factory():
        # Python keeps so many dictionaries for later; making others can start a collection.
        taken.extend({} for _ in range(100))
        return support.Recorder()

    before = gc.get_threshold()
    try:
        for number, descriptor in enumerate(descriptors * 40):
            gc.set_threshold(1 + number // 2 % 10)
            pipe = os.fdopen(os.dup(descriptor), "r+b", 0)
            is_read = descriptor == descriptors[0]
            connect = loop.connect_read_pipe if is_read else loop.connect_write_pipe
            transport, protocol = await connect(factory, pipe)
            transport.note = "kept"
            transport.close()
            await protocol.wait_event("lost")
            assert transport.note == "kept"
    finally:
        gc.set_threshold(*before)
        for descriptor in descriptors:
            os.close(descriptor)


async def test_a_named_pipe(loop, tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    opened = await asyncio.gather(
        asyncio.to_thread(open, path, "rb", 0), asyncio.to_thread(open, path, "wb", 0)
    )
    _, received = await read_from(loop, opened[0])
    writer, sent = await write_to(loop, opened[1])
    writer.write(b"through a name")
    writer.write_eof()
    await received.wait_event("lost")
    await sent.wait_event("lost")
    assert bytes(received.data) == b"through a name"
    assert received.events == ["made", "data", "eof", "lost"]


@pytest.mark.parametrize("method", ["connect_read_pipe", "connect_write_pipe"])
async def test_regular_files_are_rejected(loop, model, tmp_path, method):
    path = tmp_path / "file"
    path.touch()

    async def connect(loop):
        with os.fdopen(os.open(path, os.O_RDWR), "rb+", 0) as file:
            try:
                await getattr(loop, method)(asyncio.Protocol, file)
            finally:
                assert not file.closed

    expected = await asyncio.to_thread(
        model.run_until_complete, support.outcome_of(lambda: connect(model))
    )
    assert await support.outcome_of(lambda: connect(loop)) == expected
    assert expected[0] is ValueError


async def test_a_closed_file_is_rejected(loop, mioloop_only):
    """As by asyncio, whose half-made transport fails once more when it dies."""
    first, second = os.pipe()
    os.close(second)
    file = read_end(first)
    file.close()
    with pytest.raises(ValueError, match="closed file"):
        await loop.connect_read_pipe(asyncio.Protocol, file)


async def test_what_transports_are(loop, ends):
    reader, received = await read_from(loop, ends[0])
    writer, sent = await write_to(loop, ends[1])
    assert isinstance(reader, asyncio.ReadTransport)
    assert not isinstance(reader, asyncio.WriteTransport)
    assert isinstance(writer, asyncio.WriteTransport)
    assert isinstance(writer, asyncio.Transport)
    for method in (writer.is_reading, writer.pause_reading, writer.resume_reading):
        with pytest.raises(NotImplementedError):
            method()
    assert not reader.is_closing()
    assert not writer.is_closing()
    for transport, protocol, end in ((writer, sent, ends[1]), (reader, received, ends[0])):
        assert isinstance(transport, asyncio.BaseTransport)
        assert transport.get_extra_info("pipe") is end
        assert transport.get_extra_info("other") is None
        assert transport.get_extra_info("other", 5) == 5
        assert transport.get_protocol() is protocol
        assert transport is protocol.transport
        assert re.search(rf"<.*Pipe\w*Transport .*fd={end.fileno()} ", repr(transport))
        transport.close()
        assert transport.is_closing()
        assert "closing" in repr(transport)
        transport.close()
        await protocol.wait_event("lost")
        await support.turns()
        assert end.fileno() == -1 if isinstance(end, socket.socket) else end.closed
        assert transport.get_extra_info("pipe") is end
        assert "closed" in repr(transport)
        assert [event for event in protocol.events if event != "eof"] == ["made", "lost"]


async def test_protocols_can_be_exchanged(loop, ends):
    reader, first = await read_from(loop, ends[0])
    second = support.Recorder()
    second.connection_made(reader)
    reader.set_protocol(second)
    assert reader.get_protocol() is second
    writer, sent = await write_to(loop, ends[1])
    writer.set_protocol(second)
    assert writer.get_protocol() is second
    writer.write(b"to the second")
    assert await second.wait_bytes(13) == b"to the second"
    assert not first.data
    reader.close()
    writer.close()
    await support.turns(2)
    assert second.events.count("lost") == 2
    assert "lost" not in first.events + sent.events


async def test_callbacks_run_in_the_context_of_their_cause(loop):
    name = contextvars.ContextVar("name", default="none")
    seen = []

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport):
            seen.append(("made", name.get()))

        def data_received(self, data):
            seen.append((data.decode(), name.get()))

        def connection_lost(self, error):
            seen.append(("lost", name.get()))
            lost.set_result(None)

    lost = loop.create_future()
    reader, writer = pipe_ends("pipe")
    name.set("connect")
    with writer:
        transport, _ = await loop.connect_read_pipe(Protocol, reader)
        name.set("resume")
        writer.write(b"one")
        while len(seen) < 2:
            await support.turns()
        transport.pause_reading()
        transport.resume_reading()
        writer.write(b"two")
        while len(seen) < 3:
            await support.turns()
        name.set("close")
        transport.close()
        await lost
    assert seen == [("made", "connect"), ("one", "connect"), ("two", "resume"), ("lost", "close")]


async def test_one_terminal_read_and_written(loop):
    """Line editors and consoles read and write one descriptor."""
    controlling, slave = pty.openpty()
    console = os.fdopen(slave, "rb+", 0)
    reader, received = await read_from(loop, console)
    writer, sent = await write_to(loop, console)
    calls = support.Counter(loop)
    loop.add_writer(slave, calls)
    await calls.at(1)
    loop.remove_writer(slave)
    os.write(controlling, b"typed\n")
    await received.wait_bytes(6)
    writer.write(b"printed")
    shown = b""
    while not shown.endswith(b"printed"):
        shown += os.read(controlling, 100)
    os.write(controlling, b"more\n")
    assert await received.wait_bytes(11) == b"typed\nmore\n"
    reader.close()
    await received.wait_event("lost")
    writer.abort()
    await sent.wait_event("lost")
    os.close(controlling)


async def test_one_socket_read_and_written(loop, mioloop_only):
    """asyncio takes what the peer sends for its end, as soon as the socket is written too."""
    ours, theirs = support.socket_pair("unix")
    reader, received = await read_from(loop, ours)
    writer, sent = await write_to(loop, ours)
    theirs.send(b"ping")
    await received.wait_bytes(4)
    received.data.clear()
    much = support.payload(2_000_000)
    writer.write(much)
    assert await support.read_exactly(theirs, len(much)) == much
    theirs.send(b"pong")
    await received.wait_bytes(4)
    assert not writer.is_closing()
    theirs.close()
    await received.wait_event("lost")
    await sent.wait_event("lost")
    assert (received.error, sent.error) == (None, None)
    assert reader.is_closing() and writer.is_closing()


async def test_a_device_that_cannot_be_watched(loop, reports):
    """The null device takes all that is written; reading it fails as in asyncio: a report."""
    writer, sent = await write_to(loop, write_end(os.open(os.devnull, os.O_WRONLY)))
    writer.write(b"x" * 1_000_000)
    assert writer.get_write_buffer_size() == 0
    writer.close()
    await sent.wait_event("lost")
    reader, received = await read_from(loop, read_end(os.open(os.devnull, os.O_RDONLY)))
    assert isinstance(reports.take_one()["exception"], PermissionError)
    assert received.events == ["made"]
    reader.close()
    await received.wait_event("lost")


async def test_exceptions_of_protocols_are_reported(loop, reports):
    """And the transport stays open."""

    class Protocol(support.Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            raise ZeroDivisionError("made")

        def data_received(self, data):
            super().data_received(data)
            raise ZeroDivisionError("data")

        def eof_received(self):
            super().eof_received()
            raise ZeroDivisionError("eof")

        def connection_lost(self, error):
            super().connection_lost(error)
            raise ZeroDivisionError("lost")

    first, second = pipe_ends("pipe")
    with second:
        _, protocol = await loop.connect_read_pipe(Protocol, first)
        second.write(b"one")
        await protocol.wait_bytes(3)
        second.write(b"two")
        await protocol.wait_bytes(6)
    await protocol.wait_event("lost")
    await support.turns()
    errors = [context["exception"].args[0] for context in reports.take()]
    assert errors == ["made", "data", "data", "eof", "lost"]
    assert protocol.events == ["made", "data", "eof", "lost"]
    assert first.closed


def test_an_exit_leaves_the_loop(new_loop):
    class Stop(SystemExit):
        pass

    class Protocol(support.Recorder):
        def data_received(self, data):
            raise Stop

    first, second = pipe_ends("pipe")
    loop = new_loop()
    transport, protocol = loop.run_until_complete(loop.connect_read_pipe(Protocol, first))
    second.write(b"x")
    with pytest.raises(Stop):
        loop.run_forever()
    second.close()
    transport.close()
    loop.run_until_complete(support.turns(2))
    assert protocol.events == ["made", "lost"]


# What is left behind -----------------------------------------------------------------------------


def test_a_loop_closed_with_open_pipes(loop_factory):
    """The loop holds transports that it watches: they warn, and close what they were given."""
    loops = [loop_factory()]
    first, second = pipe_ends("pipe")
    for connecting in (
        loops[0].connect_read_pipe(asyncio.Protocol, first),
        loops[0].connect_write_pipe(asyncio.Protocol, second),
    ):
        loops[0].run_until_complete(connecting)
    del connecting

    def close():
        loops.pop().close()
        gc.collect()

    with pytest.warns(ResourceWarning, match="unclosed transport <.*Pipe"):
        close()
    assert first.closed and second.closed


async def test_closed_transports_die(loop):
    first, second = pipe_ends("pipe")
    dead = []
    for transport, protocol in [await read_from(loop, first), await write_to(loop, second)]:
        # A cycle, as programs make it.
        transport.own = transport
        dead += [weakref.ref(transport), weakref.ref(protocol)]
        transport.close()
        await protocol.wait_event("lost")
    del transport, protocol
    await support.turns(2)
    gc.collect()
    assert [reference() for reference in dead] == [None] * 4


async def test_debug_mode_logs(loop, caplog):
    loop.set_debug(True)
    first, second = pipe_ends("pipe")
    with caplog.at_level(logging.DEBUG, "asyncio"):
        transport, received = await read_from(loop, first)
        transport.pause_reading()
        transport.resume_reading()
        second.close()
        await received.wait_event("lost")
    said = " ".join(record.getMessage() for record in caplog.records)
    for text in ("connected", "pauses reading", "resumes reading", "was closed by peer"):
        assert text in said


async def test_a_cancelled_connect(loop):
    first, second = pipe_ends("pipe")
    with second:
        task = asyncio.create_task(loop.connect_read_pipe(asyncio.Protocol, first))
        await support.turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await support.turns(2)
    assert first.closed
