"""`loop.sock_*`: what each call does, its results and its errors."""

import array
import asyncio
import socket
import ssl

import pytest

import support

HOST = "127.0.0.1"


@pytest.fixture
def pair(kind):
    """Two connected sockets with small buffers."""
    ours, theirs = support.socket_pair(kind, buffers=32768)
    with ours, theirs:
        yield ours, theirs


def datagram_pair(family, folder):
    """Two bound datagram sockets, and their addresses."""
    sockets = []
    for name in ("one", "two"):
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.setblocking(False)
        if family == socket.AF_UNIX:
            sock.bind(f"{folder}/{name}")
        else:
            sock.bind(("::1" if family == socket.AF_INET6 else HOST, 0))
        sockets.append(sock)
    return sockets


# Receiving and sending ---------------------------------------------------------------------------


async def test_data_that_is_there(loop, pair):
    ours, theirs = pair
    theirs.send(b"hello")
    assert await loop.sock_recv(ours, 3) == b"hel"
    assert await loop.sock_recv(ours, 100) == b"lo"


async def test_data_that_comes_later(loop, pair):
    ours, theirs = pair
    for size in (1, 1000, 30_000):
        receiving = asyncio.ensure_future(loop.sock_recv(ours, 65536))
        await support.turns(2)
        assert not receiving.done()
        theirs.send(b"x" * size)
        assert await receiving == b"x" * size


async def test_the_end_of_the_stream(loop, pair):
    ours, theirs = pair
    receiving = asyncio.ensure_future(loop.sock_recv(ours, 10))
    await support.turns(2)
    theirs.close()
    assert await receiving == b""
    assert await loop.sock_recv_into(ours, bytearray(3)) == 0


@pytest.mark.parametrize("size", [1, 65536, 65537, 1_000_000])
async def test_large_reads(loop, kind, size):
    """Whatever the size that is asked for, and whatever came before."""
    ours, theirs = support.socket_pair(kind)
    data = support.payload(400_000)
    with ours, theirs:
        sending = asyncio.ensure_future(loop.sock_sendall(theirs, data))
        received = bytearray()
        while len(received) < len(data):
            received += await loop.sock_recv(ours, size if len(received) > 1000 else 100)
            if size == 1 and len(received) > 5000:
                size = 7
            if len(received) > 20_000:
                size = max(size, 100_000)
        await sending
    assert received == data


@pytest.mark.parametrize("size", [-1, 2**62, 2**63, 2**70, None, "1", 1.0])
async def test_sizes_that_cannot_be(loop, pair, size):
    """They fail as in the socket itself."""
    ours, theirs = pair
    theirs.send(b"data")
    with pytest.raises((ValueError, OverflowError, MemoryError, TypeError)) as expected:
        ours.recv(size)
    with pytest.raises(expected.type) as caught:
        await loop.sock_recv(ours, size)
    assert str(caught.value) == str(expected.value)
    assert await loop.sock_recv(ours, 10) == b"data"


async def test_receiving_into_buffers(loop, pair):
    ours, theirs = pair
    buffer = bytearray(b"........")
    receiving = asyncio.ensure_future(loop.sock_recv_into(ours, memoryview(buffer)[2:6]))
    await support.turns(2)
    theirs.send(b"hello")
    assert await receiving == 4
    assert buffer == b"..hell.."
    assert await loop.sock_recv_into(ours, bytearray()) == 0
    assert await loop.sock_recv_into(sock=ours, buf=buffer) == 1
    assert buffer == b"o.hell.."


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
async def test_datagrams(loop, family, tmp_path):
    if family == socket.AF_INET6 and not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    with support.unix_path() as path:
        one, other = datagram_pair(family, path.rpartition("/")[0])
        with one, other:
            receiving = asyncio.ensure_future(loop.sock_recvfrom(other, 100))
            await support.turns(2)
            assert await loop.sock_sendto(one, b"hello", other.getsockname()) == 5
            assert await receiving == (b"hello", one.getsockname())
            buffer = bytearray(10)
            for size, expected in ((0, 5), (3, 3)):
                assert await loop.sock_sendto(one, bytearray(b"again"), other.getsockname()) == 5
                answer = await loop.sock_recvfrom_into(other, buffer, size)
                assert answer == (expected, one.getsockname())
                assert buffer[:expected] == b"again"[:expected]
            assert await loop.sock_sendto(one, b"", other.getsockname()) == 0
            assert await loop.sock_recvfrom(other, 100) == (b"", one.getsockname())


async def test_datagrams_without_an_address(loop, kind):
    """A stream names no sender, nor does an unnamed datagram socket."""
    ours, theirs = support.socket_pair(kind)
    with ours, theirs:
        theirs.send(b"x")
        expected = ours.recvfrom(1)
        theirs.send(b"x")
        assert await loop.sock_recvfrom(ours, 1) == expected
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    with ours, theirs:
        theirs.send(b"hello")
        assert await loop.sock_recvfrom_into(ours, bytearray(5), 2) == (2, None)


async def test_names_of_hosts_in_addresses(loop):
    one, other = datagram_pair(socket.AF_INET, None)
    with one, other:
        port = other.getsockname()[1]
        assert await loop.sock_sendto(one, b"hello", ("localhost", port)) == 5
        assert (await loop.sock_recvfrom(other, 10))[0] == b"hello"


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview, lambda data: memoryview(data)[::1]])
async def test_sending_more_than_the_kernel_takes(loop, pair, make):
    ours, theirs = pair
    data = support.payload(1_000_000)
    sending = asyncio.ensure_future(loop.sock_sendall(ours, make(data)))
    await support.turns(3)
    assert not sending.done()
    assert await support.read_exactly(theirs, len(data)) == data
    assert await sending is None


async def test_a_buffer_that_is_being_sent_keeps_its_size(loop, pair):
    ours, theirs = pair
    data = bytearray(500_000)
    sending = asyncio.ensure_future(loop.sock_sendall(ours, data))
    await support.turns(3)
    with pytest.raises(BufferError):
        data.clear()
    await support.read_exactly(theirs, len(data))
    await sending
    del sending
    data.clear()


async def test_items_of_several_bytes(loop, pair, mioloop_only):
    """asyncio counts items, and waits for ever or receives too little."""
    ours, theirs = pair
    numbers = array.array("i", range(100_000))
    sending = asyncio.ensure_future(loop.sock_sendall(ours, numbers))
    assert await support.read_exactly(theirs, len(numbers) * 4) == numbers.tobytes()
    assert await sending is None
    one, other = datagram_pair(socket.AF_INET, None)
    with one, other:
        one.sendto(b"1234567", other.getsockname())
        room = array.array("i", [0, 0])
        assert (await loop.sock_recvfrom_into(other, room))[0] == 7
        assert room.tobytes() == b"1234567\0"


async def test_nothing_to_send(loop, pair):
    ours, _ = pair
    for nothing in (b"", bytearray(), memoryview(b"")):
        assert await loop.sock_sendall(ours, nothing) is None


async def test_both_directions_at_once(loop, kind):
    ours, theirs = support.socket_pair(kind, buffers=32768)
    data = support.payload(700_000)
    with ours, theirs:
        received = await asyncio.gather(
            support.read_exactly(ours, len(data)),
            support.read_exactly(theirs, len(data)),
            loop.sock_sendall(ours, data),
            loop.sock_sendall(theirs, data),
        )
    assert received == [data, data, None, None]


# Connecting and accepting ------------------------------------------------------------------------


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
async def test_connecting_and_accepting(loop, family):
    if family == socket.AF_INET6 and not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    listener, client = socket.socket(family), socket.socket(family)
    with support.unix_path() as path, listener, client:
        address = {socket.AF_INET: (HOST, 0), socket.AF_INET6: ("::1", 0)}.get(family, path)
        listener.bind(address)
        listener.listen()
        listener.setblocking(False)
        client.setblocking(False)
        accepting = asyncio.ensure_future(loop.sock_accept(listener))
        await support.turns(2)
        assert await loop.sock_connect(client, listener.getsockname()) is None
        conn, peer = await accepting
        with conn:
            assert type(conn) is socket.socket
            assert (conn.family, conn.type, conn.proto) == (family, client.type, listener.proto)
            assert conn.gettimeout() == 0.0
            assert conn.getblocking() is False
            assert not conn.get_inheritable()
            assert peer == client.getsockname()
            await loop.sock_sendall(client, b"hello")
            assert await loop.sock_recv(conn, 10) == b"hello"


async def test_a_connection_that_waits_to_be_accepted(loop):
    with socket.create_server((HOST, 0)) as listener, socket.socket() as client:
        listener.setblocking(False)
        client.connect(listener.getsockname())
        conn, _ = await loop.sock_accept(listener)
        conn.close()


async def test_connecting_to_a_name(loop):
    with socket.create_server((HOST, 0)) as listener, socket.socket() as client:
        client.setblocking(False)
        await loop.sock_connect(client, ("localhost", listener.getsockname()[1]))
        assert client.getpeername() == listener.getsockname()


async def test_a_refused_connection(loop):
    with socket.create_server((HOST, 0)) as listener:
        address = listener.getsockname()
    with socket.socket() as client:
        client.setblocking(False)
        with pytest.raises(ConnectionRefusedError) as caught:
            await loop.sock_connect(client, address)
        assert str(caught.value) == f"[Errno {caught.value.errno}] Connect call failed {address}"


def test_audit_hooks_hear_of_connections(script):
    output = script.check("""
import socket, sys
seen = []
sys.addaudithook(lambda event, args: seen.append(event) if event.startswith("socket.") else None)

async def main():
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        client.setblocking(False)
        await loop.sock_connect(client, listener.getsockname())
    with socket.socket(type=socket.SOCK_DGRAM) as one:
        one.setblocking(False)
        await loop.sock_sendto(one, b"x", ("127.0.0.1", 9))

with asyncio.Runner(loop_factory=new_loop) as runner:
    runner.run(main())
print("socket.connect" in seen, "socket.sendto" in seen)
""")
    assert output.split() == ["True", "True"]


# Errors ------------------------------------------------------------------------------------------

WRONG = {
    "recv of text": lambda loop, sock: loop.sock_recv(sock, "1"),
    "recv of less than nothing": lambda loop, sock: loop.sock_recv(sock, -1),
    "recv of nothing": lambda loop, sock: loop.sock_recv(sock, 0),
    "recv of true": lambda loop, sock: loop.sock_recv(sock, True),
    "recv into bytes": lambda loop, sock: loop.sock_recv_into(sock, b"123"),
    "recv into nothing": lambda loop, sock: loop.sock_recv_into(sock, None),
    "recvfrom of text": lambda loop, sock: loop.sock_recvfrom(sock, "1"),
    "recvfrom into too little": lambda loop, sock: loop.sock_recvfrom_into(sock, bytearray(1), 2),
    "sendall of text": lambda loop, sock: loop.sock_sendall(sock, "1"),
    "sendall of None": lambda loop, sock: loop.sock_sendall(sock, None),
    "sendto of text": lambda loop, sock: loop.sock_sendto(sock, "1", ("127.0.0.1", 1)),
    "sendto nowhere": lambda loop, sock: loop.sock_sendto(sock, b"1", ("127.0.0.1", 65536)),
    "sendto None": lambda loop, sock: loop.sock_sendto(sock, b"1", None),
    "connect to None": lambda loop, sock: loop.sock_connect(sock, None),
    "connect to a wrong port": lambda loop, sock: loop.sock_connect(sock, ("127.0.0.1", -1)),
    "connect to three": lambda loop, sock: loop.sock_connect(sock, ("127.0.0.1", 1, 2)),
    "accept": lambda loop, sock: loop.sock_accept(sock),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("is_closed", [False, True], ids=["open", "closed"])
def test_errors_are_those_of_asyncio(loop, model, call, is_closed):
    def outcome(on):
        ours, theirs = support.socket_pair("tcp")
        with ours, theirs:
            theirs.send(b"12345")
            if is_closed:
                ours.close()
            try:
                return on.run_until_complete(call(on, ours))
            except Exception as error:
                return type(error), str(error)

    assert outcome(loop) == outcome(model)


@pytest.mark.parametrize(
    "call",
    [
        lambda loop, sock: loop.sock_recv(sock),
        lambda loop, sock: loop.sock_recv(sock, 1, 2),
        lambda loop, sock: loop.sock_recv(sock, 1, n=2),
        lambda loop, sock: loop.sock_recv(sock, 1, x=2),
        lambda loop, sock: loop.sock_accept(),
        lambda loop, sock: loop.sock_recvfrom_into(sock),
    ],
)
def test_wrong_calls_fail_at_once(loop, pair, call):
    with pytest.raises(TypeError):
        call(loop, pair[0])


async def test_a_reset_connection(loop):
    ours, theirs = support.socket_pair("tcp")
    with ours:
        receiving = asyncio.ensure_future(loop.sock_recv(ours, 1))
        await support.turns(2)
        support.reset(theirs)
        with pytest.raises(ConnectionResetError):
            await receiving
        with pytest.raises(BrokenPipeError):
            await loop.sock_sendall(ours, b"x")


@pytest.mark.parametrize("name", ["recv", "recv_into", "sendall", "connect", "accept"])
async def test_blocking_sockets_in_debug_mode(loop, pair, name):
    argument = {"recv": [1], "recv_into": [bytearray(1)], "sendall": [b"x"], "connect": [(HOST, 1)]}
    ours, _ = pair
    ours.setblocking(True)
    loop.set_debug(True)
    with pytest.raises(ValueError, match="the socket must be non-blocking"):
        await getattr(loop, f"sock_{name}")(ours, *argument.get(name, []))
    loop.set_debug(False)


async def test_a_blocking_socket_does_not_block_the_loop(loop, pair, mioloop_only):
    ours, theirs = pair
    ours.setblocking(True)
    receiving = asyncio.ensure_future(loop.sock_recv(ours, 10))
    await support.turns(3)
    theirs.send(b"hello")
    assert await receiving == b"hello"


async def test_tls_sockets_are_refused(loop):
    context = ssl.create_default_context()
    context.check_hostname = False
    ours, theirs = support.socket_pair("tcp")
    sock = context.wrap_socket(ours, do_handshake_on_connect=False)
    with pytest.raises(TypeError, match="Socket cannot be of type SSLSocket"):
        await loop.sock_recv(sock, 1)
    sock.close()
    theirs.close()


def test_a_closed_loop(new_loop):
    loop = new_loop()
    ours, theirs = support.socket_pair("tcp")
    with ours, theirs:
        theirs.send(b"x")
        call, waiting = loop.sock_recv(ours, 1), loop.sock_recv(ours, 1)
        loop.close()
        with pytest.raises(StopIteration):
            call.send(None)
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            waiting.send(None)


# Sockets of other classes ------------------------------------------------------------------------


class Shouting(socket.socket):
    """A socket whose methods are not those of its class."""

    def recv(self, *args):
        return super().recv(*args).upper()

    def send(self, data, *args):
        return super().send(bytes(data).upper(), *args)


async def test_methods_of_subclasses_are_called(loop):
    ours, theirs = support.socket_pair("unix")
    with Shouting(fileno=ours.detach()) as sock, theirs:
        sock.setblocking(False)
        receiving = asyncio.ensure_future(loop.sock_recv(sock, 10))
        await support.turns(2)
        theirs.send(b"hello")
        assert await receiving == b"HELLO"
        await loop.sock_sendall(sock, b"back")
        assert theirs.recv(10) == b"BACK"
