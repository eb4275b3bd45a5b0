"""asyncio's streams over our transports: every observable as stock asyncio's, frames left out.

The model is stock asyncio itself: the same input, cut in the same way, goes through a loop of each,
and the logs are compared: what each read gave or raised, when reading was paused and resumed, what
the buffer held after each piece. What programs change on classes and instances must be honoured.
"""

import asyncio
import contextlib
import contextvars
import itertools
import ssl
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import support
from streaming import Connection, until

# ---------------------------------------------------------------------------------------------
# The same as stock asyncio, whatever the cuts


class Gate:
    """Stands between a reader and its transport, and writes down what the reader asks."""

    def __init__(self, transport, log):
        self.transport = transport
        self.log = log

    def pause_reading(self):
        self.log.append("pause")
        self.transport.pause_reading()

    def resume_reading(self):
        self.log.append("resume")
        self.transport.resume_reading()


async def consume(reader, reads, log):
    for name, argument in reads:
        try:
            log.append((name, await getattr(reader, name)(*argument)))
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            log.append((name, type(error), str(error), getattr(error, "partial", None)))


async def play(limit, pieces, reads, late):
    """The log of one run: `late` pieces come before anybody reads."""
    log = []
    async with Connection.open(limit=limit) as stream:
        stream.reader._transport = Gate(stream.transport, log)
        task = None
        for number, piece in enumerate(pieces):
            if number == late:
                task = asyncio.create_task(consume(stream.reader, reads, log))
                await stream.settle()
            await stream.send(piece)
            log.append((bytes(stream.reader._buffer), stream.transport.is_reading()))
        stream.peer.close()
        await stream.settle(ended=True)
        log.append((bytes(stream.reader._buffer), stream.reader.at_eof()))
        await (task or consume(stream.reader, reads, log))
        log.append((bytes(stream.reader._buffer), stream.reader.at_eof()))
    return log


READS = st.one_of(
    st.tuples(st.just("readexactly"), st.tuples(st.integers(0, 50))),
    st.tuples(st.just("read"), st.tuples(st.integers(-1, 50))),
    st.tuples(st.just("readline"), st.just(())),
    st.tuples(st.just("readuntil"), st.tuples(st.sampled_from([b"\n", b"ab", b"aba"]))),
)
# Few letters: separators are found, and cut in two.
PIECES = st.lists(st.text("ab\n", min_size=1, max_size=40).map(str.encode), max_size=12)


def cuts(data, places):
    """The data cut at these places."""
    places = [0, *sorted({place for place in places if 0 < place < len(data)}), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(places) if start < end]


def both(loop_factory, *arguments):
    logs = []
    for factory in (asyncio.SelectorEventLoop, loop_factory):
        loop = factory()
        reports = support.Reports()
        loop.set_exception_handler(reports)
        try:
            logs.append(loop.run_until_complete(play(*arguments)))
        finally:
            support.finish(loop)
        assert reports.take() == []
    return logs


examples = settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@examples
@given(st.integers(1, 40), PIECES, st.lists(READS, max_size=12), st.integers(0, 6))
def test_any_pieces_and_reads(loop_factory, limit, pieces, reads, late):
    model, ours = both(loop_factory, limit, pieces, reads, late)
    assert ours == model


@examples
@given(
    st.text("ab\n", min_size=1, max_size=60).map(str.encode),
    st.lists(st.integers(1, 59)),
    st.lists(READS, min_size=1, max_size=6),
    st.integers(1, 30),
)
def test_the_cuts_of_the_same_data(loop_factory, data, places, reads, limit):
    model, ours = both(loop_factory, limit, cuts(data, places), reads, 0)
    assert ours == model


def test_byte_by_byte(loop_factory):
    data = b"GET / HTTP/1.1\r\nHost: here\r\n\r\nbody of it"
    reads = [("readuntil", (b"\r\n\r\n",)), ("readexactly", (4,)), ("read", (-1,))]
    for limit in (2, 20, 2**16):
        model, ours = both(loop_factory, limit, [bytes([byte]) for byte in data], reads, 1)
        assert ours == model


@pytest.mark.parametrize("limit", [1, 1000, 2**16, 2**20])
async def test_bulk(loop, kind, limit):
    """Large reads, in both of their ways into the buffer, and what may wait in it at most."""
    data = support.payload(3_000_000)
    async with Connection.open(kind, limit) as stream:
        sending = asyncio.ensure_future(loop.sock_sendall(stream.peer, data))
        got = await stream.reader.readexactly(300_000)
        while len(got) < len(data):
            assert len(stream.reader._buffer) <= 2 * limit + 256 * 1024
            got += await stream.reader.read(100_000)
            await asyncio.sleep(0)
        await sending
        assert got == data
        # A read that fills the room exactly, and the end right behind it.
        stream.peer.sendall(b"x" * 65536)
        stream.peer.close()
        assert await stream.reader.read() == b"x" * 65536
        assert stream.reader.at_eof()


async def test_nobody_reads_bulk(loop, kind):
    async with Connection.open(kind, limit=1000) as stream:
        sending = asyncio.ensure_future(loop.sock_sendall(stream.peer, b"x" * 8_000_000))
        await until(lambda: not stream.transport.is_reading())
        waiting = len(stream.reader._buffer)
        assert 2000 < waiting <= 2000 + 256 * 1024
        await support.turns(20)
        assert len(stream.reader._buffer) == waiting
        sending.cancel()


# ---------------------------------------------------------------------------------------------
# The way itself


async def frames_of(action):
    """The functions of asyncio's streams that are entered meanwhile."""
    seen = []

    def profile(frame, event, _):
        if event == "call" and frame.f_code.co_filename == asyncio.streams.__file__:
            seen.append(frame.f_code.co_qualname)

    sys.setprofile(profile)
    try:
        await action
    finally:
        sys.setprofile(None)
    return seen


BETWEEN = ("data_received", "feed_data")


@pytest.mark.usefixtures("mioloop_only")
@pytest.mark.parametrize("size", [10, 500_000])
async def test_no_frame_between_socket_and_reader(loop, kind, size):
    async with Connection.open(kind, limit=2**20) as stream:

        async def read():
            sending = asyncio.ensure_future(loop.sock_sendall(stream.peer, b"x" * size))
            assert len(await stream.reader.readexactly(size)) == size
            await sending

        seen = await frames_of(read())
    assert "StreamReader.readexactly" in seen
    assert not [name for name in seen if name.rpartition(".")[2] in BETWEEN]


async def test_open_connection_and_start_server(loop, kind):
    """The whole of it, as programs write it; nothing of asyncio is another than before."""

    async def serve(reader, writer):
        assert type(reader) is asyncio.StreamReader
        assert type(writer) is asyncio.StreamWriter
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        writer.close()

    with support.unix_path() as path:
        if kind == "unix":
            server = await asyncio.start_unix_server(serve, path)
            connect = asyncio.open_unix_connection(path)
        else:
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            connect = asyncio.open_connection("127.0.0.1", support.port_of(server))
        async with support.serving(server):
            reader, writer = await connect
            assert not {"feed_data", "_wakeup_waiter"} & vars(reader).keys()
            for number in range(50):
                writer.write(b"line %d\n" % number)
                assert await reader.readline() == b"LINE %d\n" % number
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()


async def test_the_waiter_is_woken_as_asyncio_does(loop):
    """A future of another class gets both calls, in their order, with the attribute gone before."""
    log = []

    class Waiter:
        def __init__(self, reader, is_cancelled):
            self.reader = reader
            self.is_cancelled = is_cancelled

        def cancelled(self):
            log.append(("cancelled", self.reader._waiter, bytes(self.reader._buffer)))
            return self.is_cancelled

        def set_result(self, result):
            log.append(("set_result", result, self.reader._waiter))

    async with Connection.open() as stream:
        stream.reader._waiter = Waiter(stream.reader, is_cancelled=False)
        await stream.send(b"a")
        stream.reader._waiter = Waiter(stream.reader, is_cancelled=True)
        await stream.send(b"b")
    assert log == [
        ("cancelled", None, b"a"),
        ("set_result", None, None),
        ("cancelled", None, b"ab"),
    ]


async def test_a_cancelled_future_is_passed_over(loop):
    async with Connection.open() as stream:
        stream.reader._waiter = loop.create_future()
        stream.reader._waiter.cancel()
        await stream.send(b"a")
        assert stream.reader._waiter is None
        assert await stream.reader.read(10) == b"a"


async def test_a_done_future_is_an_error(loop, reports):
    async with Connection.open() as stream:
        stream.reader._waiter = loop.create_future()
        stream.reader._waiter.set_result(1)
        await stream.send(b"a")
        context = reports.take_one()
        assert isinstance(context["exception"], asyncio.InvalidStateError)
        assert stream.reader._buffer == b"a"
        assert stream.transport.is_closing()


async def test_reads_of_two_tasks(loop):
    async with Connection.open() as stream:
        first = asyncio.create_task(stream.reader.read(10))
        await support.turns(2)
        with pytest.raises(RuntimeError, match=r"readuntil\(\) called while another coroutine"):
            await stream.reader.readline()
        await stream.send(b"a")
        assert await first == b"a"


async def test_a_cancelled_read_loses_nothing(loop):
    async with Connection.open() as stream:
        task = asyncio.create_task(stream.reader.readexactly(3))
        await stream.send(b"ab")
        task.cancel()
        await stream.send(b"c")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await stream.reader.readexactly(3) == b"abc"


async def test_a_callback_of_the_waiter_runs_in_its_context(loop):
    variable = contextvars.ContextVar("variable", default="nobody's")
    seen = []
    async with Connection.open() as stream:
        stream.reader._waiter = waiter = loop.create_future()
        context = contextvars.copy_context()
        context.run(variable.set, "the reader's")
        waiter.add_done_callback(lambda _: seen.append(variable.get()), context=context)
        waiter.add_done_callback(lambda _: seen.append(variable.get()))
        await stream.send(b"a")
    assert seen == ["the reader's", "nobody's"]


# ---------------------------------------------------------------------------------------------
# TLS


async def test_start_tls_in_the_midst(loop, certificate):
    async def serve(reader, writer):
        assert await reader.readline() == b"upgrade\n"
        writer.write(b"go on\n")
        await writer.start_tls(certificate.server_context())
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with support.serving(server):
        reader, writer = await asyncio.open_connection("127.0.0.1", support.port_of(server))
        writer.write(b"upgrade\n")
        assert await reader.readline() == b"go on\n"
        await writer.start_tls(certificate.client_context(), server_hostname="localhost")
        assert isinstance(writer.get_extra_info("ssl_object"), ssl.SSLObject)
        big = support.payload(200_000).replace(b"\n", b"").hex().encode()
        for line in (b"line\n", b"x" * 1000 + b"\n"):
            writer.write(line)
            assert await reader.readline() == line.upper()
        writer.write(big[:60_000] + b"\n")
        assert await reader.readline() == big[:60_000].upper() + b"\n"
        writer.close()
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            await writer.wait_closed()


@pytest.mark.usefixtures("mioloop_only")
async def test_no_frame_under_tls_either(loop, certificate):
    data = support.payload(300_000)

    async def serve(reader, writer):
        for size in (1, 10, 20_000, len(data) - 20_011):
            writer.write(await reader.readexactly(size))
        await writer.drain()
        writer.close()

    context = certificate.server_context()
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with support.serving(server):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", support.port_of(server), ssl=certificate.client_context()
        )

        async def exchange():
            writer.write(data)
            assert await reader.readexactly(len(data)) == data

        seen = await frames_of(exchange())
        writer.close()
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            await writer.wait_closed()
    assert "StreamReader.readexactly" in seen
    assert not [name for name in seen if name.rpartition(".")[2] in BETWEEN]
