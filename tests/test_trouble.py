"""Protocols that fail or lack methods, peers that misbehave, descriptors that run out or vanish."""

import asyncio
import contextlib
import gc
import os
import socket

import pytest

import support

HOST = "127.0.0.1"


def raising(*arguments):
    raise ValueError("on purpose")


async def talk(port):
    """One exchange with an echo server."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_connection(support.Recorder, HOST, port)
    transport.write(b"hello")
    assert await protocol.wait_bytes(5) == b"hello"
    transport.close()
    await protocol.wait_event("lost")


# Methods that fail -----------------------------------------------------------------------------


async def what_happens(name, kind, collected):
    """What a failing method of a protocol causes: reports, events, the error of the end."""
    asyncio.get_running_loop().set_exception_handler(collected)
    protocol = support.Recorder()
    setattr(protocol, name, raising)
    async with support.transport_and_socket(protocol, kind) as (_, peer):
        peer.send(b"data")
        peer.shutdown(socket.SHUT_WR)
        await protocol.wait_event("lost")
    told = [
        (context["message"], type(context["exception"]), set(context))
        for context in collected.take()
    ]
    return told, protocol.events, type(protocol.error)


@pytest.mark.parametrize("name", ["data_received", "eof_received"])
def test_errors_of_receiving_end_the_connection(loop, model, kind, name):
    """They are told to the handler and to `connection_lost`: elsewhere they have been swallowed."""
    expected = model.run_until_complete(what_happens(name, kind, support.Reports()))
    assert loop.run_until_complete(what_happens(name, kind, support.Reports())) == expected
    assert expected[0] == [
        (
            f"Fatal error: protocol.{name}() call failed.",
            ValueError,
            {"message", "exception", "transport", "protocol"},
        )
    ]
    assert expected[2] is ValueError


async def test_an_error_of_connection_made_is_reported(loop, kind, reports):
    protocol = support.Recorder()
    protocol.connection_made = raising
    async with support.transport_and_socket(protocol, kind):
        await support.turns(3)
        context = reports.take_one()
        assert isinstance(context["exception"], ValueError)


async def test_an_error_of_connection_made_ends_the_connection(loop, kind, reports, mioloop_only):
    """In asyncio the connection stays, without a protocol that knows of it."""
    protocol = support.Recorder()
    protocol.connection_made = raising
    async with support.transport_and_socket(protocol, kind) as (transport, peer):
        assert await support.read_to_end(peer) == b""
        assert transport.is_closing()
        assert isinstance(reports.take_one()["exception"], ValueError)


async def test_an_error_of_connection_lost_is_reported(loop, kind, reports):
    """And the descriptor is closed all the same."""
    protocol = support.Recorder()
    protocol.connection_lost = raising
    async with support.transport_and_socket(protocol, kind) as (transport, peer):
        fd = transport.get_extra_info("socket").fileno()
        transport.close()
        assert await support.read_to_end(peer) == b""
        await support.turns(3)
        assert isinstance(reports.take_one()["exception"], ValueError)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


@pytest.mark.parametrize("exception", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("name", ["connection_made", "data_received", "eof_received"])
def test_leaving_from_a_method(loop, kind, name, exception):
    """It leaves the loop, with its own type, and the loop can be run again."""
    left = []

    def leave(*arguments):
        if not left:
            left.append(name)
            raise exception(3)

    protocol = support.Recorder()
    setattr(protocol, name, leave)
    ours, theirs = support.socket_pair(kind)
    theirs.send(b"data" if name == "data_received" else b"")
    theirs.shutdown(socket.SHUT_WR)
    task = loop.create_task(loop.create_connection(lambda: protocol, sock=ours))
    with pytest.raises(exception):
        loop.run_forever()
    assert not loop.is_running()
    transport, _ = loop.run_until_complete(task)
    transport.abort()
    theirs.close()
    support.spin(loop, 3)


class Bare:
    """What has the methods of a protocol, of no class of asyncio's."""

    def connection_made(self, transport):
        pass

    def data_received(self, data):
        pass

    def eof_received(self):
        pass

    def connection_lost(self, error):
        pass


async def without(missing, kind, collected):
    """How connecting fails, and what is reported, where the protocol lacks one of its methods."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(collected)
    lacking = type("Lacking", (), {name: vars(Bare)[name] for name in METHODS if name != missing})
    ours, theirs = support.socket_pair(kind)
    with ours, theirs:
        theirs.send(b"data")
        theirs.shutdown(socket.SHUT_WR)
        error, _ = await support.outcome_of(lambda: loop.create_connection(lacking, sock=ours))
        if error is None:
            ending, _ = await support.outcome_of(lambda: support.read_to_end(theirs))
            assert ending in (None, ConnectionResetError)
            await support.turns(2)
    return error, [type(context["exception"]) for context in collected.take()]


METHODS = ["connection_made", "data_received", "eof_received", "connection_lost"]


@pytest.mark.parametrize("missing", [None, *METHODS])
@pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")
def test_a_protocol_without_the_methods(loop, model, kind, missing):
    """Nothing crashes and nothing hangs; the errors are those of asyncio."""
    error, told = model.run_until_complete(without(missing, kind, support.Reports()))
    found = loop.run_until_complete(without(missing, kind, support.Reports()))
    gc.collect()
    if missing == "connection_made":
        assert (error, told) == (AttributeError, [])
        assert found in ((AttributeError, []), (None, [AttributeError]))
    else:
        assert found == (error, told) == (None, [AttributeError] if missing else [])


# Factories that fail ---------------------------------------------------------------------------


def failing_factory(times):
    """A factory of echo protocols that fails at first."""
    calls = iter(range(1000))

    def factory():
        if next(calls) < times:
            raise LookupError("no protocol")
        return support.Echo()

    return factory


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
async def test_a_factory_that_fails(loop, reports, debug):
    """The server goes on. It is reported in debug mode, as in asyncio."""
    loop.set_debug(debug)
    server = await loop.create_server(failing_factory(3), HOST, 0)
    async with support.serving(server):
        clients = [socket.create_connection(server.sockets[0].getsockname()) for _ in range(3)]
        await talk(support.port_of(server))
        for client in clients:
            client.close()
    contexts = reports.take()
    assert len(contexts) == (3 if debug else 0)
    for context in contexts:
        assert context["message"] == "Error on transport creation for incoming connection"
        assert isinstance(context["exception"], LookupError)


async def test_a_factory_that_fails_ends_the_connection(loop, mioloop_only):
    """asyncio leaves the descriptor to the collector, and the client waiting until then."""
    server = await loop.create_server(failing_factory(1), HOST, 0)
    async with support.serving(server):
        with socket.create_connection(server.sockets[0].getsockname()) as client:
            client.setblocking(False)
            assert await support.read_to_end(client) == b""


@pytest.mark.filterwarnings("ignore:unclosed :ResourceWarning")
async def test_a_factory_that_returns_nothing(loop):
    """None is no protocol: that connection comes to nothing, the server goes on.

    asyncio counts it as a client for ever, so that waiting for the close would not end.
    """
    protocols = [support.Echo(), None]
    server = await loop.create_server(protocols.pop, HOST, 0)
    loop.set_exception_handler(lambda loop, context: None)
    with socket.create_connection(server.sockets[0].getsockname()):
        await talk(support.port_of(server))
    server.close()


# Descriptors closed behind the loop's back -----------------------------------------------------


async def test_a_transport_whose_descriptor_is_closed(loop, kind):
    """A library closes the descriptor itself: writing or closing ends the transport, once."""
    protocol = support.Recorder()
    async with support.transport_and_socket(protocol, kind) as (transport, _):
        sock = transport.get_extra_info("socket")
        fd = sock.fileno()
        placeholder = os.open(os.devnull, os.O_RDONLY)
        os.dup2(placeholder, fd)
        os.close(placeholder)
        transport.write(b"data")
        await support.turns(2)
        transport.abort()
        await protocol.wait_event("lost")
        await support.turns(3)
    assert protocol.events == ["made", "lost"]


async def test_a_shut_down_socket_of_a_busy_transport(loop, kind):
    protocol = support.Recorder()
    async with support.transport_and_socket(protocol, kind, 4096) as (transport, peer):
        transport.write(bytes(1_000_000))
        transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        await protocol.wait_event("lost")
        await support.outcome_of(lambda: support.read_to_end(peer))
    assert protocol.events.count("lost") == 1


async def test_numbers_of_descriptors_used_again(loop, kind):
    """Connections come and go over the same numbers, some with events still to be delivered."""
    for turn in range(100):
        first, second = support.Recorder(), support.Recorder()
        async with support.transport_pair(first, second, kind) as (one, other):
            one.write(b"x" * (turn * 100 + 1))
            if turn % 3 == 0:
                one.abort()
            elif turn % 3 == 1:
                other.abort()
            else:
                await second.wait_bytes(turn * 100 + 1)
        for protocol in (first, second):
            await protocol.wait_event("lost")
            assert protocol.events.count("lost") == 1


async def test_a_transport_closes_another_of_its_turn(loop, kind):
    """Both have data; the first to receive closes the second, which then receives nothing."""
    received = []

    class Jealous(support.Recorder):
        def data_received(self, data):
            super().data_received(data)
            received.append(self)
            for protocol in protocols:
                if protocol is not self:
                    protocol.transport.abort()

    protocols = [Jealous() for _ in range(5)]
    async with contextlib.AsyncExitStack() as stack:
        peers = [
            (await stack.enter_async_context(support.transport_and_socket(protocol, kind)))[1]
            for protocol in protocols
        ]
        for peer in peers:
            peer.send(b"data")
        while not received:
            await support.turns()
        for protocol in protocols:
            if protocol is not received[0]:
                await protocol.wait_event("lost")
    assert len(received) == 1


# Descriptors that run out ----------------------------------------------------------------------

EXHAUSTED = """
import errno, os, resource, socket
reports = []

class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        self.transport.write(data)

async def main():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: reports.append(context))
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    client = socket.socket()
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
    held = []
    try:
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass
    client.connect(address)
    client.send(b"hello")
    while not reports:
        await asyncio.sleep(0.001)
    context = reports[0]
    print(context["message"], errno.errorcode[context["exception"].errno], sorted(context))
    turns = 0
    before = len(reports)
    for _ in range(50):
        await asyncio.sleep(0)
    print(len(reports) - before < 5)
    for fd in held:
        os.close(fd)
    client.setblocking(False)
    print(await loop.sock_recv(client, 10))
    client.close()
    server.close()
    await asyncio.sleep(0.01)

loop = new_loop()
loop.run_until_complete(main())
loop.close()
"""


def test_descriptors_that_run_out_while_accepting(script):
    """The server reports it, waits, and goes on serving when there are some again."""
    assert script.check(EXHAUSTED).splitlines() == [
        "socket.accept() out of system resource EMFILE ['exception', 'message', 'socket']",
        "True",
        "b'hello'",
    ]


def test_descriptors_that_run_out_while_making_a_loop(script):
    """A clean OSError, and nothing kept of what was already open."""
    code = """
import errno, os, resource
soft = len(os.listdir("/dev/fd")) + 20
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, soft))
loops = []
try:
    while True:
        loops.append(new_loop())
except OSError as error:
    print(errno.errorcode[error.errno], len(loops) > 0)
for loop in loops:
    loop.close()
print(asyncio.Runner(loop_factory=new_loop).run(asyncio.sleep(0, 5)))
"""
    out = script.run(code, "-W", "ignore")
    assert out.returncode == 0, out.stderr
    assert out.stdout.splitlines() == ["EMFILE True", "5"]


def test_descriptors_that_run_out_while_connecting(script):
    code = """
import errno, os, resource
async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
    held = []
    try:
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass
    try:
        await loop.create_connection(asyncio.Protocol, "127.0.0.1", port)
    except OSError as error:
        print(errno.errorcode[error.errno])
    for fd in held:
        os.close(fd)
    transport, _ = await loop.create_connection(asyncio.Protocol, "127.0.0.1", port)
    transport.close()
    server.close()
    await asyncio.sleep(0.01)
loop = new_loop()
loop.run_until_complete(main())
loop.close()
"""
    assert script.check(code) == "EMFILE\n"
