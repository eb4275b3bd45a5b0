"""Datagram endpoints: errors, pauses, flow control, floods."""

import asyncio
import contextlib
import contextvars
import socket
import sys
import threading

import pytest

import support
from datagrams import HOST, NUMBERS, Datagrams, endpoint, hundred_waiting, name_of, places


@pytest.fixture
def busy():
    """A socket with a hundred datagrams waiting, and their sender."""
    with hundred_waiting() as sockets:
        yield sockets


# --- errors -------------------------------------------------------------------------------------


async def test_refused_datagrams(loop):
    """Nobody there: told to the protocol, and the transport goes on."""
    with socket.socket(type=socket.SOCK_DGRAM) as free:
        free.bind((HOST, 0))
        address = free.getsockname()
    async with endpoint(remote_addr=address) as one:
        for count in range(1, 4):
            one.transport.sendto(b"anyone?")
            await one.wait(lambda count=count: len(one.errors) >= count)
        assert {type(error) for error in one.errors} == {ConnectionRefusedError}
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.bind(address)
            sock.setblocking(False)
            one.transport.sendto(b"now?")
            assert (await loop.sock_recvfrom(sock, 10))[0] == b"now?"
            sock.sendto(b"yes", name_of(one))
            assert await one.wait_count(1) == [b"yes"]
        assert not one.transport.is_closing()


async def test_one_that_is_too_long_among_others(loop):
    async with endpoint((HOST, 0)) as one, endpoint((HOST, 0)) as other:
        for data in (b"one", b"two", b"x" * 70_000, b"three", b"y" * 70_000, b"four"):
            other.transport.sendto(data, name_of(one))
        assert await one.wait_count(4) == [b"one", b"two", b"three", b"four"]
        await other.wait(lambda: len(other.errors) == 2)
        assert [str(error) for error in other.errors] == ["[Errno 90] Message too long"] * 2
        assert not other.transport.is_closing()


async def test_exceptions_of_the_protocol_are_reported(loop, reports, busy):
    def fail(data):
        raise ZeroDivisionError(data)

    async with endpoint(sock=busy[0], action=fail) as one:
        assert await one.wait_count(100) == NUMBERS
        await support.turns(2)
        assert [type(report["exception"]) for report in reports.take()] == [ZeroDivisionError] * 100
        assert not one.transport.is_closing()


async def test_an_exception_of_error_received_is_reported(loop, reports):
    with socket.socket(type=socket.SOCK_DGRAM) as free:
        free.bind((HOST, 0))
        address = free.getsockname()
    async with endpoint(remote_addr=address) as one:
        seen = asyncio.Event()

        def fail(error):
            seen.set()
            raise ZeroDivisionError

        one.error_received = fail
        one.transport.sendto(b"anyone?")
        await seen.wait()
        await support.turns()
        assert isinstance(reports.take_one()["exception"], ZeroDivisionError)
        assert not one.transport.is_closing()


async def test_exceptions_of_connection_made_and_lost(loop, reports):
    class Failing(Datagrams):
        def connection_made(self, transport):
            super().connection_made(transport)
            raise ZeroDivisionError

        def connection_lost(self, exc):
            super().connection_lost(exc)
            raise ZeroDivisionError

    transport, protocol = await loop.create_datagram_endpoint(Failing, (HOST, 0))
    assert isinstance(reports.take_one()["exception"], ZeroDivisionError)
    transport.sendto(b"data", name_of(protocol))
    assert await protocol.wait_count(1) == [b"data"]
    transport.close()
    assert await protocol.lost is None
    await support.turns()
    assert isinstance(reports.take_one()["exception"], ZeroDivisionError)
    assert transport.get_extra_info("socket").fileno() == -1


def test_an_interrupt_leaves_the_loop_and_loses_nothing(loop, busy):
    protocols = []

    def interrupt(data):
        if data == b"3":
            raise KeyboardInterrupt

    async def begin():
        _, protocol = await loop.create_datagram_endpoint(
            lambda: Datagrams(interrupt), sock=busy[0]
        )
        protocols.append(protocol)
        await protocol.wait_count(100)

    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(begin())
    (protocol,) = protocols

    async def finish():
        await protocol.wait(lambda: len(protocol.received) == 100)
        protocol.transport.close()
        await protocol.lost

    loop.run_until_complete(finish())
    assert protocol.data == NUMBERS


# --- reading: pauses, the end, turns ------------------------------------------------------------


async def test_a_pause_keeps_what_came(loop, busy):
    def pause(data):
        if data == b"5":
            one.transport.pause_reading()

    async with endpoint(sock=busy[0], action=pause) as one:
        await one.wait_count(6)
        await support.turns(5)
        assert one.data == NUMBERS[:6]
        assert not one.transport.is_reading()
        one.transport.pause_reading()
        one.transport.resume_reading()
        one.transport.resume_reading()
        assert await one.wait_count(100) == NUMBERS


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_after_the_end_nothing_is_received(loop, busy, end):
    def finish(data):
        if data == b"5":
            getattr(one.transport, end)()

    async with endpoint(sock=busy[0], action=finish) as one:
        assert await one.lost is None
        assert one.data == NUMBERS[:6]


async def test_the_protocol_can_be_replaced(loop, busy):
    def replace(data):
        if data == b"5":
            one.transport.set_protocol(other)

    other = Datagrams()
    async with endpoint(sock=busy[0], action=replace) as one:
        await other.wait_count(94)
        one.transport.set_protocol(one)
    assert one.data + other.data == NUMBERS


async def test_contexts(loop, busy):
    variable = contextvars.ContextVar("variable", default="unset")
    seen = set()

    class Looking(Datagrams):
        def connection_made(self, transport):
            super().connection_made(transport)
            assert variable.get() == "creator"
            variable.set("made")

        def datagram_received(self, data, addr):
            seen.add(variable.get())
            super().datagram_received(data, addr)

        def error_received(self, exc):
            seen.add(variable.get())
            super().error_received(exc)

        def connection_lost(self, exc):
            seen.add(variable.get())
            super().connection_lost(exc)

    variable.set("creator")
    transport, protocol = await loop.create_datagram_endpoint(Looking, sock=busy[0])
    await protocol.wait_count(100)
    transport.sendto(b"x" * 70_000, name_of(protocol))
    await protocol.wait(lambda: protocol.errors)
    transport.close()
    await protocol.lost
    assert seen == {"creator"}


async def test_a_flood_starves_nobody(loop):
    """Timers, callbacks and other endpoints get their turns while datagrams come in without end."""
    stop = threading.Event()

    def flood(address):
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            while not stop.is_set():
                sock.sendto(b"x" * 64, address)

    async with endpoint((HOST, 0)) as one, endpoint((HOST, 0)) as other:
        thread = threading.Thread(target=flood, args=(name_of(one),))
        thread.start()
        try:
            await one.wait_count(1000)
            late = []
            for _ in range(20):
                start = loop.time()
                await asyncio.sleep(0.005)
                late.append(loop.time() - start - 0.005)
                other.transport.sendto(b"data", name_of(other))
                await other.wait_count(len(late))
                await support.turns()
            assert sorted(late)[10] < 0.1
        finally:
            stop.set()
            thread.join()


# --- flow control -------------------------------------------------------------------------------


@contextlib.contextmanager
def full_peer():
    """A connected Unix socket, and its peer whose queue is full."""
    with places("path") as (first, _, family), socket.socket(family, socket.SOCK_DGRAM) as peer:
        peer.bind(first)
        peer.setblocking(False)
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.connect(first)
        sock.setblocking(False)
        count = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                sock.send(b"full")
                count += 1
        yield sock, peer, count


def receive_all(peer):
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(peer.recv(100_000))
    return found


async def test_flow_control(loop):
    header = 8 if sys.version_info >= (3, 13) else 0
    with full_peer() as (sock, peer, count):
        async with endpoint(sock=sock) as one:
            transport = one.transport
            assert transport.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
            transport.set_write_buffer_limits(high=50, low=20)
            sent = [b"%010d" % number for number in range(20)]
            for data in sent[:3]:
                transport.sendto(data)
            await support.turns()
            assert transport.get_write_buffer_size() == 3 * (10 + header)
            assert one.flow == (["pause"] if header else [])
            for data in sent[3:]:
                transport.sendto(data)
            assert one.flow == ["pause"]
            assert "write=<polling" in repr(transport)
            received = []
            while len(received) < count + len(sent):
                received += receive_all(peer)
                await support.turns(2)
            assert received == [b"full"] * count + sent
            if transport.get_write_buffer_size() > 0:
                pytest.skip("here asyncio never takes the headers off again")
            assert one.flow == ["pause", "resume"]
            transport.sendto(b"last")
            await support.turns()
            assert receive_all(peer) == [b"last"]
            for wrong in ((1, 2), (None, -1)):
                with pytest.raises(ValueError, match="must be >= low"):
                    transport.set_write_buffer_limits(*wrong)


async def test_closing_sends_the_rest(loop):
    with full_peer() as (sock, peer, count):
        async with endpoint(sock=sock) as one:
            one.transport.sendto(b"one")
            one.transport.sendto(b"two")
            one.transport.close()
            await support.turns(3)
            assert not one.lost.done()
            assert receive_all(peer) == [b"full"] * count
            assert await one.lost is None
            assert receive_all(peer) == [b"one", b"two"]


async def test_aborting_drops_the_rest(loop):
    with full_peer() as (sock, peer, count):
        async with endpoint(sock=sock) as one:
            one.transport.sendto(b"one")
            await support.turns()
            one.transport.abort()
            assert await one.lost is None
            assert receive_all(peer) == [b"full"] * count


async def test_a_full_queue_of_an_unconnected_socket(loop):
    """There the kernel says that the socket is writable, and still has no room."""
    with (
        places("path") as (first, second, family),
        socket.socket(family, socket.SOCK_DGRAM) as peer,
    ):
        peer.bind(first)
        peer.setblocking(False)
        async with endpoint(second, family=family) as one:
            sent = [b"%d" % number for number in range(1000)]
            for data in sent:
                one.transport.sendto(data, first)
            received = []
            while len(received) < len(sent):
                await support.turns(2)
                received += receive_all(peer)
            assert received == sent


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_what_was_sent_before_the_end_arrives(loop, end):
    async with endpoint((HOST, 0)) as one, endpoint(remote_addr=name_of(one)) as other:
        other.transport.sendto(b"one")
        other.transport.sendto(b"two")
        getattr(other.transport, end)()
        assert await other.lost is None
        assert await one.wait_count(2) == [b"one", b"two"]


def test_sending_while_the_loop_does_not_run(loop):
    async def begin():
        transport, _ = await loop.create_datagram_endpoint(Datagrams, (HOST, 0))
        return transport

    transport = loop.run_until_complete(begin())
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind((HOST, 0))
        sock.setblocking(False)
        transport.sendto(b"now", sock.getsockname())
        assert sock.recv(10) == b"now"
    transport.close()
    support.spin(loop, 2)
