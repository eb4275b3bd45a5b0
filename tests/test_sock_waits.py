"""`loop.sock_*` while they wait: cancelled, two at once, sockets that are closed, given to others.

What a wait leaves behind is looked at in the poller itself where the system shows it.
"""

import asyncio
import contextlib
import os
import socket

import pytest

import support

HOST = "127.0.0.1"


def polled(loop):
    """The descriptors that mioloop's poller has, or None where nobody tells."""
    try:
        with open(f"/proc/self/fdinfo/{loop._poller_fileno()}") as info:
            return {int(line.split()[1]) for line in info if line.startswith("tfd:")}
    except (AttributeError, FileNotFoundError):
        return None


async def waiting(call):
    """A task of the call that waits for its socket."""
    task = asyncio.ensure_future(call)
    await support.turns(3)
    assert not task.done()
    return task


async def cancelled(task):
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.fixture
def pair(kind):
    """Two connected sockets with small buffers."""
    ours, theirs = support.socket_pair(kind, buffers=32768)
    with ours, theirs:
        yield ours, theirs


# Cancelling --------------------------------------------------------------------------------------

READS = {
    "recv": lambda loop, sock: loop.sock_recv(sock, 100),
    "recv_into": lambda loop, sock: loop.sock_recv_into(sock, bytearray(100)),
    "recvfrom": lambda loop, sock: loop.sock_recvfrom(sock, 100),
    "recvfrom_into": lambda loop, sock: loop.sock_recvfrom_into(sock, bytearray(100)),
}


@pytest.mark.parametrize("call", READS.values(), ids=READS)
async def test_a_waiting_read_is_cancelled(loop, pair, call):
    """Nothing is left registered, and the socket is as before."""
    ours, theirs = pair
    for _ in range(3):
        await cancelled(await waiting(call(loop, ours)))
        await support.turns(1)
        assert not loop.remove_reader(ours)
        registered = polled(loop)
        assert registered is None or ours.fileno() not in registered
        theirs.send(b"hello")
        assert await loop.sock_recv(ours, 100) == b"hello"


async def test_a_waiting_accept_is_cancelled(loop):
    with socket.create_server((HOST, 0)) as listener:
        listener.setblocking(False)
        await cancelled(await waiting(loop.sock_accept(listener)))
        with socket.create_connection(listener.getsockname()) as client:
            conn, address = await loop.sock_accept(listener)
            assert address == client.getsockname()
            conn.close()


@pytest.mark.parametrize("turns", range(6))
async def test_a_write_is_cancelled_at_any_time(loop, pair, turns):
    """What is sent is the beginning of the data; afterwards the socket is as before."""
    ours, theirs = pair
    data = support.payload(300_000)
    task = asyncio.ensure_future(loop.sock_sendall(ours, data))
    received = b""
    for _ in range(turns):
        await support.turns(1)
        with contextlib.suppress(BlockingIOError):
            received += theirs.recv(20_000)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert not loop.remove_writer(ours)
    ours.shutdown(socket.SHUT_WR)
    received += await support.read_to_end(theirs)
    assert len(received) < len(data)
    assert data.startswith(received)


@pytest.mark.parametrize("turns", range(5))
async def test_reads_cancelled_at_any_time_lose_nothing(loop, pair, turns, mioloop_only):
    """asyncio loses what it has read already."""
    ours, theirs = pair
    for number in range(20):
        task = asyncio.ensure_future(loop.sock_recv(ours, 10))
        await support.turns(number % 3)
        theirs.send(b"x")
        await support.turns(turns)
        task.cancel()
        await asyncio.wait([task])
        if task.cancelled():
            assert await loop.sock_recv(ours, 10) == b"x"
        else:
            assert task.result() == b"x"


@pytest.mark.parametrize("turns", range(5))
async def test_accepts_cancelled_at_any_time_lose_nothing(loop, turns, mioloop_only):
    with socket.create_server((HOST, 0)) as listener:
        listener.setblocking(False)
        task = asyncio.ensure_future(loop.sock_accept(listener))
        await support.turns(2)
        with socket.create_connection(listener.getsockname()) as client:
            await support.turns(turns)
            task.cancel()
            await asyncio.wait([task])
            if task.cancelled():
                conn, address = await loop.sock_accept(listener)
            else:
                conn, address = task.result()
                assert address == client.getsockname()
            conn.close()


async def test_time_outs(loop, pair):
    ours, theirs = pair
    for _ in range(5):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await loop.sock_recv(ours, 1)
    theirs.send(b"x")
    assert await loop.sock_recv(ours, 1) == b"x"


async def test_a_task_that_dies_while_it_waits(loop, pair):
    """As when a loop is dropped: the coroutine is closed, not cancelled."""
    ours, theirs = pair

    async def work():
        await loop.sock_recv(ours, 1)

    coroutine = work()
    assert asyncio.isfuture(coroutine.send(None))
    coroutine.close()
    theirs.send(b"x")
    assert await loop.sock_recv(ours, 1) == b"x"


# Two operations on one socket --------------------------------------------------------------------


async def test_the_newer_of_two_reads_gets_the_data(loop, pair):
    """The older one waits until it is cancelled, which does not disturb the newer one."""
    ours, theirs = pair
    older = await waiting(loop.sock_recv(ours, 10))
    newer = await waiting(loop.sock_recv(ours, 10))
    await cancelled(older)
    await support.turns(2)
    theirs.send(b"hello")
    assert await newer == b"hello"


async def test_a_reader_and_a_writer(loop, pair):
    """Each ends, or is cancelled, without the other."""
    ours, theirs = pair
    for is_read_first in (True, False):
        support.fill(ours)
        reading = await waiting(loop.sock_recv(ours, 10))
        writing = await waiting(loop.sock_sendall(ours, b"end"))
        if is_read_first:
            await cancelled(reading)
        else:
            theirs.send(b"hello")
            assert await reading == b"hello"
        support.drain(theirs)
        await writing
        support.drain(theirs)
        support.fill(ours)
        reading = await waiting(loop.sock_recv(ours, 10))
        writing = await waiting(loop.sock_sendall(ours, b"end"))
        await cancelled(writing)
        theirs.send(b"hello")
        assert await reading == b"hello"
        support.drain(theirs)


async def test_many_sockets(loop, kind):
    pairs = [support.socket_pair(kind) for _ in range(50)]

    async def echo(sock):
        while data := await loop.sock_recv(sock, 1000):
            await loop.sock_sendall(sock, data)

    async def talk(sock, number):
        for turn in range(20):
            message = b"%d-%d" % (number, turn)
            await loop.sock_sendall(sock, message)
            assert await support.read_exactly(sock, len(message)) == message
        sock.close()

    echoes = [asyncio.ensure_future(echo(ours)) for ours, _ in pairs]
    await asyncio.gather(*(talk(theirs, number) for number, (_, theirs) in enumerate(pairs)))
    await asyncio.gather(*echoes)
    for ours, _ in pairs:
        ours.close()


# Sockets that are closed, and numbers that are used again ----------------------------------------


async def test_a_socket_that_is_closed_while_somebody_waits(loop, kind):
    """Who waits is not told; whoever gets the number is not disturbed by him."""
    ours, theirs = support.socket_pair(kind)
    number = ours.fileno()
    old = await waiting(loop.sock_recv(ours, 1))
    ours.close()
    theirs.close()
    ours, theirs = support.socket_pair(kind)
    with ours, theirs:
        assert number in (ours.fileno(), theirs.fileno())
        await cancelled(old)
        for one, other in ((ours, theirs), (theirs, ours)):
            new = await waiting(loop.sock_recv(one, 1))
            other.send(b"x")
            assert await new == b"x"


@pytest.mark.parametrize("has_twin", [False, True])
async def test_a_number_that_is_used_again(loop, kind, has_twin):
    """Also while the closed socket lives on under another number."""
    twins = []
    for _ in range(10):
        ours, theirs = support.socket_pair(kind)
        with ours, theirs:
            for one, other in ((ours, theirs), (theirs, ours)):
                task = await waiting(loop.sock_recv(one, 1))
                other.send(b"x")
                assert await task == b"x"
            if has_twin:
                twins.append((ours.dup(), theirs.dup()))
    for one, other in twins:
        one.send(b"x")
        await support.turns(2)
        other.send(b"y")
        one.close()
        other.close()
        await support.turns(2)


async def test_another_object_of_the_same_socket(loop, kind):
    ours, theirs = support.socket_pair(kind)
    with theirs:
        for _ in range(5):
            task = await waiting(loop.sock_recv(ours, 1))
            theirs.send(b"x")
            assert await task == b"x"
            ours = socket.socket(fileno=ours.detach())
        ours.close()


async def test_a_number_that_becomes_a_pipe(loop):
    ours, theirs = support.socket_pair("unix")
    task = await waiting(loop.sock_recv(ours, 1))
    theirs.send(b"x")
    await task
    ours.close()
    reading, writing = os.pipe()
    counter = support.Counter(loop)
    loop.add_reader(reading, counter)
    os.write(writing, b"x")
    await counter.at(1)
    assert loop.remove_reader(reading)
    os.close(reading)
    os.close(writing)
    theirs.close()


async def test_data_that_nobody_waits_for(loop, pair):
    """Events that are for nobody are told, and the socket goes on working."""
    ours, theirs = pair
    task = await waiting(loop.sock_recv(ours, 1))
    theirs.send(b"x")
    await task
    for _ in range(3):
        theirs.send(b"y")
        await support.turns(3)
    assert await loop.sock_recv(ours, 10) == b"yyy"
    task = await waiting(loop.sock_recv(ours, 1))
    theirs.send(b"z")
    assert await task == b"z"


# Others who want the socket ----------------------------------------------------------------------


async def test_add_writer_beside_a_waiting_read(loop, pair):
    ours, theirs = pair
    task = await waiting(loop.sock_recv(ours, 10))
    counter = support.Counter(loop)
    loop.add_writer(ours, counter)
    await counter.at(2)
    theirs.send(b"hello")
    assert await task == b"hello"
    await counter.at(counter.calls + 2)
    task = await waiting(loop.sock_recv(ours, 10))
    assert loop.remove_writer(ours)
    theirs.send(b"again")
    assert await task == b"again"
    assert not loop.remove_reader(ours)
    task = await waiting(loop.sock_recv(ours, 10))
    theirs.send(b"last")
    assert await task == b"last"


async def test_a_read_takes_the_place_of_a_reader(loop, pair):
    ours, theirs = pair
    counter = support.Counter(loop)
    loop.add_reader(ours, counter)
    task = await waiting(loop.sock_recv(ours, 10))
    theirs.send(b"hello")
    assert await task == b"hello"
    assert counter.calls == 0
    assert not loop.remove_reader(ours)


async def test_a_reader_takes_the_place_of_a_read(loop, pair):
    ours, theirs = pair
    task = await waiting(loop.sock_recv(ours, 10))
    counter = support.Counter(loop)
    loop.add_reader(ours, counter)
    theirs.send(b"hello")
    await counter.at(1)
    await cancelled(task)
    await support.turns(2)
    before = counter.calls
    await counter.at(before + 1)
    assert loop.remove_reader(ours)
    assert await loop.sock_recv(ours, 10) == b"hello"


async def test_a_transport_over_a_socket_that_was_waited_for(loop, pair):
    ours, theirs = pair
    task = await waiting(loop.sock_recv(ours, 1))
    theirs.send(b"x")
    await task
    protocol = support.Recorder()
    transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
    theirs.send(b"hello")
    assert await protocol.wait_bytes(5) == b"hello"
    transport.write(b"back")
    assert await support.read_exactly(theirs, 4) == b"back"
    transport.close()
    await protocol.wait_event("lost")


async def test_the_socket_of_a_transport(loop, pair):
    """Waiting for it is refused; what needs no wait is done."""
    ours, _ = pair
    protocol = support.Recorder()
    transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
    with pytest.raises(RuntimeError, match="is used by transport"):
        await loop.sock_recv(ours, 1)
    transport.close()
    await protocol.wait_event("lost")


async def test_a_server_over_a_socket_that_was_waited_for(loop):
    with socket.create_server((HOST, 0)) as listener:
        listener.setblocking(False)
        await cancelled(await waiting(loop.sock_accept(listener)))
        task = await waiting(loop.sock_accept(listener))
        with socket.create_connection(listener.getsockname()):
            conn, _ = await task
            conn.close()
        server = await loop.create_server(support.Echo, sock=listener)
        async with support.serving(server):
            with socket.create_connection(listener.getsockname()) as client:
                client.setblocking(False)
                await loop.sock_sendall(client, b"hello")
                assert await support.read_exactly(client, 5) == b"hello"


def test_a_loop_that_is_closed_while_somebody_waits(new_loop, kind):
    ours, theirs = support.socket_pair(kind)
    loop = new_loop()
    call = loop.sock_recv(ours, 1)
    with ours, theirs:
        assert asyncio.isfuture(call.send(None))
        loop.close()
        call.close()
        other = new_loop()
        theirs.send(b"x")
        assert other.run_until_complete(other.sock_recv(ours, 1)) == b"x"
