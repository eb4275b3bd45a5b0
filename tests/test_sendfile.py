"""`loop.sendfile` and `loop.sock_sendfile`: offsets, counts, files that change, errors."""

import asyncio
import contextlib
import errno
import io
import os
import socket
import types

import pytest

import support

SIZE = 700_000


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(support.payload(SIZE))
    return path


@pytest.fixture
def file(path):
    with path.open("r+b") as file:
        yield file


class Socket:
    """Sending to a plain socket."""

    def __init__(self, loop, sock, _):
        self.send = lambda *args, **options: loop.sock_sendfile(sock, *args, **options)
        self.end = sock.close


class Transport:
    """Sending to a transport."""

    def __init__(self, loop, _, transport):
        self.send = lambda *args, **options: loop.sendfile(transport, *args, **options)
        self.end = transport.close


@pytest.fixture(params=[Socket, Transport], ids=["socket", "transport"])
def target(request, loop, kind):
    """What files are sent to, and the socket at its other end."""
    ours, theirs = support.socket_pair(kind, buffers=65536)
    transport, protocol = None, support.Recorder()
    if request.param is Transport:
        making = loop.create_connection(lambda: protocol, sock=ours)
        transport, _ = loop.run_until_complete(making)
    yield request.param(loop, ours, transport), theirs
    if transport is not None:
        support.abort(transport)
        loop.run_until_complete(support.turns(3))
    ours.close()
    theirs.close()


@pytest.mark.parametrize(
    ("offset", "count"),
    [(0, None), (0, SIZE), (0, 2 * SIZE), (1000, None), (1000, 5), (SIZE, None), (2 * SIZE, 9)],
)
async def test_offsets_and_counts(loop, target, file, offset, count):
    target, peer = target
    expected = support.payload(SIZE)[offset:][:count]
    reading = asyncio.ensure_future(support.read_exactly(peer, len(expected) + 3))
    assert await target.send(file, offset, count, fallback=False) == len(expected)
    if expected:
        assert file.tell() == offset + len(expected)
    target.end()
    assert await reading == expected


async def test_several_in_a_row(loop, target, file):
    target, peer = target
    reading = asyncio.ensure_future(support.read_exactly(peer, 3 * SIZE))
    for _ in range(3):
        assert await target.send(file) == SIZE
    assert await reading == 3 * support.payload(SIZE)


LARGE = 9_000_000


@pytest.fixture
def large(tmp_path):
    path = tmp_path / "large"
    path.write_bytes(support.payload(LARGE))
    with path.open("r+b") as file:
        yield file


async def receive(sock, count):
    """Read that much from a socket into a bytearray, in large pieces."""
    loop = asyncio.get_running_loop()
    data = bytearray()
    while len(data) < count and (more := await loop.sock_recv(sock, 1 << 20)):
        data += more
    return data


@pytest.mark.parametrize(
    ("offset", "count"), [(0, None), (0, 2 * LARGE), (1000, 8_000_000), (2_000_000, None)]
)
async def test_a_large_file_to_a_fast_peer(loop, kind, large, offset, count):
    ours, theirs = support.socket_pair(kind, buffers=4 << 20)
    with ours, theirs:
        expected = support.payload(LARGE)[offset:][:count]
        reading = asyncio.ensure_future(receive(theirs, len(expected) + 1))
        assert await loop.sock_sendfile(ours, large, offset, count) == len(expected)
        assert large.tell() == offset + len(expected)
        ours.close()
        assert await reading == expected


async def test_a_large_file_that_is_cancelled(loop, kind, large, mioloop_only):
    """The position is behind what the peer gets, wherever the rest was."""
    ours, theirs = support.socket_pair(kind, buffers=4 << 20)
    data = support.payload(LARGE)
    with ours, theirs:
        # The system may take all of it at once where it gives larger buffers than it was asked for.
        sending = asyncio.ensure_future(loop.sock_sendfile(ours, large))
        await support.turns(5)
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sending
        sent = large.tell()
        ours.close()
        assert await receive(theirs, LARGE) == data[:sent]


async def test_an_empty_file(loop, target, tmp_path):
    target, _ = target
    with (tmp_path / "empty").open("w+b") as file:
        assert await target.send(file, fallback=False) == 0


async def test_a_file_that_grows(loop, target, path, file):
    """It is sent to the end that it has by then."""
    target, peer = target
    sending = asyncio.ensure_future(target.send(file, fallback=False))
    await support.turns(5)
    assert not sending.done()
    with path.open("ab") as more:
        more.write(b"grown")
    received = await support.read_exactly(peer, SIZE + 5)
    assert received == support.payload(SIZE) + b"grown"
    assert await sending == SIZE + 5


@pytest.mark.parametrize("count", [None, SIZE])
async def test_a_file_that_shrinks(loop, target, path, file, count):
    """It ends where the file ends by then."""
    target, peer = target
    sending = asyncio.ensure_future(target.send(file, 0, count, fallback=False))
    await support.turns(5)
    assert not sending.done()
    os.truncate(path, SIZE // 2)
    received = await support.read_exactly(peer, SIZE // 2)
    assert await sending == SIZE // 2
    assert received == support.payload(SIZE)[: SIZE // 2]
    assert file.tell() == SIZE // 2


async def test_what_is_not_a_file_of_the_system(loop, kind):
    """Refused without a fallback; with one, it is read and written."""
    ours, theirs = support.socket_pair(kind)
    with ours, theirs, io.BytesIO(b"hello") as file:
        with pytest.raises(asyncio.SendfileNotAvailableError, match="not a regular file"):
            await loop.sock_sendfile(ours, file, fallback=False)
        assert await loop.sock_sendfile(ours, file, 1) == 4
        assert theirs.recv(10) == b"ello"


async def test_what_the_kernel_refuses(loop, target, tmp_path):
    """A folder cannot be sent from."""
    target, _ = target
    descriptor = os.open(tmp_path, os.O_RDONLY)
    folder = types.SimpleNamespace(fileno=lambda: descriptor)
    try:
        with pytest.raises(asyncio.SendfileNotAvailableError, match=r"os.sendfile call failed"):
            await target.send(folder, 0, 10, fallback=False)
    finally:
        os.close(descriptor)


async def test_what_has_no_position(loop, target):
    """A pipe cannot be sent from either; newer releases find that out by setting its position."""
    target, _ = target
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", 0) as file, os.fdopen(writing, "wb"):
        with pytest.raises((asyncio.SendfileNotAvailableError, OSError)) as raised:
            await target.send(file, 0, 10, fallback=False)
        if not isinstance(raised.value, asyncio.SendfileNotAvailableError):
            assert raised.value.errno == errno.ESPIPE


@pytest.mark.parametrize("turns", [0, 1, 2, 5])
async def test_cancelling(loop, target, file, turns, mioloop_only):
    """The position is behind what was sent, which asyncio forgets; the target can be used."""
    target, peer = target
    sending = asyncio.ensure_future(target.send(file, fallback=False))
    await support.turns(turns)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await support.turns(2)
    sent = file.tell()
    assert sent < SIZE
    data = support.payload(SIZE)
    assert await support.read_exactly(peer, sent) == data[:sent]
    reading = asyncio.ensure_future(support.read_exactly(peer, SIZE))
    assert await target.send(file) == SIZE
    assert await reading == data


async def test_the_peer_goes_away(loop, target, file):
    target, peer = target
    sending = asyncio.ensure_future(target.send(file, fallback=False))
    await support.turns(5)
    assert not sending.done()
    peer.close()
    with pytest.raises(ConnectionError):
        await sending
    assert 0 < file.tell() < SIZE


async def test_the_transport_is_closed_meanwhile(loop, file, kind, mioloop_only):
    """The one who sends is told at once; in asyncio he may wait for ever."""
    protocol = support.Recorder()
    async with support.transport_and_socket(protocol, kind, buffers=65536) as (transport, _):
        sending = asyncio.ensure_future(loop.sendfile(transport, file))
        await support.turns(5)
        transport.abort()
        with pytest.raises(ConnectionError, match="Connection is closed by peer"):
            await sending
        await protocol.wait_event("lost")
        assert 0 < file.tell() < SIZE


async def test_around_other_writes(loop, file, kind):
    """What was written before leaves before; writing meanwhile is refused."""
    protocol = support.Recorder()
    async with support.transport_and_socket(protocol, kind, buffers=65536) as (transport, peer):
        before = support.payload(300_000, seed=2)
        transport.write(before)
        sending = asyncio.ensure_future(loop.sendfile(transport, file))
        await support.turns(2)
        with pytest.raises(RuntimeError, match="unable to write; sendfile is in progress"):
            transport.write(b"x")
        reading = asyncio.ensure_future(support.read_exactly(peer, len(before) + SIZE + 6))
        assert await sending == SIZE
        transport.write(b"behind")
        assert await reading == before + support.payload(SIZE) + b"behind"


async def test_reading_goes_on_afterwards(loop, file, kind):
    protocol = support.Recorder()
    async with support.transport_and_socket(protocol, kind, buffers=65536) as (transport, peer):
        sending = asyncio.ensure_future(loop.sendfile(transport, file))
        await support.turns(3)
        assert not transport.is_reading()
        peer.send(b"hello")
        await support.read_exactly(peer, SIZE)
        await sending
        assert await protocol.wait_bytes(5) == b"hello"
        transport.pause_reading()
        reading = asyncio.ensure_future(support.read_exactly(peer, SIZE))
        await loop.sendfile(transport, file)
        await reading
        assert not transport.is_reading()


async def test_over_tls(loop, file, certificate):
    """The bytes must be encrypted: it is read and written, unless that is refused."""
    received = support.Recorder()
    server = await loop.create_server(
        lambda: received, "127.0.0.1", 0, ssl=certificate.server_context()
    )
    async with support.serving(server):
        transport, protocol = await loop.create_connection(
            support.Recorder,
            "127.0.0.1",
            support.port_of(server),
            ssl=certificate.client_context(),
            server_hostname="localhost",
        )
        with pytest.raises(RuntimeError, match="fallback is disabled"):
            await loop.sendfile(transport, file, fallback=False)
        assert await loop.sendfile(transport, file, 10) == SIZE - 10
        assert await received.wait_bytes(SIZE - 10) == support.payload(SIZE)[10:]
        transport.close()
        await protocol.wait_event("lost")
        await received.wait_event("lost")


@pytest.mark.parametrize(
    ("offset", "count", "error"),
    [
        (-1, None, ValueError),
        (0.5, None, TypeError),
        (0, 0, ValueError),
        (0, -1, ValueError),
        (0, "1", TypeError),
        (2**63, 1, OverflowError),
    ],
)
async def test_wrong_arguments(loop, target, file, offset, count, error):
    target, _ = target
    with pytest.raises(error):
        await target.send(file, offset, count)


async def test_a_file_of_text(loop, target, path):
    target, _ = target
    file = path.open(encoding="latin1")
    with pytest.raises(ValueError, match="file should be opened in binary mode"):
        await target.send(file)
    file.close()


async def test_datagram_sockets_are_refused(loop, file):
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        with pytest.raises(ValueError, match="only SOCK_STREAM type sockets are supported"):
            await loop.sock_sendfile(sock, file)
