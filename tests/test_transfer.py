"""Byte-exact transfers: small buffers, both directions at once, pauses at random, endings."""

import asyncio
import hashlib
import random
import socket

import pytest

import support

SMALL = 4096


class Pausing(support.Recorder):
    """Stops reading at once, then now and then, for a turn or for a moment."""

    def __init__(self, loop, seed):
        super().__init__()
        self.loop = loop
        self.chance = random.Random(seed)
        self.pauses = 0

    def data_received(self, data):
        super().data_received(data)
        if (not self.pauses or self.chance.random() < 0.2) and self.transport.is_reading():
            self.pauses += 1
            self.transport.pause_reading()
            delay = self.chance.choice([0, 0, 0.0005])
            self.loop.call_later(delay, self.transport.resume_reading)


class Sender:
    """Writes data in pieces of random sizes, as the protocol's flow control allows, or not."""

    def __init__(self, transport, protocol, seed, heed):
        self.transport = transport
        self.protocol = protocol
        self.chance = random.Random(seed)
        self.heed = heed

    async def send(self, data):
        place = 0
        view = memoryview(data)
        while place < len(data):
            size = self.chance.choice([1, 17, 1000, 5000, 70_000, 300_000])
            piece = view[place : place + size]
            if self.chance.random() < 0.3:
                self.transport.writelines([piece[:7], piece[7:]] if len(piece) > 7 else [piece])
            else:
                self.transport.write(self.chance.choice([bytes, bytearray, memoryview])(piece))
            place += len(piece)
            if self.chance.random() < 0.3:
                await support.turns()
            if self.heed:
                await self.protocol.wait(self.may_write)

    def may_write(self):
        return self.protocol.events.count("pause") == self.protocol.events.count("resume")


@pytest.mark.parametrize("heed", [True, False], ids=["with flow control", "without"])
@pytest.mark.parametrize("buffers", [None, SMALL], ids=["large buffers", "small buffers"])
@pytest.mark.parametrize("seed", range(3))
async def test_both_directions_at_once(loop, kind, buffers, heed, seed):
    protocols = [Pausing(loop, seed), Pausing(loop, seed + 100)]
    data = [support.payload(1_500_000, seed), support.payload(1_000_000, seed + 100)]
    async with support.transport_pair(*protocols, kind, buffers) as transports:
        senders = [
            Sender(transport, protocol, seed + number, heed)
            for number, (transport, protocol) in enumerate(zip(transports, protocols, strict=True))
        ]
        await asyncio.gather(
            *(sender.send(part) for sender, part in zip(senders, data, strict=True))
        )
        assert hashlib.sha256(await protocols[1].wait_bytes(len(data[0]))).digest() == (
            hashlib.sha256(data[0]).digest()
        )
        assert await protocols[0].wait_bytes(len(data[1])) == data[1]
    assert all(protocol.pauses for protocol in protocols)


@pytest.mark.parametrize("buffers", [None, SMALL], ids=["large buffers", "small buffers"])
async def test_echo_of_much_data(loop, kind, buffers):
    data = support.payload(5_000_000)
    client = support.Recorder()
    async with support.transport_pair(client, support.Echo(), kind, buffers) as (transport, _):
        transport.write(data)
        assert await client.wait_bytes(len(data)) == data


async def test_many_connections_at_once(loop):
    server = await loop.create_server(support.Echo, "127.0.0.1", 0)

    async def talk(seed):
        data = support.payload(50_000, seed)
        client = support.Recorder()
        transport, _ = await loop.create_connection(
            lambda: client, "127.0.0.1", support.port_of(server)
        )
        sender = Sender(transport, client, seed, heed=True)
        await sender.send(data)
        assert await client.wait_bytes(len(data)) == data
        transport.close()
        await client.wait_event("lost")

    async with support.serving(server):
        await asyncio.gather(*(talk(seed) for seed in range(60)))


async def test_small_messages_there_and_back(loop, kind):
    class Counting(support.Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.write(data)

    client = support.Recorder()
    async with support.transport_pair(client, Counting(), kind) as (transport, _):
        for number in range(1000):
            transport.write(b"%06d" % number)
            await client.wait_bytes(6 * (number + 1))
    assert client.data == b"".join(b"%06d" % number for number in range(1000))


# Endings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 100_000, 5_000_000])
async def test_close_sends_what_was_written(loop, kind, size):
    data = support.payload(size)
    protocol = support.Recorder()
    async with support.transport_and_socket(protocol, kind, SMALL) as (transport, peer):
        transport.write(data)
        transport.close()
        assert transport.is_closing()
        assert await support.read_to_end(peer) == data
        await protocol.wait_event("lost")
    assert protocol.error is None
    assert protocol.events[0] == "made"
    assert protocol.events[-1] == "lost"


@pytest.mark.parametrize("size", [1, 100_000, 5_000_000])
async def test_write_eof_comes_after_what_was_written(loop, kind, size):
    data = support.payload(size)
    protocol = support.Recorder()
    async with support.transport_and_socket(protocol, kind, SMALL) as (transport, peer):
        transport.write(data)
        transport.write_eof()
        assert await support.read_to_end(peer) == data
        assert not transport.is_closing()
        peer.send(b"still there")
        assert await protocol.wait_bytes(11) == b"still there"


async def test_write_eof_then_close_with_data_pending(loop, kind):
    data = support.payload(3_000_000)
    protocol = support.Recorder()
    async with support.transport_and_socket(protocol, kind, SMALL) as (transport, peer):
        transport.write(data)
        transport.write_eof()
        transport.close()
        assert await support.read_to_end(peer) == data
        await protocol.wait_event("lost")
    assert protocol.error is None


async def test_abort_drops_what_was_written(loop, kind):
    data = support.payload(5_000_000)
    protocol = support.Recorder()
    async with support.transport_and_socket(protocol, kind, SMALL) as (transport, peer):
        transport.write(data)
        transport.abort()
        assert transport.get_write_buffer_size() == 0
        await protocol.wait_event("lost")
        received = await support.read_to_end(peer)
        assert len(received) < len(data)
        assert data.startswith(received)
    assert protocol.error is None


async def test_abort_after_close(loop, kind):
    """A peer that does not read would keep a closing transport for ever."""
    data = support.payload(5_000_000)
    protocol = support.Recorder()
    async with support.transport_and_socket(protocol, kind, SMALL) as (transport, _):
        transport.write(data)
        transport.close()
        await support.turns(5)
        assert "lost" not in protocol.events
        transport.abort()
        await protocol.wait_event("lost")


async def test_close_where_the_data_is_received(loop, kind):
    class Answering(support.Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.write(b"x" * 1_000_000)
            self.transport.close()

    protocol = Answering()
    async with support.transport_and_socket(protocol, kind, SMALL) as (_, peer):
        peer.send(b"question")
        assert len(await support.read_to_end(peer)) == 1_000_000
        await protocol.wait_event("lost")
    assert protocol.data == b"question"
    assert protocol.error is None


async def test_a_write_between_close_and_the_end_is_dropped(loop, kind):
    async with support.transport_and_socket(support.Recorder(), kind) as (transport, peer):
        transport.write(b"in time")
        transport.close()
        transport.write(b"too late")
        assert await support.read_to_end(peer) == b"in time"


async def test_the_peer_half_closes_while_much_is_pending(loop, kind):
    data = support.payload(3_000_000)
    protocol = support.Recorder()
    async with support.transport_and_socket(protocol, kind, SMALL) as (transport, peer):
        transport.write(data)
        peer.shutdown(socket.SHUT_WR)
        assert await support.read_to_end(peer) == data
        await protocol.wait_event("lost")
    assert protocol.error is None


async def test_nothing_is_lost_over_many_short_connections(loop):
    """Write and close at once, as HTTP/1.0 servers do."""
    data = support.payload(200_000)

    class Brief(asyncio.Protocol):
        def connection_made(self, transport):
            transport.write(data)
            transport.close()

    server = await loop.create_server(Brief, "127.0.0.1", 0)
    async with support.serving(server):
        for _ in range(50):
            client = support.Recorder()
            await loop.create_connection(lambda c=client: c, "127.0.0.1", support.port_of(server))
            await client.wait_event("lost")
            assert client.data == data


# Fairness --------------------------------------------------------------------------------------


async def test_a_fast_sender_does_not_keep_the_loop(loop, kind):
    """While one connection always has data, timers and other connections get their turns."""
    receiver, sender = support.Recorder(), support.Recorder()
    quiet, other = support.Recorder(), support.Recorder()
    going = True

    async def pump(transport):
        while going:
            transport.write(bytes(1_000_000))
            await sender.wait(lambda: sender.events.count("pause") == sender.events.count("resume"))
            await support.turns()

    async with (
        support.transport_pair(sender, receiver, kind) as (transport, _),
        support.transport_pair(quiet, other, kind) as (asking, answering),
    ):
        pumping = asyncio.ensure_future(pump(transport))
        for number in range(1, 21):
            asking.write(b"?")
            await other.wait_bytes(number)
            answering.write(b"!")
            await quiet.wait_bytes(number)
            await asyncio.sleep(0.001)
        going = False
        receiver.data.clear()
        await pumping
