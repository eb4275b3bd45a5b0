"""Datagram endpoints: kinds of sockets, addresses, arguments, what is sent and received."""

import asyncio
import contextlib
import socket
import sys
from asyncio import selector_events

import pytest

import support
from datagrams import HOST, KINDS, NUMBERS, as_argument, endpoint, hundred_waiting, name_of, places


@pytest.fixture
def busy():
    """A socket with a hundred datagrams waiting, and their sender."""
    with hundred_waiting() as sockets:
        yield sockets


# In Python 3.11 and the first of 3.12, asyncio's are of no class that says so.
HAS_DATAGRAM_CLASS = issubclass(
    selector_events._SelectorDatagramTransport, asyncio.DatagramTransport
)

# --- to and fro ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("connected", [False, True])
async def test_there_and_back(loop, kind, connected):
    with places(kind) as (first, second, family):
        async with (
            endpoint(first, family=family) as one,
            endpoint(
                second,
                remote_addr=as_argument(name_of(one)) if connected else None,
                family=family,
            ) as other,
        ):
            to = None if connected else name_of(one)
            sent = [b"one", b"x" * 1024, b"y" * 60_000, *NUMBERS]
            for data in sent[:3]:
                other.transport.sendto(data, to)
                count = len(one.received) + 1
                assert (await one.wait_count(count))[-1] == data
                one.transport.sendto(data, one.received[-1][1])
                assert (await other.wait_count(count))[-1] == data
            assert {address for _, address in one.received} == {name_of(other)}
            assert {address for _, address in other.received} == {name_of(one)}
            if kind in ("ip4", "ip6"):
                # Unix sockets hold few datagrams at once.
                for data in NUMBERS:
                    other.transport.sendto(data, to)
                assert await one.wait_count(len(sent)) == sent


async def test_ip6_addresses_have_four_parts(loop, reports):
    with places("ip6") as (first, second, _):
        async with endpoint(first) as one, endpoint(second) as other:
            for to in [
                name_of(one),
                name_of(one)[:2],
                name_of(one)[:3],
                ("::1", name_of(one)[1], 7, 0),
            ]:
                other.transport.sendto(b"data", to)
            await one.wait_count(4)
            assert {address for _, address in one.received} == {name_of(other)}
            assert len(name_of(one)) == 4
            other.transport.sendto(b"no", ("::1", 1, 2**20))
            assert isinstance(await other.lost, OverflowError)
            assert isinstance(reports.take_one()["exception"], OverflowError)


async def test_scope_ids(loop):
    """A link-local address names its interface; one that does not exist is the system's error."""
    with places("ip6") as (first, _, _):
        async with endpoint(first) as one:
            one.transport.sendto(b"data", ("fe80::1", 9, 0, 999_999))
            await one.wait(lambda: one.errors)
            assert isinstance(one.errors[0], OSError)
            assert not one.transport.is_closing()


async def test_unnamed_senders_have_no_address(loop):
    with places("path") as (first, _, family), socket.socket(family, socket.SOCK_DGRAM) as sock:
        async with endpoint(first, family=family) as one:
            sock.sendto(b"data", first)
            sock.sendto(b"more", first)
            await one.wait_count(2)
            assert one.received == [(b"data", None), (b"more", None)]


async def test_a_peer_has_one_address_object(loop, mioloop_only, busy):
    sock, sender = busy
    async with endpoint(sock=sock) as one:
        await one.wait_count(100)
        with socket.socket(type=socket.SOCK_DGRAM) as another:
            another.sendto(b"else", name_of(one))
            await one.wait_count(101)
        sender.sendto(b"again", name_of(one))
        await one.wait_count(102)
        assert len({id(address) for _, address in one.received}) == 2
        assert one.received[-1][1] is one.received[0][1]


async def test_many_peers(loop):
    """More than any cache of addresses holds."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in range(400)]
        async with endpoint((HOST, 0)) as one:
            expected = []
            for _ in range(2):
                for sock in socks:
                    sock.sendto(b"data", name_of(one))
                    expected.append((b"data", (HOST, sock.getsockname()[1])))
                    if len(expected) % 100 == 0:
                        await one.wait_count(len(expected))
            assert one.received == expected
            for data, address in one.received:
                one.transport.sendto(data, address)
            await support.turns()
            for sock in socks:
                assert [sock.recv(10), sock.recv(10)] == [b"data", b"data"]


@pytest.mark.parametrize("kind", [bytearray, memoryview])
async def test_what_is_sent_is_a_snapshot(loop, kind):
    async with endpoint((HOST, 0)) as one, endpoint(remote_addr=name_of(one)) as other:
        buffer = bytearray(b"before")
        other.transport.sendto(buffer if kind is bytearray else memoryview(buffer))
        buffer[:] = b"after!"
        other.transport.sendto(buffer if kind is bytearray else memoryview(buffer)[1:3])
        assert await one.wait_count(2) == [b"before", b"after!" if kind is bytearray else b"ft"]


async def test_empty_datagrams(loop):
    """They are received everywhere; asyncio sends them from Python 3.13 on."""
    async with endpoint((HOST, 0)) as one, endpoint(remote_addr=name_of(one)) as other:
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.sendto(b"", name_of(one))
            sock.sendto(b"next", name_of(one))
        assert await one.wait_count(2) == [b"", b"next"]
        other.transport.sendto(b"")
        other.transport.sendto(bytearray())
        other.transport.sendto(b"last")
        await one.wait(lambda: b"last" in one.data)
        assert one.data[2:-1] == ([b"", b""] if sys.version_info >= (3, 13) else [])


@pytest.mark.skipif(
    not hasattr(socket, "SO_SNDBUFFORCE") and sys.platform != "linux", reason="Linux"
)
async def test_what_is_too_large_is_cut_off(loop):
    force = 32
    with places("path") as (first, _, family), socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.setsockopt(socket.SOL_SOCKET, force, 1 << 20)
        except PermissionError:
            pytest.skip("sending so much at once takes privileges")
        async with endpoint(first, family=family) as one:
            assert one.transport.max_size == 256 * 1024
            for size in (200_000, 256 * 1024, 300_000, 5):
                sock.sendto(b"x" * size, first)
                await one.wait_count(len(one.received) + 1)
            assert [len(data) for data in one.data] == [200_000, 256 * 1024, 256 * 1024, 5]


@pytest.mark.skipif(not hasattr(socket, "AF_NETLINK"), reason="Linux's alone")
async def test_other_families(loop):
    """Their addresses are the socket module's to know."""
    user_socket = 2

    def make(peer=None):
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, user_socket)
        sock.bind((0, 0))
        if peer:
            sock.connect(peer)
        return sock

    async with endpoint(sock=make()) as one, endpoint(sock=make(name_of(one))) as other:
        for number in (b"first", b"second"):
            other.transport.sendto(number, name_of(one))
        assert await one.wait_count(2) == [b"first", b"second"]
        assert one.received[0][1] == name_of(other)


# --- what endpoints are made of -----------------------------------------------------------------


async def test_arguments(loop):
    async with endpoint((HOST, 0), reuse_port=True, family=socket.AF_INET, flags=0) as one:
        sock = one.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
        async with endpoint(name_of(one), reuse_port=True) as other:
            assert name_of(other) == name_of(one)
    async with (
        endpoint((HOST, 0)) as one,
        endpoint((HOST, 0), remote_addr=name_of(one), allow_broadcast=True) as other,
    ):
        sock = other.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)
        # Such a socket is not connected, but has one address to send to.
        assert other.transport.get_extra_info("peername") is None
        other.transport.sendto(b"one")
        other.transport.sendto(b"two", name_of(one))
        other.transport.sendto(b"three", (str(HOST), name_of(one)[1]))
        assert await one.wait_count(3) == [b"one", b"two", b"three"]
        one.transport.sendto(b"back", name_of(other))
        assert await other.wait_count(1) == [b"back"]
    async with endpoint(family=socket.AF_INET) as one:
        assert name_of(one) == ("0.0.0.0", 0)
        one.transport.sendto(b"bound now", (HOST, 9))


async def test_given_sockets(loop):
    with socket.socket(type=socket.SOCK_DGRAM) as peer:
        peer.bind((HOST, 0))
        sock = socket.socket(type=socket.SOCK_DGRAM)
        sock.connect(peer.getsockname())
        async with endpoint(sock=sock) as one:
            assert one.transport.get_extra_info("peername") == peer.getsockname()
            assert one.transport.get_extra_info("socket").fileno() == sock.fileno()
            one.transport.sendto(b"one")
            # asyncio gives the address to a connected socket of others, and it does not count.
            one.transport.sendto(b"two", ("127.0.0.2", 9))
            await support.turns()
            assert [peer.recv(10), peer.recv(10)] == [b"one", b"two"]
        assert sock.fileno() == -1
        assert one.transport.get_extra_info("peername") == peer.getsockname()
    assert one.transport.get_extra_info("sockname") != one.transport.get_extra_info("peername")
    assert one.transport.get_extra_info("else", "default") == "default"
    assert one.transport.get_extra_info("else") is None


async def test_it_is_a_transport(loop):
    async with endpoint((HOST, 0)) as one:
        transport = one.transport
        assert isinstance(transport, asyncio.Transport)
        assert isinstance(transport, asyncio.DatagramTransport) == HAS_DATAGRAM_CLASS
        assert transport.get_protocol() is one
        assert transport.is_reading()
        assert transport.get_write_buffer_size() == 0
        for call in (
            lambda: transport.write(b"data"),
            lambda: transport.writelines([b"data"]),
            lambda: transport.write_eof(),
            lambda: transport.can_write_eof(),
        ):
            with pytest.raises(NotImplementedError):
                call()
        open_text = "<It fd=N read=polling write=<idle, bufsize=0>>"
        assert support.normal(repr(transport)) == open_text
        transport.close()
        assert transport.is_closing()
        assert not transport.is_reading()
        assert " closing " in repr(transport)
        await one.lost
        await support.turns()
        assert support.normal(repr(transport)) == "<It closed fd=N>"
        assert transport.get_protocol() is None
        transport.close()
        transport.abort()


async def test_its_descriptor_is_its_own(loop):
    async with endpoint((HOST, 0)) as one:
        sock = one.transport.get_extra_info("socket")
        with pytest.raises(RuntimeError, match="is used by transport"):
            loop.add_reader(sock, print)
        with pytest.raises(RuntimeError, match="is used by transport"):
            loop.remove_writer(sock.fileno())


# --- wrong arguments ----------------------------------------------------------------------------


async def test_wrong_data(loop):
    async with endpoint((HOST, 0)) as one:
        for data in ("text", None, 5, [b"data"]):
            with pytest.raises(TypeError) as caught:
                one.transport.sendto(data, name_of(one))
            kind = type(data).__name__
            text = f"data argument must be a bytes-like object, not '{kind}'"
            assert str(caught.value) == text
        for call in (
            lambda: one.transport.sendto(),
            lambda: one.transport.sendto(b"", None, None),
            lambda: one.transport.sendto(b"", data=b""),
            lambda: one.transport.sendto(b"", address=None),
        ):
            with pytest.raises(TypeError, match="sendto"):
                call()
        one.transport.sendto(addr=name_of(one), data=b"named")
        assert await one.wait_count(1) == [b"named"]


@pytest.mark.parametrize("allow_broadcast", [False, True])
async def test_another_address_than_the_remote_one(loop, allow_broadcast):
    async with (
        endpoint((HOST, 0)) as one,
        endpoint(remote_addr=name_of(one), allow_broadcast=allow_broadcast) as other,
    ):
        with pytest.raises(ValueError, match="Invalid address") as caught:
            other.transport.sendto(b"data", (HOST, 1))
        assert str(caught.value) == f"Invalid address: must be None or {name_of(one)}"
        other.transport.sendto(b"data", name_of(one))
        assert await one.wait_count(1) == [b"data"]


@pytest.mark.parametrize(
    "address",
    [None, 5, "text", (), (HOST,), (HOST, 70_000), (HOST, -1), (HOST, "1"), (5, 5), ("\xe9..b", 1)],
    ids=repr,
)
async def test_what_is_no_address_ends_the_transport(loop, reports, address):
    async with endpoint((HOST, 0)) as one:
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            try:
                sock.sendto(b"data", address)
            except Exception as error:
                expected = error
        one.transport.sendto(b"data", address)
        lost = await one.lost
        assert (type(lost), str(lost)) == (type(expected), str(expected))
        report = reports.take_one()
        assert report["message"] == "Fatal write error on datagram transport"
        assert report["exception"] is lost
        assert report["transport"] is one.transport
        assert report["protocol"] is one


async def test_a_memoryview_with_holes_ends_the_transport(loop, reports):
    async with endpoint((HOST, 0)) as one:
        one.transport.sendto(memoryview(b"123456")[::2], name_of(one))
        assert isinstance(await one.lost, BufferError)
        assert reports.take_one()["message"] == "Fatal write error on datagram transport"


async def test_names_of_hosts(loop):
    """They are looked up in their place in the order."""
    async with endpoint((HOST, 0)) as one, endpoint((HOST, 0)) as other:
        port = name_of(one)[1]
        for number in range(30):
            host = "localhost" if number % 10 == 5 else HOST
            other.transport.sendto(b"%d" % number, (host, port))
        assert await one.wait_count(30) == NUMBERS[:30]
        # No address of the socket's family: an OSError, which ends nothing.
        other.transport.sendto(b"data", ("::1", port))
        await other.wait(lambda: other.errors)
        assert isinstance(other.errors[0], socket.gaierror)
        assert not other.transport.is_closing()
