"""`create_connection` and its relatives: addresses, sockets, failures, cancelled half-way."""

import asyncio
import contextlib
import os
import socket
import sys

import pytest

import support

HOST = "127.0.0.1"

full_backlogs = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux lets a connect wait for a full backlog"
)


@pytest.fixture
def listener():
    """A listening socket that nobody accepts from."""
    with socket.create_server((HOST, 0)) as listener:
        yield listener


@pytest.fixture
def deaf():
    """The address of a listener whose backlog is full: connecting to it takes for ever."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((HOST, 0))
        listener.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()


@pytest.fixture
def refusing():
    """An address where nobody listens."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        yield sock.getsockname()


@contextlib.asynccontextmanager
async def connected(*arguments, **keywords):
    """A connection that is closed at the end, and waited for."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_connection(support.Recorder, *arguments, **keywords)
    yield transport
    transport.close()
    await protocol.wait_event("lost")


@pytest.mark.parametrize("host", [HOST, "localhost"])
@pytest.mark.parametrize("convert", [int, str])
async def test_by_address(loop, listener, host, convert):
    address = listener.getsockname()
    async with connected(host, convert(address[1]), family=socket.AF_INET) as transport:
        assert transport.get_extra_info("peername") == address
        accepted, peer = listener.accept()
        assert transport.get_extra_info("sockname") == peer
        accepted.close()


async def test_a_socket_of_ones_own(loop, listener):
    sock = socket.create_connection(listener.getsockname())
    assert sock.gettimeout() is None
    async with connected(sock=sock) as transport:
        assert transport.get_extra_info("socket").fileno() == sock.fileno()
        assert sock.gettimeout() == 0


async def test_a_local_address(loop, listener, refusing):
    with socket.socket() as free:
        free.bind((HOST, 0))
        local = free.getsockname()
    address = listener.getsockname()
    async with connected(*address, local_addr=local) as transport:
        assert transport.get_extra_info("sockname") == local
        with pytest.raises(OSError, match="error while attempting to bind on address"):
            await loop.create_connection(support.Recorder, *address, local_addr=refusing)


async def test_accepted_elsewhere(loop, listener):
    with socket.create_connection(listener.getsockname()) as client:
        accepted, _ = listener.accept()
        transport, protocol = await loop.connect_accepted_socket(support.Recorder, accepted)
        client.send(b"hello")
        assert await protocol.wait_bytes(5) == b"hello"
        transport.close()
        await protocol.wait_event("lost")


async def test_many_at_once(loop):
    server = await loop.create_server(support.Echo, HOST, 0, backlog=500)

    async def talk(number):
        async with connected(HOST, support.port_of(server)) as transport:
            transport.write(b"%d" % number)
            await transport.get_protocol().wait_bytes(len(str(number)))

    async with support.serving(server):
        await asyncio.gather(*(talk(number) for number in range(300)))


async def test_sockets_are_connected_by_the_loop(loop, listener):
    with socket.socket() as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, listener.getsockname())
        accepted, _ = listener.accept()
        with accepted:
            accepted.send(b"hello")
            assert await loop.sock_recv(sock, 10) == b"hello"


# Several addresses ---------------------------------------------------------------------------


def resolving(loop, *addresses):
    """A loop of the same class whose every name has those IPv4 addresses."""

    class Resolving(type(loop)):
        async def getaddrinfo(self, host, port, **keywords):
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in addresses]

    return contextlib.closing(Resolving())


def test_the_next_address_is_tried(loop, listener, refusing):
    async def main():
        async with connected("name", 1) as transport:
            assert transport.get_extra_info("peername") == listener.getsockname()

    with resolving(loop, refusing, listener.getsockname()) as own:
        own.run_until_complete(main())


def failures(kind, addresses, **keywords):
    """How connecting to those addresses fails on a loop of that class."""

    async def main():
        try:
            await asyncio.get_running_loop().create_connection(support.Recorder, "n", 1, **keywords)
        except Exception as error:
            parts = getattr(error, "exceptions", ())
            return type(error), str(error), [(type(part), str(part)) for part in parts]

    with resolving(kind, *addresses) as own:
        return own.run_until_complete(main())


@pytest.mark.parametrize("count", [1, 2])
def test_every_address_fails(loop, model, refusing, count):
    expected = failures(model, [refusing] * count)
    assert issubclass(expected[0], OSError)
    assert failures(loop, [refusing] * count) == expected


@pytest.mark.skipif(sys.version_info < (3, 12), reason="all_errors came with Python 3.12")
def test_all_errors(loop, model, refusing):
    expected = failures(model, [refusing] * 2, all_errors=True)
    assert issubclass(expected[0], ExceptionGroup)
    assert failures(loop, [refusing] * 2, all_errors=True) == expected


@full_backlogs
def test_happy_eyeballs(loop, listener, deaf):
    """The slow address is given up as soon as the other answers."""

    async def main():
        async with connected("name", 1, happy_eyeballs_delay=0.01) as transport:
            assert transport.get_extra_info("peername") == listener.getsockname()

    with resolving(loop, deaf, listener.getsockname()) as own:
        own.run_until_complete(main())


# Failures ------------------------------------------------------------------------------------


async def failure(loop, *arguments, **keywords):
    return await support.outcome_of(
        lambda: loop.create_connection(support.Recorder, *arguments, **keywords)
    )


def test_refused(loop, model, refusing):
    expected = model.run_until_complete(failure(model, *refusing))
    assert expected[0] is ConnectionRefusedError
    assert loop.run_until_complete(failure(loop, *refusing)) == expected


def test_refused_errors_have_their_number(loop, refusing):
    with pytest.raises(ConnectionRefusedError) as caught:
        loop.run_until_complete(loop.create_connection(support.Recorder, *refusing))
    assert caught.value.errno is not None


@pytest.mark.parametrize(
    "arguments", [(HOST, "no such service"), ("no such host", 80), (HOST, 100_000), (HOST, -1)]
)
def test_names_that_mean_nothing(loop, model, arguments):
    expected = model.run_until_complete(failure(model, *arguments))
    assert expected[0] in (socket.gaierror, OverflowError)
    assert loop.run_until_complete(failure(loop, *arguments)) == expected


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
async def test_a_factory_that_fails(loop, listener):
    """asyncio leaves the socket to the collector, with a warning."""

    def fail():
        raise LookupError("no protocol")

    with pytest.raises(LookupError, match="no protocol"):
        await loop.create_connection(fail, *listener.getsockname())


async def test_a_socket_that_is_not_connected(loop, kind):
    """Writing to it fails; the transport ends with the error."""
    family = socket.AF_INET if kind == "tcp" else socket.AF_UNIX
    transport, protocol = await loop.create_connection(
        support.Recorder, sock=socket.socket(family, socket.SOCK_STREAM)
    )
    transport.write(b"data")
    await protocol.wait_event("lost")
    assert protocol.error is None or isinstance(protocol.error, OSError)


async def test_a_file_that_is_no_socket(loop):
    with pytest.raises((AttributeError, TypeError, ValueError)):
        await loop.create_connection(support.Recorder, sock=sys.stdin)


# Given up half-way ---------------------------------------------------------------------------


@full_backlogs
async def test_cancelled_while_it_waits(loop, deaf):
    """Its descriptor is closed once: one that took the number since stays open."""
    for number in range(20):
        task = asyncio.ensure_future(loop.create_connection(support.Recorder, *deaf))
        await support.turns(3 + number % 3)
        assert not task.done()
        task.cancel()
        successors = []
        for _ in range(5):
            await support.turns()
            successors.extend(os.pipe())
        with pytest.raises(asyncio.CancelledError):
            await task
        await support.turns(3)
        for fd in successors:
            os.close(fd)


@full_backlogs
async def test_timed_out(loop, deaf):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await loop.create_connection(support.Recorder, *deaf)


@full_backlogs
async def test_a_waiting_sock_connect_is_cancelled(loop, deaf):
    with socket.socket() as sock:
        sock.setblocking(False)
        task = asyncio.ensure_future(loop.sock_connect(sock, deaf))
        await support.turns(3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert loop.remove_writer(sock) is False


@full_backlogs
def test_a_loop_that_ends_while_connecting(new_loop, deaf):
    loop = new_loop()
    task = loop.create_task(loop.create_connection(support.Recorder, *deaf))
    support.spin(loop, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()


@pytest.mark.parametrize("turns", range(12))
async def test_cancelled_at_every_stage(loop, turns):
    """However far it came, nothing stays open at either end."""
    made = []

    def factory():
        made.append(support.Recorder())
        return made[-1]

    server = await loop.create_server(factory, HOST, 0)
    async with support.serving(server):
        task = asyncio.ensure_future(
            loop.create_connection(support.Recorder, HOST, support.port_of(server))
        )
        await support.turns(turns)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            transport, _ = await task
            transport.close()
        async with connected(HOST, support.port_of(server)) as transport:
            transport.write(b"last")
            while not any(protocol.data == b"last" for protocol in made):
                await support.turns()
        for protocol in made:
            await protocol.wait_event("lost")


async def test_many_cancelled_connects(loop):
    server = await loop.create_server(support.Echo, HOST, 0)

    async def attempt(number):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(number / 20_000):
                transport, _ = await loop.create_connection(
                    asyncio.Protocol, HOST, support.port_of(server)
                )
                transport.close()

    async with support.serving(server):
        await asyncio.gather(*(attempt(number) for number in range(100)))
        async with connected(HOST, support.port_of(server)) as transport:
            transport.write(b"still there")
            await transport.get_protocol().wait_bytes(11)
