"""Stream transports over TCP and Unix sockets: the life of a connection as its protocol sees it."""

import asyncio
import socket

import pytest

import support


async def test_the_life_of_a_connection(loop, kind):
    client, server = support.Recorder(), support.Recorder()
    async with support.transport_pair(client, server, kind) as (one, _):
        assert client.events == ["made"]
        one.write(b"hello")
        assert await server.wait_bytes(5) == b"hello"
        one.close()
        await client.wait_event("lost")
        await server.wait_event("lost")
    assert client.events == ["made", "lost"]
    assert server.events == ["made", "data", "eof", "lost"]
    assert client.error is None
    assert server.error is None


async def test_classes(loop, kind):
    async with support.transport_and_socket(support.Recorder(), kind) as (transport, _):
        assert isinstance(transport, asyncio.Transport)
        assert isinstance(transport, asyncio.ReadTransport)
        assert isinstance(transport, asyncio.WriteTransport)
        assert isinstance(transport, asyncio.BaseTransport)
        assert not isinstance(transport, asyncio.DatagramTransport)


async def test_what_connection_made_may_do(loop, kind):
    class Eager(support.Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            self.seen = (
                transport.is_reading(),
                transport.is_closing(),
                transport.get_protocol() is self,
                transport.get_write_buffer_size(),
            )
            transport.write(b"first ")
            transport.writelines([b"se", b"cond"])

    protocol = Eager()
    async with support.transport_and_socket(protocol, kind) as (_, peer):
        assert protocol.seen == (True, False, True, 0)
        assert await support.read_exactly(peer, 12) == b"first second"


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_closing_in_connection_made(loop, kind, how):
    class Brief(support.Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            getattr(transport, how)()
            self.note("closed")

    protocol = Brief()
    async with support.transport_and_socket(protocol, kind) as (_, peer):
        await protocol.wait_event("lost")
        assert await support.read_to_end(peer) == b""
    assert protocol.events == ["made", "closed", "lost"]


async def test_the_protocol_is_there_until_connection_lost_was_called(loop, kind):
    class Looking(support.Recorder):
        def connection_lost(self, exc):
            self.seen = self.transport.get_protocol()
            self.transport.set_protocol(support.Recorder())
            super().connection_lost(exc)

    protocol = Looking()
    async with support.transport_and_socket(protocol, kind) as (transport, _):
        transport.close()
        await protocol.wait_event("lost")
        assert protocol.seen is protocol
        await support.turns()
        assert transport.get_protocol() is None


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_connection_lost_is_never_called_at_once(loop, kind, how):
    protocol = support.Recorder()
    async with support.transport_and_socket(protocol, kind) as (transport, _):
        getattr(transport, how)()
        assert protocol.events == ["made"]
        assert transport.is_closing()
        assert not transport.is_reading()
        await protocol.wait_event("lost")


async def test_closing_many_times(loop, kind):
    protocol = support.Recorder()
    async with support.transport_and_socket(protocol, kind) as (transport, _):
        for how in ("close", "abort", "close", "abort"):
            assert getattr(transport, how)() is None
        await protocol.wait_event("lost")
        transport.close()
        transport.abort()
        await support.turns(3)
    assert protocol.events == ["made", "lost"]


async def test_nothing_is_received_after_close(loop, kind):
    class Once(support.Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.close()

    protocol = Once()
    async with support.transport_and_socket(protocol, kind) as (_, peer):
        peer.send(b"one")
        await protocol.wait_event("data")
        peer.send(b"two")
        await protocol.wait_event("lost")
        await support.turns(3)
    assert protocol.data == b"one"


async def test_data_before_and_with_the_end(loop, kind):
    """What was sent with the end, in one event, is not lost."""
    protocol = support.Recorder()
    async with support.transport_and_socket(protocol, kind) as (_, peer):
        peer.send(b"last words")
        peer.close()
        await protocol.wait_event("lost")
    assert protocol.data == b"last words"
    assert protocol.events == ["made", "data", "eof", "lost"]


# The end of the peer's data ------------------------------------------------------------------


async def test_going_on_after_the_end(loop, kind):
    protocol = support.Recorder()
    protocol.keep_open_at_eof = True
    async with support.transport_and_socket(protocol, kind) as (transport, peer):
        peer.send(b"question")
        peer.shutdown(socket.SHUT_WR)
        await protocol.wait_event("eof")
        await support.turns(5)
        assert protocol.events == ["made", "data", "eof"]
        assert not transport.is_closing()
        transport.write(b"answer")
        assert await support.read_exactly(peer, 6) == b"answer"
        transport.close()
        assert await support.read_to_end(peer) == b""
        await protocol.wait_event("lost")
    assert protocol.events == ["made", "data", "eof", "lost"]


async def test_what_eof_received_writes_is_sent(loop, kind):
    class Farewell(support.Recorder):
        def eof_received(self):
            self.transport.write(b"x" * 300_000)
            return super().eof_received()

    protocol = Farewell()
    async with support.transport_and_socket(protocol, kind) as (_, peer):
        peer.shutdown(socket.SHUT_WR)
        assert len(await support.read_to_end(peer)) == 300_000
        await protocol.wait_event("lost")
    assert protocol.error is None


async def test_write_eof(loop, kind):
    protocol = support.Recorder()
    async with support.transport_and_socket(protocol, kind) as (transport, peer):
        assert transport.can_write_eof() is True
        transport.write(b"question")
        transport.write_eof()
        transport.write_eof()
        assert not transport.is_closing()
        assert await support.read_to_end(peer) == b"question"
        peer.send(b"answer")
        assert await protocol.wait_bytes(6) == b"answer"
        with pytest.raises(RuntimeError, match=r"^Cannot call write\(\) after write_eof\(\)$"):
            transport.write(b"more")
        with pytest.raises(RuntimeError, match=r"^Cannot call write(lines)?\(\) after write_eof"):
            transport.writelines([b"more"])


async def test_write_eof_of_a_closing_transport(loop, kind):
    protocol = support.Recorder()
    async with support.transport_and_socket(protocol, kind) as (transport, peer):
        transport.close()
        transport.write_eof()
        assert await support.read_to_end(peer) == b""
        await protocol.wait_event("lost")
        transport.write_eof()


async def test_both_ends_half_close(loop, kind):
    one, other = support.Recorder(), support.Recorder()
    one.keep_open_at_eof = other.keep_open_at_eof = True
    async with support.transport_pair(one, other, kind) as (first, second):
        first.write(b"one")
        first.write_eof()
        second.write(b"two")
        second.write_eof()
        await one.wait_event("eof")
        await other.wait_event("eof")
        assert (one.data, other.data) == (b"two", b"one")
        assert not first.is_closing()
        first.close()
        second.close()
        await one.wait_event("lost")
        await other.wait_event("lost")
    assert one.events == other.events == ["made", "data", "eof", "lost"]


# Protocols -------------------------------------------------------------------------------------


async def test_set_protocol(loop, kind):
    """How connections are upgraded: the data that follows is the new one's."""
    old, new = support.Recorder(), support.Recorder()
    async with support.transport_and_socket(old, kind) as (transport, peer):
        peer.send(b"old")
        await old.wait_bytes(3)
        transport.set_protocol(new)
        assert transport.get_protocol() is new
        new.events.append("set")
        peer.send(b"new")
        assert await new.wait_bytes(3) == b"new"
        transport.close()
        await new.wait_event("lost")
    assert old.events == ["made", "data"]
    assert new.events == ["set", "data", "lost"]


@pytest.mark.parametrize("upgraded", [support.Recorder, support.BufferedRecorder])
@pytest.mark.parametrize("first", [support.Recorder, support.BufferedRecorder])
async def test_set_protocol_while_receiving(loop, kind, first, upgraded):
    new = upgraded()
    new.events.append("set")

    class Upgrading(first):
        def note(self, event=None):
            super().note(event)
            if event == "data":
                self.transport.set_protocol(new)

    old = Upgrading()
    async with support.transport_and_socket(old, kind) as (_, peer):
        peer.send(b"old")
        await old.wait_bytes(3)
        peer.send(b"new")
        assert await new.wait_bytes(3) == b"new"
        peer.close()
        await new.wait_event("lost")
    assert old.events == ["made", "data"]
    assert new.events == ["set", "data", "eof", "lost"]


async def test_methods_changed_after_the_connection_was_made(loop, kind):
    """A protocol that is its own dispatcher gives itself a new method, then sets itself again."""
    protocol = support.Recorder()
    async with support.transport_and_socket(protocol, kind) as (transport, peer):
        received = loop.create_future()
        protocol.data_received = received.set_result
        transport.set_protocol(protocol)
        peer.send(b"new way")
        assert await received == b"new way"


# What a transport tells ------------------------------------------------------------------------


async def test_extra_info(loop, kind):
    async with support.transport_and_socket(support.Recorder(), kind) as (transport, peer):
        assert transport.get_extra_info("sockname") == peer.getpeername()
        assert transport.get_extra_info("peername") == peer.getsockname()
        assert transport.get_extra_info("colour") is None
        assert transport.get_extra_info("colour", "red") == "red"
        assert transport.get_extra_info("sslcontext") is None
        assert transport.get_extra_info("socket", "red") != "red"


async def test_extra_info_after_the_end(loop, kind):
    protocol = support.Recorder()
    async with support.transport_and_socket(protocol, kind) as (transport, peer):
        expected = {
            "sockname": peer.getpeername(),
            "peername": peer.getsockname(),
        }
        peer.close()
        await protocol.wait_event("lost")
        for name, value in expected.items():
            assert transport.get_extra_info(name) == value
        assert transport.get_extra_info("socket").fileno() == -1
        assert transport.is_closing()


async def test_the_socket_of_a_transport(loop, kind):
    async with support.transport_and_socket(support.Recorder(), kind) as (transport, peer):
        sock = transport.get_extra_info("socket")
        assert type(sock) is asyncio.trsock.TransportSocket
        assert sock.family == peer.family
        assert sock.type == peer.type == socket.SOCK_STREAM
        assert sock.proto == peer.proto
        assert sock.fileno() > 2
        assert sock.getsockname() == peer.getpeername()
        assert sock.getpeername() == peer.getsockname()
        assert sock.gettimeout() == 0
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= 4096
        with socket.socket(fileno=socket.dup(sock.fileno())) as duplicate:
            assert duplicate.getsockname() == sock.getsockname()


async def test_the_socket_can_be_shut_down(loop, kind):
    """Health checks and servers do so through `get_extra_info("socket")`."""
    protocol = support.Recorder()
    async with support.transport_and_socket(protocol, kind) as (transport, peer):
        transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        assert await support.read_to_end(peer) == b""
        await protocol.wait_event("lost")
    assert protocol.error is None


async def test_states_are_printed(loop, kind):
    protocol = support.Recorder()
    async with support.transport_and_socket(protocol, kind) as (transport, _):
        fd = transport.get_extra_info("socket").fileno()
        assert f"fd={fd} " in repr(transport)
        transport.pause_reading()
        assert "read=idle" in repr(transport)
        transport.resume_reading()
        assert "read=polling" in repr(transport)
        transport.close()
        assert "clos" in repr(transport)
        await protocol.wait_event("lost")
        assert f" closed fd={fd}" in repr(transport)


async def test_attributes_may_be_set_on_protocols_with_slots(loop, kind):
    class Slots(asyncio.Protocol):
        __slots__ = ("received",)

        def connection_made(self, transport):
            self.received = loop.create_future()

        def data_received(self, data):
            self.received.set_result(data)

    protocol = Slots()
    async with support.transport_and_socket(protocol, kind) as (_, peer):
        peer.send(b"data")
        assert await protocol.received == b"data"
