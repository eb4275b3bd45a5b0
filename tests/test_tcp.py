"""What is TCP's alone: its options, resets, urgent data, IPv6, and addresses of the ends."""

import asyncio
import contextlib
import pathlib
import socket
import sys

import pytest

import support

HOST = "127.0.0.1"


def option(transport, level, name):
    return transport.get_extra_info("socket").getsockopt(level, name)


@contextlib.asynccontextmanager
async def both_ends(loop, **keywords):
    """The transports of a client and of the server's end, and their protocols."""
    accepted, client = support.Recorder(), support.Recorder()
    server = await loop.create_server(lambda: accepted, HOST, 0, **keywords)
    async with support.serving(server):
        transport, _ = await loop.create_connection(lambda: client, HOST, support.port_of(server))
        await accepted.wait_event("made")
        yield transport, accepted.transport, client, accepted
        transport.close()
        accepted.transport.close()
        await client.wait_event("lost")
        await accepted.wait_event("lost")


async def test_small_packets_are_not_held_back(loop):
    async with both_ends(loop) as (one, other, _, _):
        for transport in (one, other):
            assert option(transport, socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_addresses_of_the_ends(loop):
    async with both_ends(loop) as (one, other, _, _):
        assert one.get_extra_info("sockname") == other.get_extra_info("peername")
        assert one.get_extra_info("peername") == other.get_extra_info("sockname")
        for transport in (one, other):
            for name in ("sockname", "peername"):
                host, port = transport.get_extra_info(name)
                assert host == HOST
                assert type(port) is int


async def test_options_may_be_set(loop):
    async with both_ends(loop) as (one, _, _, _):
        sock = one.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        assert option(one, socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
        assert not option(one, socket.IPPROTO_TCP, socket.TCP_NODELAY)


# Resets --------------------------------------------------------------------------------------


async def test_a_reset_while_reading(loop):
    protocol = support.Recorder()
    async with support.transport_and_socket(protocol) as (_, peer):
        peer.send(b"data")
        await protocol.wait_bytes(4)
        support.reset(peer)
        await protocol.wait_event("lost")
    assert protocol.events == ["made", "data", "lost"]
    assert isinstance(protocol.error, ConnectionResetError)
    assert protocol.error.errno


async def test_a_reset_while_writing(loop):
    protocol = support.Recorder()
    async with support.transport_and_socket(protocol) as (transport, peer):
        transport.write(bytes(20_000_000))
        await support.turns(3)
        support.reset(peer)
        await protocol.wait_event("lost")
        assert transport.get_write_buffer_size() == 0
    assert protocol.events[-1] == "lost"
    assert isinstance(protocol.error, (ConnectionResetError, BrokenPipeError))


async def test_a_reset_while_reading_is_paused(loop):
    """It is noticed as soon as something is written, or reading goes on."""
    protocol = support.Recorder()
    async with support.transport_and_socket(protocol) as (transport, peer):
        transport.pause_reading()
        support.reset(peer)
        await support.turns(3)
        transport.resume_reading()
        await protocol.wait_event("lost")
    assert isinstance(protocol.error, ConnectionResetError)


async def test_a_reset_while_closing(loop):
    """The data that was still to be sent is lost, and the protocol hears why."""
    protocol = support.Recorder()
    async with support.transport_and_socket(protocol) as (transport, peer):
        transport.write(bytes(20_000_000))
        transport.close()
        support.reset(peer)
        await protocol.wait_event("lost")
    assert isinstance(protocol.error, (ConnectionResetError, BrokenPipeError))


async def test_resets_in_streams(loop):
    ours, theirs = support.socket_pair("tcp")
    reader, writer = await asyncio.open_connection(sock=ours)
    reading = asyncio.ensure_future(reader.read())
    await support.turns(2)
    support.reset(theirs)
    with pytest.raises(ConnectionResetError):
        await reading
    writer.write(b"data")
    with pytest.raises(ConnectionResetError):
        await writer.drain()
    writer.close()
    with contextlib.suppress(ConnectionResetError):
        await writer.wait_closed()


async def test_aborting_sends_no_end_of_data(loop):
    """What the peer had sent and nobody read turns the close into a reset."""
    protocol = support.Recorder()
    async with support.transport_and_socket(protocol) as (transport, peer):
        transport.pause_reading()
        peer.send(b"unread")
        await support.turns(3)
        transport.abort()
        await protocol.wait_event("lost")
        with pytest.raises(ConnectionResetError):
            await support.read_to_end(peer)
    assert protocol.error is None


# Other things that arrive ----------------------------------------------------------------------


async def test_urgent_data_disturbs_nothing(loop):
    protocol = support.Recorder()
    async with support.transport_and_socket(protocol) as (_, peer):
        peer.send(b"before")
        peer.send(b"!", socket.MSG_OOB)
        peer.send(b"after")
        assert await protocol.wait_bytes(11) == b"beforeafter"


async def test_an_end_that_comes_with_room_to_write(loop):
    """One event for both directions: the write goes on, and the end is seen."""
    protocol = support.Recorder()
    protocol.keep_open_at_eof = True
    async with support.transport_and_socket(protocol, buffers=4096) as (transport, peer):
        transport.write(bytes(1_000_000))
        await support.turns(3)
        peer.send(b"data")
        peer.shutdown(socket.SHUT_WR)
        assert len(await support.read_exactly(peer, 1_000_000)) == 1_000_000
        await protocol.wait_event("eof")
        assert protocol.data == b"data"
        transport.write(b"end")
        assert await support.read_exactly(peer, 3) == b"end"


async def test_data_for_both_directions_at_once(loop):
    """While writing waits for room, reading goes on."""
    protocol = support.Recorder()
    async with support.transport_and_socket(protocol, buffers=4096) as (transport, peer):
        transport.write(bytes(1_000_000))
        for number in range(1, 50):
            peer.send(b"x" * 100)
            await protocol.wait_bytes(100 * number)
        assert transport.get_write_buffer_size() > 0


# IPv6 ------------------------------------------------------------------------------------------


def link_local():
    """A link-local address of this machine with its scope id and name, if there is one."""
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/net/if_inet6").read_text().splitlines():
            digits, index, _, _, _, name = line.split()
            if digits.startswith("fe80"):
                host = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits))
                return host, int(index, 16), name
    return None


async def test_scope_ids_are_kept(loop):
    found = link_local()
    if found is None:
        pytest.skip("this machine has no link-local address")
    host, scope, name = found
    accepted = support.Recorder()
    try:
        server = await loop.create_server(lambda: accepted, f"{host}%{name}", 0)
    except OSError as error:
        pytest.skip(f"listening on a link-local address fails here: {error}")
    async with support.serving(server):
        transport, protocol = await loop.create_connection(
            support.Recorder, f"{host}%{name}", support.port_of(server)
        )
        await accepted.wait_event("made")
        for end in (transport, accepted.transport):
            for address in ("sockname", "peername"):
                assert end.get_extra_info(address)[0].startswith("fe80")
                assert end.get_extra_info(address)[3] == scope
        transport.close()
        await protocol.wait_event("lost")
        await accepted.wait_event("lost")


async def test_ipv6_addresses_have_four_parts(loop):
    accepted = support.Recorder()
    try:
        server = await loop.create_server(lambda: accepted, "::1", 0)
    except OSError as error:
        pytest.skip(f"there is no IPv6 here: {error}")
    async with support.serving(server):
        port = support.port_of(server)
        transport, protocol = await loop.create_connection(support.Recorder, "::1", port)
        await accepted.wait_event("made")
        assert transport.get_extra_info("peername") == ("::1", port, 0, 0)
        peer = accepted.transport.get_extra_info("peername")
        assert peer == transport.get_extra_info("sockname")
        assert len(peer) == 4
        transport.close()
        await protocol.wait_event("lost")
        await accepted.wait_event("lost")


# Sending files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fallback", [True, False])
async def test_sendfile(loop, tmp_path, fallback):
    """`loop.sendfile` works over the transports, natively or by reading and writing."""
    if not fallback and sys.platform != "linux":
        pytest.skip("os.sendfile takes other arguments here")
    data = support.payload(700_000)
    (tmp_path / "file").write_bytes(data)
    protocol = support.Recorder()
    async with support.transport_and_socket(protocol) as (transport, peer):
        reading = asyncio.ensure_future(support.read_exactly(peer, len(data) + 12))
        with (tmp_path / "file").open("rb") as file:
            transport.write(b"before")
            assert await loop.sendfile(transport, file, fallback=fallback) == len(data)
            transport.write(b"behind")
        assert await reading == b"before" + data + b"behind"
