"""Datagram endpoints: closing and aborting, what is sent then, and what is left."""

import asyncio
import errno
import gc
import logging
import os
import weakref

import pytest

import support
from datagrams import HOST, Datagrams, endpoint, name_of


async def test_sending_after_the_end(loop, caplog):
    async with endpoint((HOST, 0)) as one, endpoint(remote_addr=name_of(one)) as other:
        other.transport.abort()
        await other.lost
        with caplog.at_level(logging.WARNING, "asyncio"):
            for _ in range(8):
                other.transport.sendto(b"data")
        texts = [record.getMessage() for record in caplog.records]
        assert texts == ["socket.send() raised exception."] * 4
        assert one.received == []


async def test_sending_after_the_end_without_a_remote_address(loop, mioloop_only):
    """asyncio fails with AttributeError there."""
    async with endpoint((HOST, 0)) as one:
        one.transport.abort()
        await one.lost
        await support.turns()
        one.transport.sendto(b"data", (HOST, 9))


async def test_connection_lost_finds_all_in_place(loop):
    """The protocol and the socket go after it; what it sends leaves."""

    class Parting(Datagrams):
        def connection_lost(self, exc):
            super().connection_lost(exc)
            self.seen = (self.transport.get_protocol(), self.transport.is_closing())
            self.transport.sendto(b"parting", name_of(one))
            self.transport.set_protocol(one)

    async with endpoint((HOST, 0)) as one:
        transport, protocol = await loop.create_datagram_endpoint(Parting, (HOST, 0))
        transport.close()
        transport.sendto(b"after close()", name_of(one))
        await protocol.lost
        assert protocol.seen == (protocol, True)
        assert await one.wait_count(2) == [b"after close()", b"parting"]
        await support.turns()
        assert transport.get_protocol() is None
        assert transport.get_extra_info("socket").fileno() == -1


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_transport_dies_with_its_socket(loop_factory):
    """The collector may have emptied the socket before."""

    async def begin():
        running = asyncio.get_running_loop()
        transport, _ = await running.create_datagram_endpoint(Datagrams, (HOST, 0))
        return transport.get_extra_info("socket").fileno()

    loop = loop_factory()
    fd = loop.run_until_complete(begin())
    loop.itself = [loop]
    loop.close()
    del loop
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_dropped_transport_warns_and_closes(new_loop):
    loop = new_loop()

    async def begin():
        transport, _ = await loop.create_datagram_endpoint(Datagrams, (HOST, 0))
        return transport.get_extra_info("socket")

    sock = loop.run_until_complete(begin())

    def drop():
        loop.close()
        gc.collect()

    with pytest.warns(ResourceWarning, match=r"unclosed transport <\w+Transport fd="):
        drop()
    assert sock.fileno() == -1


async def test_closed_transports_die(loop):
    async with endpoint((HOST, 0)) as one:
        one.transport.sendto(b"data", name_of(one))
        await one.wait_count(1)
        reference = weakref.ref(one.transport)
    one.transport = None
    await support.turns(2)
    gc.collect()
    assert reference() is None


async def test_debug_messages(loop, caplog):
    loop.set_debug(True)
    with caplog.at_level(logging.DEBUG, "asyncio"):
        async with endpoint((HOST, 0)) as one:
            one.transport.pause_reading()
            one.transport.resume_reading()
            one.transport.sendto(b"data", name_of(one))
            assert await one.wait_count(1) == [b"data"]
    texts = [support.normal(record.getMessage()) for record in caplog.records]
    for text in ("pauses reading", "resumes reading", "Datagram endpoint local_addr="):
        assert any(text in line for line in texts), texts


@pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")
async def test_a_descriptor_that_was_closed_behind(loop, reports):
    """Sending tells the protocol; the socket object fails to close, which is reported."""
    async with endpoint((HOST, 0)) as one:
        os.close(one.transport.get_extra_info("socket").fileno())
        one.transport.sendto(b"data", (HOST, 9))
        await one.wait(lambda: one.errors)
        assert one.errors[0].errno == errno.EBADF
        assert not one.transport.is_closing()
        one.transport.close()
        assert await one.lost is None
        await support.turns()
        assert reports.take_one()["exception"].errno == errno.EBADF
        # The number is free for others.
        async with endpoint((HOST, 0)) as other:
            other.transport.sendto(b"data", name_of(other))
            assert await other.wait_count(1) == [b"data"]
    # asyncio takes its transport for one that is open still, and warns when it goes.
    one.transport = None
    one.errors.clear()
    gc.collect()
