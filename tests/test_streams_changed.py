"""asyncio's streams where a program changed something, or something fails: as stock asyncio's."""

import asyncio
import gc
import types
import weakref

import pytest

import support
from streaming import Connection, StreamReader, StreamReaderProtocol, unread, until

# ---------------------------------------------------------------------------------------------
# What programs change


async def test_methods_replaced_on_the_classes(loop, monkeypatch):
    """Also in the midst of a connection, and back again."""
    seen = []

    def feed_data(self, data, original=StreamReader.feed_data):
        seen.append(("feed_data", type(data), data))
        original(self, data)

    def data_received(self, data, original=StreamReaderProtocol.data_received):
        seen.append(("data_received", type(data), data))
        original(self, data)

    def wakeup(self, original=StreamReader._wakeup_waiter):
        seen.append("_wakeup_waiter")
        original(self)

    async with Connection.open() as stream:
        await stream.send(b"1")
        for owner, function, expected in (
            (StreamReader, feed_data, ("feed_data", bytes, b"x")),
            (StreamReaderProtocol, data_received, ("data_received", bytes, b"x")),
        ):
            with monkeypatch.context() as patch:
                patch.setattr(owner, function.__name__, function)
                await stream.send(b"x")
                assert seen == [expected]
            await stream.send(b"y")
            assert seen == [expected]
            seen.clear()
        with monkeypatch.context() as patch:
            patch.setattr(StreamReader, "_wakeup_waiter", wakeup)
            await stream.send(b"z")
        other = StreamReader(loop=loop)
        with monkeypatch.context() as patch:
            patch.setattr(StreamReaderProtocol, "_stream_reader", property(lambda _: other))
            await stream.send(b"elsewhere")
        await stream.send(b"!")
        assert seen == ["_wakeup_waiter"]
        assert await stream.reader.readexactly(7) == b"1xyxyz!"
        assert await other.readexactly(9) == b"elsewhere"


async def test_attributes_looked_up_by_the_program(loop, monkeypatch):
    seen = []

    def getattribute(self, name):
        seen.append(name)
        return object.__getattribute__(self, name)

    async with Connection.open() as stream:
        with monkeypatch.context() as patch:
            patch.setattr(StreamReader, "__getattribute__", getattribute, raising=False)
            await stream.send(b"a")
        assert "feed_data" in seen
        assert await stream.reader.readexactly(1) == b"a"


async def test_methods_replaced_on_instances(loop):
    seen = []
    async with Connection.open() as stream:
        for owner, name in (
            (stream.protocol, "data_received"),
            (stream.reader, "feed_data"),
            (stream.reader, "_wakeup_waiter"),
        ):
            original = getattr(owner, name)

            def hook(*arguments, name=name, original=original):
                seen.append((name, *arguments))
                original(*arguments)

            await stream.send(b"-")
            setattr(owner, name, hook)
            await stream.send(b"x")
            delattr(owner, name)
        assert seen == [("data_received", b"x"), ("feed_data", b"x"), ("_wakeup_waiter",)]
        assert await stream.reader.readexactly(6) == b"-x-x-x"


async def test_subclasses(loop):
    seen = []

    class Reader(StreamReader):
        def feed_data(self, data):
            seen.append(("reader", data))
            super().feed_data(data)

    class Protocol(StreamReaderProtocol):
        def data_received(self, data):
            seen.append(("protocol", data))
            super().data_received(data)

    for classes in ({"reader": Reader}, {"protocol": Protocol}):
        async with Connection.open(**classes) as stream:
            await stream.send(b"a")
            assert await stream.reader.readexactly(1) == b"a"
    async with Connection.open() as stream:
        stream.reader.__class__ = Reader
        await stream.send(b"b")
        stream.protocol.__class__ = Protocol
        await stream.send(b"c")
        assert await stream.reader.readexactly(2) == b"bc"
    assert seen == [
        ("reader", b"a"),
        ("protocol", b"a"),
        ("reader", b"b"),
        ("protocol", b"c"),
        ("reader", b"c"),
    ]


async def test_another_reader_takes_over(loop):
    async with Connection.open() as stream:
        await stream.send(b"first")
        other = StreamReader(loop=loop)
        stream.protocol._stream_reader_wr = weakref.ref(other)
        await stream.send(b"second")
        assert await stream.reader.readexactly(5) == b"first"
        assert await other.readexactly(6) == b"second"
        stream.protocol._stream_reader_wr = None
        await stream.send(b"nobody's")
        assert not other._buffer
        assert not stream.transport.is_closing()


async def test_the_reader_is_gone(loop):
    """The protocol holds it weakly: what comes then is dropped."""
    async with Connection.open() as stream:
        await stream.send(b"a")
        gone = weakref.ref(stream.reader)
        stream.writer._reader = None
        del stream.reader
        gc.collect()
        assert gone() is None
        stream.peer.sendall(b"b")
        await until(lambda: not unread(stream.fd))
        assert not stream.transport.is_closing()


async def test_another_buffer(loop):
    """Whatever has `extend` is a buffer; a subclass of bytearray may have its own."""

    class Buffer(bytearray):
        def extend(self, data):
            super().extend(bytes(data).upper())

    async with Connection.open() as stream:
        stream.reader._buffer = Buffer()
        await stream.send(b"abc")
        assert await stream.reader.readexactly(3) == b"ABC"


@pytest.mark.parametrize("limit", [10.0, 9.9, 2**70])
async def test_limits_of_other_kinds(loop, limit):
    async with Connection.open(limit=limit) as stream:
        await stream.send(b"x" * 20)
        assert stream.transport.is_reading() is (limit != 9.9)
        assert await stream.reader.readexactly(20) == b"x" * 20
        assert stream.transport.is_reading()


async def test_a_transport_that_cannot_pause(loop):
    async with Connection.open(limit=10) as stream:
        stream.reader._transport = types.SimpleNamespace(pause_reading=None)

        def pause_reading():
            raise NotImplementedError

        stream.reader._transport.pause_reading = pause_reading
        await stream.send(b"x" * 30)
        assert stream.reader._transport is None
        assert not stream.reader._paused
        await stream.send(b"x" * 30)
        assert await stream.reader.readexactly(60) == b"x" * 60


# ---------------------------------------------------------------------------------------------
# What fails


@pytest.mark.parametrize("size", [5, 400_000])
async def test_a_view_of_the_buffer(loop, reports, kind, size):
    """Neither asyncio nor we can let it grow then: the connection ends."""
    async with Connection.open(kind, limit=2**20) as stream:
        if size > 5:
            sending = asyncio.ensure_future(loop.sock_sendall(stream.peer, b"x" * 3 * size))
            await stream.reader.readexactly(3 * size)
            await sending
        await stream.send(b"start")
        with memoryview(stream.reader._buffer):
            sending = asyncio.ensure_future(loop.sock_sendall(stream.peer, b"x" * size))
            await until(stream.transport.is_closing)
            sending.cancel()
            assert stream.reader._buffer == b"start"
        context = reports.take_one()
        assert context["message"] == "Fatal error: protocol.data_received() call failed."
        assert isinstance(context["exception"], BufferError)
        assert context["protocol"] is stream.protocol
        await support.turns(3)
        assert stream.reader.exception() is context["exception"]


async def test_data_after_the_end(loop, reports):
    async with Connection.open() as stream:
        stream.reader.feed_eof()
        await stream.send(b"late")
        context = reports.take_one()
        assert isinstance(context["exception"], AssertionError)
        assert str(context["exception"]) == "feed_data after feed_eof"
        assert stream.transport.is_closing()


async def test_an_exception_of_the_program(loop):
    """What comes after `set_exception` is kept, and every read raises."""
    async with Connection.open() as stream:
        waiting = asyncio.create_task(stream.reader.read(1))
        await support.turns(2)
        stream.reader.set_exception(OSError("the program's"))
        await stream.send(b"abc")
        for read in (waiting, stream.reader.readline(), stream.reader.readexactly(1)):
            with pytest.raises(OSError, match="the program's"):
                await read
        assert stream.reader._buffer == b"abc"


async def test_pause_reading_fails(loop, reports):
    def pause_reading():
        raise ZeroDivisionError

    async with Connection.open(limit=1) as stream:
        stream.reader._transport = types.SimpleNamespace(pause_reading=pause_reading)
        await stream.send(b"abc")
        assert isinstance(reports.take_one()["exception"], ZeroDivisionError)
        assert stream.reader._buffer == b"abc"
        assert stream.transport.is_closing()


async def test_the_peer_resets(loop):
    async with Connection.open("tcp") as stream:
        await stream.send(b"abc")
        support.reset(stream.peer)
        with pytest.raises(ConnectionResetError):
            await stream.reader.readexactly(4)
        assert stream.reader._buffer == b"abc"


async def test_nothing_keeps_the_reader_alive(loop):
    async with Connection.open() as stream:
        await stream.send(b"abc")
        reader = weakref.ref(stream.reader)
    stream.__dict__.clear()
    del stream
    await support.turns(3)
    gc.collect()
    assert reader() is None
