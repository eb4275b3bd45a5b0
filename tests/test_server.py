"""`create_server` and `Server`: listening, serving, closing, and who is waited for."""

import asyncio
import errno
import socket
import sys

import pytest

import support

HOST = "127.0.0.1"


async def connect(port, host=HOST):
    """A client of that port, and its protocol."""
    loop = asyncio.get_running_loop()
    return await loop.create_connection(support.Recorder, host, port)


async def talk(port, host=HOST):
    """One exchange with an echo server."""
    transport, protocol = await connect(port, host)
    transport.write(b"hello")
    assert await protocol.wait_bytes(5) == b"hello"
    transport.close()
    await protocol.wait_event("lost")


async def test_serving_one_after_another_and_many_at_once(loop):
    server = await loop.create_server(support.Echo, HOST, 0, backlog=200)
    async with support.serving(server):
        port = support.port_of(server)
        for _ in range(5):
            await talk(port)
        await asyncio.gather(*(talk(port) for _ in range(150)))


async def test_what_a_server_tells(loop):
    server = await loop.create_server(support.Echo, HOST, 0)
    assert isinstance(server, asyncio.AbstractServer)
    assert isinstance(server, asyncio.Server)
    assert server.is_serving()
    assert server.get_loop() is loop
    assert len(server.sockets) == 1
    assert server.sockets[0].getsockname()[0] == HOST
    assert type(server.sockets[0]) is asyncio.trsock.TransportSocket
    server.close()
    assert not server.is_serving()
    assert server.sockets == ()
    await server.wait_closed()


async def test_each_connection_has_a_protocol(loop):
    made = []

    def factory():
        made.append(support.Recorder())
        return made[-1]

    server = await loop.create_server(factory, HOST, 0)
    async with support.serving(server):
        first, _ = await connect(support.port_of(server))
        second, _ = await connect(support.port_of(server))
        first.write(b"first")
        second.write(b"second")
        while len(made) < 2:
            await support.turns()
        await asyncio.gather(made[0].wait_event("data"), made[1].wait_event("data"))
        assert {bytes(protocol.data) for protocol in made} == {b"first", b"second"}
        transport = made[0].transport
        assert transport.get_extra_info("sockname") == server.sockets[0].getsockname()
        ports = {protocol.transport.get_extra_info("peername")[1] for protocol in made}
        assert ports == {t.get_extra_info("sockname")[1] for t in (first, second)}
        first.close()
        second.close()
        await asyncio.gather(*(protocol.wait_event("lost") for protocol in made))


# Addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize("host", [None, "", "0.0.0.0", "localhost", [HOST], [HOST, "localhost"]])
async def test_hosts(loop, host):
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    server = await loop.create_server(support.Echo, host, port)
    async with support.serving(server):
        await talk(port)


async def test_a_socket_of_ones_own(loop):
    sock = socket.create_server((HOST, 0))
    sock.setblocking(True)
    server = await loop.create_server(support.Echo, sock=sock)
    async with support.serving(server):
        assert server.sockets[0].fileno() == sock.fileno()
        await talk(sock.getsockname()[1])
    assert sock.fileno() == -1


@pytest.mark.parametrize("backlog", [-1, 0, 1])
async def test_small_backlogs(loop, backlog):
    """The kernel makes the best of it. Early releases of asyncio then accept nobody."""
    server = await loop.create_server(support.Echo, HOST, 0, backlog=backlog)
    assert server.is_serving()
    server.close()


@pytest.mark.skipif(not socket.has_ipv6, reason="there is no IPv6 here")
async def test_ipv6(loop):
    try:
        server = await loop.create_server(support.Echo, "::1", 0)
    except OSError as error:
        pytest.skip(f"there is no IPv6 here: {error}")
    async with support.serving(server):
        port = support.port_of(server)
        transport, protocol = await connect(port, "::1")
        assert transport.get_extra_info("peername") == ("::1", port, 0, 0)
        assert len(transport.get_extra_info("sockname")) == 4
        transport.close()
        await protocol.wait_event("lost")


async def test_an_address_in_use(loop):
    with socket.create_server((HOST, 0)) as taken:
        with pytest.raises(OSError, match="error while attempting to bind on address") as caught:
            await loop.create_server(support.Echo, HOST, taken.getsockname()[1])
        assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="there is no SO_REUSEPORT here")
async def test_two_servers_on_one_port(loop):
    first = await loop.create_server(support.Echo, HOST, 0, reuse_port=True)
    async with support.serving(first):
        port = support.port_of(first)
        second = await loop.create_server(support.Echo, HOST, port, reuse_port=True)
        async with support.serving(second):
            await asyncio.gather(*(talk(port) for _ in range(20)))


async def options_of_connections(loop, **options):
    """(NODELAY, KEEPALIVE) of the accepted and of the connecting end."""
    protocol = support.Recorder()
    server = await loop.create_server(lambda: protocol, HOST, 0, **options)
    async with support.serving(server):
        transport, client = await connect(support.port_of(server))
        await protocol.wait_event("made")
        found = [
            (
                sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0,
                sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0,
            )
            for sock in (
                protocol.transport.get_extra_info("socket"),
                transport.get_extra_info("socket"),
            )
        ]
        transport.close()
        await client.wait_event("lost")
        await protocol.wait_event("lost")
    return found


async def test_small_packets_are_not_held_back(loop):
    found = await options_of_connections(loop)
    assert found == [(True, False), (True, False)]


@pytest.mark.skipif(sys.version_info < (3, 13), reason="keep_alive came with Python 3.13")
async def test_keep_alive(loop):
    found = await options_of_connections(loop, keep_alive=True)
    assert found == [(True, True), (True, False)]


# Starting ------------------------------------------------------------------------------------


async def test_started_later(loop):
    server = await loop.create_server(support.Echo, HOST, 0, start_serving=False)
    assert not server.is_serving()
    port = support.port_of(server)
    with pytest.raises(ConnectionRefusedError):
        await connect(port)
    await server.start_serving()
    await server.start_serving()
    assert server.is_serving()
    await talk(port)
    server.close()
    await server.wait_closed()


async def test_serve_forever(loop):
    server = await loop.create_server(support.Echo, HOST, 0, start_serving=False)
    serving = asyncio.ensure_future(server.serve_forever())
    await support.turns(2)
    assert server.is_serving()
    with pytest.raises(RuntimeError, match="is already being awaited on serve_forever"):
        await server.serve_forever()
    await talk(support.port_of(server))
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert not server.is_serving()
    with pytest.raises(RuntimeError, match="is closed"):
        await server.serve_forever()


async def test_as_a_context(loop):
    async with await loop.create_server(support.Echo, HOST, 0) as server:
        await talk(support.port_of(server))
    assert not server.is_serving()


# Closing -------------------------------------------------------------------------------------


async def test_closing_refuses_new_connections(loop):
    server = await loop.create_server(support.Echo, HOST, 0)
    port = support.port_of(server)
    server.close()
    server.close()
    with pytest.raises(ConnectionRefusedError):
        await connect(port)
    await server.wait_closed()


async def test_closing_keeps_the_connections(loop):
    """A server that took its clients down with it has been reported of another loop."""
    protocol = support.Recorder()
    server = await loop.create_server(lambda: protocol, HOST, 0)
    transport, client = await connect(support.port_of(server))
    await protocol.wait_event("made")
    server.close()
    for number in range(1, 5):
        transport.write(b"x")
        await protocol.wait_bytes(number)
        protocol.transport.write(b"y")
        await client.wait_bytes(number)
    transport.close()
    await protocol.wait_event("lost")
    await server.wait_closed()


@pytest.mark.skipif(sys.version_info < (3, 12, 1), reason="wait_closed waits from 3.12.1 on")
async def test_wait_closed_waits_for_the_connections(loop):
    protocol = support.Recorder()
    server = await loop.create_server(lambda: protocol, HOST, 0)
    transport, client = await connect(support.port_of(server))
    await protocol.wait_event("made")
    waiting = [asyncio.ensure_future(server.wait_closed()) for _ in range(3)]
    await support.turns(3)
    assert not any(future.done() for future in waiting)
    server.close()
    await support.turns(3)
    assert not any(future.done() for future in waiting)
    transport.close()
    await asyncio.gather(*waiting)
    assert "lost" in protocol.events
    await client.wait_event("lost")


@pytest.mark.skipif(sys.version_info < (3, 12, 1), reason="wait_closed waits from 3.12.1 on")
async def test_wait_closed_waits_for_the_close(loop):
    server = await loop.create_server(support.Echo, HOST, 0)
    waiting = asyncio.ensure_future(server.wait_closed())
    await support.turns(5)
    assert not waiting.done()
    server.close()
    await waiting


@pytest.mark.skipif(sys.version_info < (3, 13), reason="close_clients came with Python 3.13")
@pytest.mark.parametrize("how", ["close_clients", "abort_clients"])
async def test_ending_the_connections(loop, how):
    protocol = support.Recorder()
    server = await loop.create_server(lambda: protocol, HOST, 0)
    _, client = await connect(support.port_of(server))
    await protocol.wait_event("made")
    protocol.transport.write(bytes(20_000_000))
    server.close()
    getattr(server, how)()
    await client.wait_event("lost")
    await protocol.wait_event("lost")
    await server.wait_closed()
    if how == "close_clients":
        assert len(client.data) == 20_000_000
    else:
        assert len(client.data) < 20_000_000
    assert protocol.error is None


@pytest.mark.skipif(sys.version_info < (3, 13), reason="close_clients came with Python 3.13")
async def test_ending_connections_that_ended(loop):
    server = await loop.create_server(support.Echo, HOST, 0)
    port = support.port_of(server)
    for _ in range(3):
        await talk(port)
    server.close_clients()
    server.abort_clients()
    server.close()
    await server.wait_closed()


async def test_connections_that_come_with_the_close(loop):
    """Those in the backlog are refused or served, and leave nothing behind."""
    for _ in range(20):
        server = await loop.create_server(support.Echo, HOST, 0)
        clients = [socket.create_connection(server.sockets[0].getsockname()) for _ in range(5)]
        await support.turns(1)
        server.close()
        for client in clients:
            client.close()
        await asyncio.wait_for(server.wait_closed(), 20)


# Streams -------------------------------------------------------------------------------------


async def test_streams(loop):
    async def serve(reader, writer):
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(serve, HOST, 0) as server:
        reader, writer = await asyncio.open_connection(HOST, support.port_of(server))
        for number in range(100):
            writer.write(b"line %d\n" % number)
            await writer.drain()
            assert await reader.readline() == b"LINE %d\n" % number
        writer.write(b"x" * 30_000 + b"\n")
        assert await reader.readuntil(b"X\n") == b"X" * 30_000 + b"\n"
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


async def test_an_error_of_a_stream_callback_is_reported(loop, reports):
    async def serve(reader, writer):
        try:
            raise ValueError("on purpose")
        finally:
            writer.close()

    async with await asyncio.start_server(serve, HOST, 0) as server:
        reader, writer = await asyncio.open_connection(HOST, support.port_of(server))
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
    context = reports.take_one()
    assert context["message"] == "Unhandled exception in client_connected_cb"
    assert isinstance(context["exception"], ValueError)


async def test_lines_beyond_the_limit(loop):
    """The stream pauses its transport, and goes on after the overrun."""
    ours, theirs = support.socket_pair("tcp")
    reader, writer = await asyncio.open_connection(sock=ours, limit=1000)
    sending = asyncio.ensure_future(loop.sock_sendall(theirs, b"x" * 500_000 + b"\nend\n"))
    with pytest.raises(ValueError, match="limit"):
        await reader.readline()
    rest = bytearray()
    while not rest.endswith(b"end\n"):
        rest += await reader.read(10_000)
    await sending
    theirs.close()
    writer.close()
    await writer.wait_closed()
