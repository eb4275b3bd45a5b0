"""`write` and `writelines`: what they take, what they copy, and what they do with the dead."""

import array
import asyncio
import contextlib
import logging
import random
import select
import socket
import sys

import pytest

import datagrams
import support
import tls_connections


class Text(bytes):
    """A subclass of bytes, as protocols make to mark their messages."""


PIECES = {
    "bytes": b"some bytes",
    "bytes subclass": Text(b"some bytes"),
    "bytearray": bytearray(b"some bytes"),
    "memoryview": memoryview(b"some bytes"),
    "memoryview of bytearray": memoryview(bytearray(b"some bytes")),
    "part of a memoryview": memoryview(b"<<some bytes>>")[2:-2],
    "memoryview of integers": memoryview(array.array("i", range(100))),
    "memoryview of two dimensions": memoryview(bytes(range(12))).cast("B", [3, 4]),
}


@pytest.mark.parametrize("data", PIECES.values(), ids=PIECES)
async def test_what_write_takes(loop, kind, data):
    expected = bytes(data) if not isinstance(data, memoryview) else data.tobytes()
    async with support.transport_and_socket(support.Recorder(), kind) as (transport, peer):
        assert transport.write(data) is None
        transport.write(b"!")
        assert await support.read_exactly(peer, len(expected) + 1) == expected + b"!"


async def test_a_memoryview_with_holes_is_refused(loop, kind, mioloop_only):
    """In asyncio it ends the connection."""
    async with support.transport_and_socket(support.Recorder(), kind) as (transport, peer):
        for write in (transport.write, lambda data: transport.writelines([data])):
            with pytest.raises(BufferError, match="not C-contiguous"):
                write(memoryview(b"some bytes")[::2])
        transport.write(b"more")
        assert await support.read_exactly(peer, 4) == b"more"


@pytest.mark.parametrize("data", [b"", bytearray(), memoryview(b"")])
async def test_writing_nothing(loop, kind, data):
    async with support.transport_and_socket(support.Recorder(), kind) as (transport, peer):
        transport.write(data)
        assert transport.get_write_buffer_size() == 0
        transport.write(b"something")
        assert await support.read_exactly(peer, 9) == b"something"


SEQUENCES = {
    "a list": lambda: [b"some", b" ", b"bytes"],
    "a tuple": lambda: (b"some", bytearray(b" "), memoryview(b"bytes")),
    "a generator": lambda: (piece for piece in (b"some", b" ", b"bytes")),
    "one": lambda: [b"some bytes"],
    "with empty ones": lambda: [b"", b"some ", b"", b"bytes", b""],
    "many": lambda: [b"some bytes"] * 5000,
}


@pytest.mark.parametrize("pieces", SEQUENCES.values(), ids=SEQUENCES)
async def test_what_writelines_takes(loop, kind, pieces):
    expected = b"".join(pieces())
    async with support.transport_and_socket(support.Recorder(), kind) as (transport, peer):
        assert transport.writelines(pieces()) is None
        transport.write(b"!")
        assert await support.read_exactly(peer, len(expected) + 1) == expected + b"!"


async def test_many_small_writes_keep_their_order(loop, kind):
    expected = bytearray()
    async with support.transport_and_socket(support.Recorder(), kind) as (transport, peer):
        for number in range(5000):
            piece = b"%d " % number
            expected += piece
            transport.write(piece)
        assert await support.read_exactly(peer, len(expected)) == expected


async def test_writes_of_several_turns(loop, kind):
    async with support.transport_and_socket(support.Recorder(), kind) as (transport, peer):
        for number in range(100):
            transport.write(b"%02d" % number)
            await support.turns(number % 3)
        assert await support.read_exactly(peer, 200) == b"".join(b"%02d" % n for n in range(100))


# What is written is what it was then ---------------------------------------------------------


@pytest.mark.parametrize("wrap", [lambda data: data, memoryview], ids=["bytearray", "memoryview"])
async def test_a_buffer_may_be_changed_after_write(loop, kind, wrap):
    """A bytearray that a transport went on reading from has been reported elsewhere."""
    async with support.transport_and_socket(support.Recorder(), kind) as (transport, peer):
        data = bytearray(b"before")
        transport.write(wrap(data))
        data[:] = b"after!"
        transport.writelines([wrap(data), wrap(data)])
        data[:] = b"later!"
        assert await support.read_exactly(peer, 18) == b"beforeafter!after!"


async def test_a_bytearray_may_be_resized_after_write(loop, kind):
    async with support.transport_and_socket(support.Recorder(), kind) as (transport, peer):
        data = bytearray(b"data")
        transport.write(data)
        data.clear()
        data.extend(b"more")
        assert await support.read_exactly(peer, 4) == b"data"


async def test_a_queued_bytearray_may_be_changed_too(loop, kind, mioloop_only):
    """asyncio keeps a view of what it could not send at once, from Python 3.12 on."""
    async with support.transport_and_socket(support.Recorder(), kind, 4096) as (transport, peer):
        data = bytearray(support.payload(3_000_000))
        before = bytes(data)
        transport.write(data)
        assert transport.get_write_buffer_size() > 0
        data[:] = bytes(len(data))
        data.clear()
        assert await support.read_exactly(peer, len(before)) == before


# Writing to what is closed -------------------------------------------------------------------


def warnings_of(caplog):
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "asyncio" and record.levelno == logging.WARNING
    ]


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_writing_after_closing(loop, kind, how, caplog):
    """Silent at first, then a warning each time, never an exception."""
    protocol = support.Recorder()
    async with support.transport_and_socket(protocol, kind) as (transport, peer):
        getattr(transport, how)()
        for _ in range(10):
            assert transport.write(b"data") is None
        await protocol.wait_event("lost")
        assert transport.write(b"data") is None
        assert await support.read_to_end(peer) == b""
        assert transport.get_write_buffer_size() == 0
    assert warnings_of(caplog) == ["socket.send() raised exception."] * 7


async def test_writing_lines_after_closing(loop, kind, loop_name):
    if loop_name == "asyncio" and (3, 12) <= sys.version_info < (3, 14):
        pytest.skip("asyncio raises TypeError in early versions of 3.12 and 3.13")
    protocol = support.Recorder()
    async with support.transport_and_socket(protocol, kind) as (transport, peer):
        transport.close()
        transport.writelines([b"da", b"ta"])
        await protocol.wait_event("lost")
        transport.writelines([b"da", b"ta"])
        assert await support.read_to_end(peer) == b""


async def test_writing_to_a_peer_that_went_away(loop, kind, caplog):
    """`write` stays silent; the protocol hears of it once."""
    protocol = support.Recorder()
    protocol.keep_open_at_eof = True
    async with support.transport_and_socket(protocol, kind) as (transport, peer):
        peer.close()
        await protocol.wait_event("eof")
        while "lost" not in protocol.events:
            assert transport.write(b"data") is None
            await support.turns()
        for _ in range(10):
            assert transport.write(b"data") is None
        await support.turns(3)
    assert protocol.events == ["made", "eof", "lost"]
    assert isinstance(protocol.error, (BrokenPipeError, ConnectionResetError))
    assert set(warnings_of(caplog)) == {"socket.send() raised exception."}


async def test_drain_does_not_end_well_when_the_connection_is_lost(loop, kind):
    """What could not be sent is dropped: `drain` must not tell that it was sent."""
    ours, theirs = support.socket_pair(kind, 4096)
    _, writer = await asyncio.open_connection(sock=ours)
    writer.write(bytes(1_000_000))
    draining = asyncio.ensure_future(writer.drain())
    await support.turns(3)
    assert not draining.done()
    # What it has not read makes it a reset.
    theirs.close()
    with pytest.raises(ConnectionResetError):
        await draining
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


@pytest.mark.parametrize("ending", ["reset", "abort"])
async def test_a_lost_connection_is_not_resumed(loop, kind, ending):
    protocol = support.Recorder()
    async with support.transport_and_socket(protocol, kind, 4096) as (transport, peer):
        transport.write(bytes(1_000_000))
        await protocol.wait_event("pause")
        if ending == "abort":
            transport.abort()
        peer.close()
        await protocol.wait_event("lost")
        await support.turns(3)
    assert "resume" not in protocol.events


async def test_drain_after_the_peer_went_away(loop, kind):
    """Streams tell it where the program waits."""
    ours, theirs = support.socket_pair(kind)
    reader, writer = await asyncio.open_connection(sock=ours)
    theirs.close()
    assert await reader.read() == b""

    async def write_on():
        while True:
            writer.write(b"data")
            await writer.drain()
            await support.turns()

    with pytest.raises(ConnectionResetError):
        await write_on()
    writer.close()


# What wrong arguments do -----------------------------------------------------------------------


@pytest.mark.parametrize("data", [None, 5, "text", [b"data"], array.array("b", b"data"), object()])
def test_what_write_refuses(loop, model, kind, data):
    async def refused():
        async with support.transport_and_socket(support.Recorder(), kind) as (transport, peer):
            with pytest.raises(TypeError) as caught:
                transport.write(data)
            transport.write(b"fine")
            assert await support.read_exactly(peer, 4) == b"fine"
            return str(caught.value)

    assert loop.run_until_complete(refused()) == model.run_until_complete(refused())


# The wrong one comes first: asyncio of Python 3.15 keeps those before it, and never sends them.
REFUSED_LINES = [5, ["text"], [5], [5, b"data"], b"data", "text"]


@pytest.mark.parametrize("pieces", REFUSED_LINES, ids=repr)
def test_what_writelines_refuses(loop, model, kind, pieces):
    async def refused():
        async with support.transport_and_socket(support.Recorder(), kind) as (transport, peer):
            with pytest.raises(TypeError) as caught:
                transport.writelines(pieces)
            transport.write(b"fine")
            assert await support.read_exactly(peer, 4) == b"fine"
            return str(caught.value)

    expected = model.run_until_complete(refused())
    assert loop.run_until_complete(refused()) == expected


def test_writing_after_the_end_says_what_was_called(loop, model, kind):
    """Before Python 3.12, `writelines` is a `write` of all."""

    async def refused():
        async with support.transport_and_socket(support.Recorder(), kind) as (transport, _):
            transport.write_eof()
            with pytest.raises(RuntimeError) as caught:
                transport.writelines([b"data"])
            return str(caught.value)

    assert loop.run_until_complete(refused()) == model.run_until_complete(refused())


async def test_a_generator_that_fails(loop, kind, mioloop_only):
    """asyncio of Python 3.15 keeps what came before the failure, and never sends it."""

    def pieces():
        yield b"data"
        raise LookupError("no more")

    async with support.transport_and_socket(support.Recorder(), kind) as (transport, peer):
        with pytest.raises(LookupError):
            transport.writelines(pieces())
        transport.write(b"fine")
        transport.write_eof()
        assert await support.read_to_end(peer) in (b"fine", b"datafine")


async def test_a_generator_that_writes(loop, kind):
    """Code of the user runs in the middle of `writelines`; nothing is lost."""

    def pieces():
        transport.write(b"<first>")
        yield b"<second>"
        transport.write(b"<inner>")
        yield b"<third>"

    async with support.transport_and_socket(support.Recorder(), kind) as (transport, peer):
        transport.writelines(pieces())
        data = await support.read_exactly(peer, 29)
        assert data.index(b"<second>") < data.index(b"<third>")
        assert sorted(data.split(b">")) == sorted(b"<first><second><inner><third>".split(b">"))


async def test_empty_pieces_hold_nothing_up(loop, kind, mioloop_only):
    """In asyncio of 3.12 and 3.13, the end is never sent after a last piece that is empty."""
    async with support.transport_and_socket(support.Recorder(), kind) as (transport, peer):
        transport.writelines([b"", b"data", b""])
        transport.write_eof()
        assert await support.read_to_end(peer) == b"data"


@pytest.mark.parametrize("seed", range(5))
async def test_random_writes(loop, kind, seed):
    """All sizes, all types, sometimes one by one and sometimes together."""
    chance = random.Random(seed)
    expected = bytearray()
    types = [bytes, bytearray, memoryview]
    async with support.transport_and_socket(support.Recorder(), kind) as (transport, peer):
        reading = asyncio.ensure_future(support.read_to_end(peer))
        for _ in range(200):
            pieces = [
                chance.randbytes(chance.choice([0, 1, 10, 100, 1000, 10_000, 70_000]))
                for _ in range(chance.randrange(1, 5))
            ]
            expected += b"".join(pieces)
            if chance.random() < 0.5 and all(pieces):
                transport.writelines([chance.choice(types)(piece) for piece in pieces])
            else:
                for piece in pieces:
                    transport.write(chance.choice(types)(piece))
            if chance.random() < 0.3:
                await support.turns(chance.randrange(3))
        transport.write_eof()
        assert await reading == expected


async def test_what_was_written_before_an_error_is_sent(loop, kind, reports):
    """The write came before the exception: its bytes leave before the connection ends."""
    protocol = support.Recorder()

    def answer_and_fail(data):
        transport.write(b"sorry")
        raise LookupError("on purpose")

    protocol.data_received = answer_and_fail
    async with support.transport_and_socket(protocol, kind) as (transport, peer):
        peer.send(b"x")
        assert await support.read_exactly(peer, 5) == b"sorry"
        await protocol.wait_event("lost")
    assert isinstance(reports.take_one()["exception"], LookupError)


# What is written leaves while the turn goes on -----------------------------------------------


async def arrives_within_the_turn(loop, sock, write, *arguments):
    """Whether what is written comes out of `sock` while callbacks of the same turn wait for it."""
    found = []
    loop.call_soon(write, *arguments)
    for _ in range(5):
        # Each takes 10 ms, until something is there.
        loop.call_soon(lambda: found.extend(select.select([sock], [], [], 0.01)[0]))
    # This task goes on at the end of the same turn.
    await support.turns()
    return bool(found)


async def test_slow_callbacks_hold_up_no_write(loop, kind):
    """Two loops that talk with each other would take turns, instead of working both."""
    async with support.transport_and_socket(support.Recorder(), kind) as (transport, peer):
        for data in (b"some", b"more"):
            assert await arrives_within_the_turn(loop, peer, transport.write, data)
            assert await support.read_exactly(peer, 4) == data


async def test_slow_callbacks_hold_up_no_write_of_tls(loop, certificate):
    contexts = certificate.server_context(), certificate.client_context()
    async with tls_connections.connected(loop, contexts) as (server, client):
        # The session tickets, too.
        await tls_connections.exchange(server, client)
        sock = client.transport.get_extra_info("socket")
        assert await arrives_within_the_turn(loop, sock, server.transport.write, b"some")
        assert (await client.wait_bytes(11))[7:] == b"some"


async def test_slow_callbacks_hold_up_no_datagram(loop):
    with (
        datagrams.places("ip4") as (place, _, family),
        socket.socket(family, socket.SOCK_DGRAM) as peer,
    ):
        peer.bind((datagrams.HOST, 0))
        async with datagrams.endpoint(place, family=family) as one:
            to = peer.getsockname()
            assert await arrives_within_the_turn(loop, peer, one.transport.sendto, b"some", to)
            assert peer.recv(4) == b"some"
