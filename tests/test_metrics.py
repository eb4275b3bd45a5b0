"""What a loop tells about itself: `loop.metrics()`."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import os
import socket
import tempfile
import threading
import weakref

import pytest

import support

pytestmark = pytest.mark.usefixtures("mioloop_only")


def test_a_new_loop_has_done_nothing(loop_factory):
    loop = loop_factory()
    try:
        assert set(loop.metrics()) == {0}
    finally:
        loop.close()


def test_a_snapshot_does_not_change(loop):
    before = loop.metrics()
    support.spin(loop, 3)
    after = loop.metrics()
    assert after.turns > before.turns
    assert before.turns == 0
    with pytest.raises(AttributeError):
        after.turns = 0
    assert after._asdict().keys() == {
        *("turns", "callbacks", "polling", "running", "deepest", "timers"),
        *("descriptors", "transports", "bytes_read", "bytes_written", "threads"),
    }


def test_turns_and_callbacks(loop):
    def count_down(left):
        if left:
            loop.call_soon(count_down, left - 1)
        else:
            loop.stop()

    loop.call_soon(count_down, 9)
    loop.run_forever()
    metrics = loop.metrics()
    assert (metrics.turns, metrics.callbacks, metrics.deepest) == (10, 10, 1)


def test_a_burst_is_one_turn(loop):
    for _ in range(100):
        loop.call_soon(int)
    loop.call_soon(loop.stop)
    loop.run_forever()
    metrics = loop.metrics()
    assert (metrics.turns, metrics.callbacks, metrics.deepest) == (1, 101, 101)


def test_what_an_exit_left_counts_once(loop):
    def leave():
        raise SystemExit

    loop.call_soon(leave)
    loop.call_soon(int)
    loop.call_soon(loop.stop)
    with pytest.raises(SystemExit):
        loop.run_forever()
    assert loop.metrics().callbacks == 1
    loop.run_forever()
    assert loop.metrics().callbacks == 3


def test_times_add_up(loop):
    """Sleeps are counted in ticks of the kernel's clock, of 10 ms at most."""

    async def sleep_and_work():
        await asyncio.sleep(0.05)
        start = loop.time()
        while loop.time() < start + 0.05:
            pass

    start = loop.time()
    loop.run_until_complete(sleep_and_work())
    passed = loop.time() - start
    metrics = loop.metrics()
    # On a slow machine a good part of the time goes by before the loop is asleep.
    assert metrics.polling > 0
    assert metrics.running >= 0.04
    assert 0.099 <= metrics.polling + metrics.running <= passed
    # A loop that does not run spends nothing.
    after = loop.metrics()
    assert (after.polling, after.running) == (metrics.polling, metrics.running)


async def test_a_run_under_way_counts(loop):
    start = loop.time()
    begin = loop.metrics()
    while loop.time() < start + 0.02:
        pass
    assert loop.metrics().running - begin.running >= 0.019


def test_a_wait_under_way_counts_from_another_thread(loop):
    seen = []

    def look():
        seen.append(support.wait_until(lambda: loop.metrics().polling > 0.02))
        seen.append(loop.metrics().turns)
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=look)
    loop.call_soon(thread.start)
    loop.run_forever()
    thread.join()
    assert seen == [True, 1]


async def test_timers(loop):
    timers = [loop.call_later(60 + number, int) for number in range(5)]
    before = loop.metrics().timers
    timers[0].cancel()
    timers[4].cancel()
    assert loop.metrics().timers == before - 2
    for timer in timers:
        timer.cancel()


async def test_descriptors(loop):
    one, other = socket.socketpair()
    with one, other:
        before = loop.metrics().descriptors
        loop.add_reader(one, int)
        loop.add_writer(one, int)
        assert loop.metrics().descriptors == before + 1
        loop.remove_reader(one)
        loop.remove_writer(one)
        assert loop.metrics().descriptors == before


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_streams(loop, kind):
    before = loop.metrics()
    first, second = support.Recorder(), support.Recorder()
    async with support.transport_pair(first, second, kind) as (one, other):
        assert loop.metrics().transports == 2
        data = support.payload(300_000)
        one.write(data)
        other.writelines([b"abc", bytearray(b"de")])
        assert await second.wait_bytes(len(data)) == data
        assert await first.wait_bytes(5) == b"abcde"
        after = loop.metrics()
        assert after.bytes_written - before.bytes_written == len(data) + 5
        assert after.bytes_read - before.bytes_read == len(data) + 5
    assert loop.metrics().transports == 0


async def test_asyncio_streams_and_buffered_protocols(loop):
    ours, theirs = support.socket_pair("tcp")
    reader, writer = await asyncio.open_connection(sock=ours)
    protocol = support.BufferedRecorder()
    transport, _ = await loop.create_connection(lambda: protocol, sock=theirs)
    transport.write(b"1234567")
    assert await reader.readexactly(7) == b"1234567"
    writer.write(b"89")
    await protocol.wait_bytes(2)
    metrics = loop.metrics()
    assert (metrics.bytes_read, metrics.bytes_written, metrics.transports) == (9, 9, 2)
    writer.close()
    transport.close()
    await writer.wait_closed()
    await protocol.wait_event("lost")
    assert loop.metrics().transports == 0


def test_a_transport_that_nobody_closed(loop):
    async def leave():
        ours, theirs = support.socket_pair("unix")
        with theirs:
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
            assert loop.metrics().transports == 1
            return weakref.ref(transport)

    transport = loop.run_until_complete(leave())
    loop.run_until_complete(asyncio.sleep(0))
    support.finish(loop)
    gc.collect()
    assert transport() is None
    assert loop.metrics().transports == 0


@pytest.mark.parametrize("count", [1, 40])
async def test_datagrams(loop, count):
    class Counting(asyncio.DatagramProtocol):
        left = count
        done = loop.create_future()

        def datagram_received(self, data, addr):
            Counting.left -= 1
            if not Counting.left:
                Counting.done.set_result(None)

    receiver, _ = await loop.create_datagram_endpoint(Counting, ("127.0.0.1", 0))
    address = receiver.get_extra_info("sockname")
    sender, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=address)
    assert loop.metrics().transports == 2
    for _ in range(count):
        sender.sendto(b"12345")
    await Counting.done
    metrics = loop.metrics()
    assert (metrics.bytes_read, metrics.bytes_written) == (5 * count, 5 * count)
    sender.close()
    receiver.close()
    await support.turns(3)
    assert loop.metrics().transports == 0


async def test_pipes(loop):
    read_end, write_end = os.pipe()
    protocol = support.Recorder()
    writer, _ = await loop.connect_write_pipe(asyncio.Protocol, os.fdopen(write_end, "wb", 0))
    await loop.connect_read_pipe(lambda: protocol, os.fdopen(read_end, "rb", 0))
    assert loop.metrics().transports == 2
    data = support.payload(200_000)
    writer.write(data)
    await protocol.wait_bytes(len(data))
    metrics = loop.metrics()
    assert (metrics.bytes_read, metrics.bytes_written) == (len(data), len(data))
    writer.close()
    await protocol.wait_event("lost")
    await support.turns(2)
    assert loop.metrics().transports == 0


async def test_sock_calls(loop):
    one, other = support.socket_pair("tcp")
    with one, other:
        await loop.sock_sendall(one, b"x" * 1000)
        assert len(await loop.sock_recv(other, 600)) == 600
        assert await loop.sock_recv_into(other, bytearray(600)) == 400
    metrics = loop.metrics()
    assert (metrics.bytes_read, metrics.bytes_written) == (1000, 1000)


async def test_sock_calls_with_addresses(loop):
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
        await loop.sock_sendto(sock, b"abc", sock.getsockname())
        await loop.sock_sendto(sock, b"de", sock.getsockname())
        assert (await loop.sock_recvfrom(sock, 10))[0] == b"abc"
        assert (await loop.sock_recvfrom_into(sock, bytearray(10)))[0] == 2
    metrics = loop.metrics()
    assert (metrics.bytes_read, metrics.bytes_written) == (5, 5)


async def test_sendfile(loop):
    protocol = support.Recorder()
    async with support.transport_and_socket(protocol) as (transport, sock):
        with tempfile.TemporaryFile() as file:
            file.write(b"x" * 5000)
            file.flush()
            assert await loop.sendfile(transport, file) == 5000
        assert len(await support.read_exactly(sock, 5000)) == 5000
    metrics = loop.metrics()
    assert (metrics.bytes_read, metrics.bytes_written) == (5000, 5000)


async def test_threads_of_the_default_executor(loop):
    assert loop.metrics().threads == 0
    await loop.run_in_executor(None, int)
    assert loop.metrics().threads == 1
    await loop.shutdown_default_executor()
    assert loop.metrics().threads == 0


async def test_threads_of_an_executor_of_the_user_s(loop):
    loop.set_default_executor(concurrent.futures.ThreadPoolExecutor())
    await loop.run_in_executor(None, int)
    assert loop.metrics().threads == 1


def test_a_closed_loop_still_tells(loop_factory):
    loop = loop_factory()
    loop.run_until_complete(asyncio.sleep(0))
    turns = loop.metrics().turns
    loop.close()
    metrics = loop.metrics()
    assert turns > 0
    assert (metrics.turns, metrics.timers, metrics.descriptors) == (turns, 0, 0)


def test_no_loop_is_kept(loop_factory):
    loop = loop_factory()
    loop.close()
    gone = weakref.ref(loop)
    del loop
    assert gone() is None
