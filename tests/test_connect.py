"""`create_connection` and its relatives: addresses, sockets, who looks on."""

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


@pytest.mark.parametrize("host", [HOST, "localhost"])
@pytest.mark.parametrize("convert", [int, str])
async def test_by_address(loop, listener, host, convert):
    address = listener.getsockname()
    async with support.connected(host, convert(address[1]), family=socket.AF_INET) as transport:
        assert transport.get_extra_info("peername") == address
        accepted, peer = listener.accept()
        assert transport.get_extra_info("sockname") == peer
        accepted.close()


async def test_a_socket_of_ones_own(loop, listener):
    sock = socket.create_connection(listener.getsockname())
    assert sock.gettimeout() is None
    async with support.connected(sock=sock) as transport:
        assert transport.get_extra_info("socket").fileno() == sock.fileno()
        assert sock.gettimeout() == 0


async def test_a_local_address(loop, listener, refusing):
    with socket.socket() as free:
        free.bind((HOST, 0))
        local = free.getsockname()
    address = listener.getsockname()
    async with support.connected(*address, local_addr=local) as transport:
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
        async with support.connected(HOST, support.port_of(server)) as transport:
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


@pytest.mark.parametrize("host", [b"127.0.0.1", "0.0.0.0", "127.0.0.1", "localhost"])
async def test_addresses_are_those_of_the_kernel(loop, listener, host):
    port = listener.getsockname()[1]
    async with support.connected(host, port, family=socket.AF_INET) as transport:
        accepted, peer = listener.accept()
        with accepted:
            assert transport.get_extra_info("peername") == accepted.getsockname()
            assert transport.get_extra_info("sockname") == peer
            sock = transport.get_extra_info("socket")
            assert (sock.family, sock.type) == (socket.AF_INET, socket.SOCK_STREAM)
            assert sock.getpeername() == accepted.getsockname()
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert not os.get_inheritable(sock.fileno())
            assert not os.get_blocking(sock.fileno())


@pytest.mark.parametrize("host", ["::1", b"::1", "0::1", "::"])
async def test_by_ipv6_address(loop, host):
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        async with support.connected(host, listener.getsockname()[1]) as transport:
            accepted, peer = listener.accept()
            assert transport.get_extra_info("peername") == accepted.getsockname()
            assert transport.get_extra_info("sockname") == peer
            accepted.close()


async def test_everything_by_name(loop, listener):
    """Arguments that say nothing are the same as none."""
    host, port = listener.getsockname()
    nothing = ["ssl", "sock", "local_addr", "server_hostname", "ssl_handshake_timeout"]
    nothing += ["ssl_shutdown_timeout", "happy_eyeballs_delay", "interleave"]
    keywords = dict.fromkeys(nothing) | {"family": 0, "proto": 0, "flags": 0}
    async with support.connected(host=host, port=port, **keywords) as transport:
        assert transport.get_extra_info("peername") == (host, port)
    for name in ("context", "wrong"):
        with pytest.raises(TypeError, match=name):
            await loop.create_connection(asyncio.Protocol, host, port, **{name: None})


@pytest.mark.parametrize("protocol", [socket.IPPROTO_TCP, socket.IPPROTO_UDP])
async def test_with_a_protocol(loop, model, listener, protocol):
    async def attempt():
        own = asyncio.get_running_loop()
        transport, _ = await own.create_connection(
            asyncio.Protocol, *listener.getsockname(), proto=protocol
        )
        transport.close()

    expected = await asyncio.to_thread(support.outcome, lambda: model.run_until_complete(attempt()))
    assert await support.outcome_of(attempt) == expected


async def test_the_server_knows_its_client_before_the_client_knows(loop):
    """When both are of one loop; programs have come to count on it."""
    made = []

    def factory():
        made.append(support.Recorder())
        return made[-1]

    server = await loop.create_server(factory, HOST, 0)
    async with support.serving(server):
        for number in range(1, 20):
            async with support.connected(HOST, support.port_of(server)):
                assert len(made) == number
                assert made[-1].transport is not None


# Who looks on --------------------------------------------------------------------------------


async def test_a_class_in_the_place_of_sockets(loop, listener, monkeypatch):
    """Programs guard the network in this way."""

    class Guarded(socket.socket):
        def connect(self, address):
            raise PermissionError(f"no connection to {address}")

    monkeypatch.setattr(socket, "socket", Guarded)
    for host in (HOST, "localhost"):
        with pytest.raises(PermissionError, match="no connection"):
            await loop.create_connection(
                asyncio.Protocol, host, listener.getsockname()[1], family=socket.AF_INET
            )


def test_a_loop_that_connects_in_its_own_way(loop, listener):
    seen = []

    class Watching(type(loop)):
        async def sock_connect(self, sock, address):
            seen.append(address)
            await super().sock_connect(sock, address)

    async def main():
        async with support.connected(*listener.getsockname()):
            pass

    with contextlib.closing(Watching()) as own:
        own.run_until_complete(main())
    assert seen == [listener.getsockname()]


async def test_methods_put_on_the_loop(loop, listener):
    """A loop's own `sock_connect` and `getaddrinfo` are used, with asyncio's arguments."""
    seen = []

    async def connect(sock, address):
        seen.append(("sock_connect", address))
        await original(sock, address)

    async def resolve(*arguments, **keywords):
        seen.append((arguments, keywords))
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", listener.getsockname())]

    loop.getaddrinfo = resolve
    async with support.connected("name", 80) as transport:
        assert transport.get_extra_info("peername") == listener.getsockname()
    asked = {"family": 0, "type": socket.SOCK_STREAM, "proto": 0, "flags": 0}
    assert seen == [(("name", 80), asked)]
    original, loop.sock_connect = loop.sock_connect, connect
    async with support.connected(*listener.getsockname()):
        assert seen[1:] == [("sock_connect", listener.getsockname())]
    del loop.getaddrinfo, loop.sock_connect


async def test_the_loop_stays_without_a_dictionary(loop, listener, mioloop_only):
    """Its methods would be looked up in it first."""
    async with support.connected(*listener.getsockname()):
        assert vars(loop) == {}


def test_audit_hooks(script):
    """They see where a connection goes, and may forbid it."""
    code = """
import socket, sys
def hook(event, args):
    if event == "socket.connect" and args[1][1] == port:
        raise PermissionError(f"not to {args[1][0]}")
listener = socket.create_server(("127.0.0.1", 0))
port = listener.getsockname()[1]
sys.addaudithook(hook)
loop = new_loop()
try:
    loop.run_until_complete(loop.create_connection(asyncio.Protocol, "127.0.0.1", port))
except PermissionError as error:
    print(error)
loop.close()
listener.close()
"""
    assert script.check(code) == "not to 127.0.0.1\n"


# Several addresses ---------------------------------------------------------------------------


def resolving(loop, *addresses):
    """A loop of the same class whose every name has those IPv4 addresses."""

    class Resolving(type(loop)):
        async def getaddrinfo(self, host, port, **keywords):
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in addresses]

    return contextlib.closing(Resolving())


def test_the_next_address_is_tried(loop, listener, refusing):
    async def main():
        async with support.connected("name", 1) as transport:
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
        async with support.connected("name", 1, happy_eyeballs_delay=0.01) as transport:
            assert transport.get_extra_info("peername") == listener.getsockname()

    with resolving(loop, deaf, listener.getsockname()) as own:
        own.run_until_complete(main())
