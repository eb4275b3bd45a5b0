"""`add_reader` and `add_writer`: level-triggered, for descriptors and for objects that have one."""

import contextvars
import errno
import os
import pty
import socket
import tempfile

import pytest

import support


@pytest.fixture
def pair():
    """Two connected non-blocking sockets."""
    first, second = support.socket_pair("unix")
    with first, second:
        yield first, second


@pytest.fixture
def pipe():
    """The reading and the writing end of a pipe, as files."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    with open(reading, "rb", 0) as reader, open(writing, "wb", 0) as writer:
        yield reader, writer


@pytest.fixture
def terminal():
    """The controlling end and the terminal itself, as files."""
    controlling, slave = pty.openpty()
    with open(controlling, "rb+", 0) as controller, open(slave, "rb+", 0) as terminal:
        yield controller, terminal


# What is called when -------------------------------------------------------------------------


async def test_reader_is_called_while_there_is_data(loop, pair):
    """Level-triggered: one byte is taken at a time, and no byte may wait for the next to come."""
    ours, theirs = pair
    received = []
    counter = support.Counter(loop, lambda: received.append(ours.recv(1)))
    loop.add_reader(ours, counter)
    theirs.send(b"abcde")
    await counter.at(5)
    await support.turns(5)
    assert received == [b"a", b"b", b"c", b"d", b"e"]
    theirs.send(b"f")
    await counter.at(6)
    loop.remove_reader(ours)


async def test_reader_that_does_not_read_is_called_again(loop, pair):
    ours, theirs = pair
    counter = support.Counter(loop)
    loop.add_reader(ours, counter)
    theirs.send(b"x")
    await counter.at(10)
    ours.recv(10)
    loop.remove_reader(ours)


async def test_reader_of_data_that_was_there_before(loop, pair):
    ours, theirs = pair
    theirs.send(b"x")
    counter = support.Counter(loop, lambda: ours.recv(1))
    loop.add_reader(ours, counter)
    await counter.at(1)
    loop.remove_reader(ours)


async def test_writer_is_called_while_there_is_room(loop, pair):
    ours, theirs = pair
    counter = support.Counter(loop)
    loop.add_writer(ours, counter)
    await counter.at(5)
    support.fill(ours)
    full = counter.calls
    await support.turns(5)
    assert counter.calls <= full + 1
    support.drain(theirs)
    await counter.at(full + 5)
    loop.remove_writer(ours)


async def test_both_directions_of_one_descriptor(loop, pair):
    """An event for both directions serves both."""
    ours, theirs = pair
    support.fill(ours)
    reader = support.Counter(loop, lambda: ours.recv(10))
    writer = support.Counter(loop)
    loop.add_reader(ours, reader)
    loop.add_writer(ours, writer)
    support.drain(theirs)
    theirs.send(b"x")
    await reader.at(1)
    await writer.at(3)
    assert loop.remove_reader(ours) is True
    calls = writer.calls
    theirs.send(b"y")
    await writer.at(calls + 3)
    assert reader.calls == 1
    assert loop.remove_writer(ours) is True
    calls = writer.calls
    await support.turns(5)
    assert writer.calls <= calls


async def test_what_the_reader_is_called_with(loop, pair):
    ours, theirs = pair
    arguments = (1, "two", None)
    counter = support.Counter(loop, lambda: ours.recv(1))
    assert loop.add_reader(ours, counter, *arguments) is None
    theirs.send(b"x")
    await counter.at(1)
    assert counter.arguments == arguments
    writer = support.Counter(loop)
    assert loop.add_writer(ours, writer, *arguments[:1]) is None
    await writer.at(2)
    assert writer.arguments == (1,)
    loop.remove_reader(ours)
    loop.remove_writer(ours)


async def test_called_in_the_context_of_the_adding(loop, pair):
    ours, theirs = pair
    variable = contextvars.ContextVar("variable", default="unset")
    seen = []

    def look():
        ours.recv(10)
        seen.append(variable.get())

    variable.set("adding")
    counter = support.Counter(loop, look)
    loop.add_reader(ours, counter)
    variable.set("changed")
    theirs.send(b"x")
    await counter.at(1)
    assert seen == ["adding"]
    loop.remove_reader(ours)


async def test_adding_again_replaces(loop, pair):
    ours, theirs = pair
    old, new = support.Counter(loop), support.Counter(loop, lambda: ours.recv(1))
    loop.add_reader(ours, old)
    loop.add_reader(ours, new)
    theirs.send(b"x")
    await new.at(1)
    assert old.calls == 0
    assert loop.remove_reader(ours) is True
    assert loop.remove_reader(ours) is False


async def test_a_failing_reader_is_reported_and_stays(loop, pair, reports):
    ours, theirs = pair

    def fail():
        ours.recv(1)
        raise ValueError("on purpose")

    loop.add_reader(ours, fail)
    theirs.send(b"ab")
    while len(reports.contexts) < 2:
        await support.turns()
    for context in reports.take():
        assert context["message"].startswith("Exception in callback ")
        assert isinstance(context["exception"], ValueError)
    assert loop.remove_reader(ours)


async def test_many_descriptors(loop):
    pairs = [support.socket_pair("unix") for _ in range(300)]
    seen = set()
    finished = loop.create_future()

    def read(number):
        assert pairs[number][0].recv(10) == b"%d" % number
        seen.add(number)
        if len(seen) == len(pairs):
            finished.set_result(None)

    for number, (ours, _) in enumerate(pairs):
        loop.add_reader(ours, read, number)
    for number, (_, theirs) in enumerate(pairs):
        theirs.send(b"%d" % number)
    await finished
    for ours, theirs in pairs:
        assert loop.remove_reader(ours)
        ours.close()
        theirs.close()


# What can be watched -------------------------------------------------------------------------


async def test_descriptors_and_objects_are_the_same_thing(loop, pair):
    """grpc and others pass sockets, and may remove by the number."""
    ours, theirs = pair
    counter = support.Counter(loop, lambda: ours.recv(1))
    loop.add_reader(ours.fileno(), counter)
    theirs.send(b"x")
    await counter.at(1)
    assert loop.remove_reader(ours) is True
    loop.add_writer(ours, counter)
    assert loop.remove_writer(ours.fileno()) is True
    assert loop.remove_writer(ours) is False


async def test_pipes(loop, pipe):
    reading, writing = pipe
    writer = support.Counter(loop)
    loop.add_writer(writing, writer)
    await writer.at(3)
    loop.remove_writer(writing)
    received = []
    reader = support.Counter(loop, lambda: received.append(reading.read(10)))
    loop.add_reader(reading, reader)
    writing.write(b"x")
    await reader.at(1)
    writing.close()
    await reader.at(2)
    assert received == [b"x", b""]
    loop.remove_reader(reading)


async def test_a_pipe_whose_reader_went_away(loop, pipe):
    reading, writing = pipe
    counter = support.Counter(loop)
    while writing.write(b"x" * 65536):
        pass
    loop.add_writer(writing, counter)
    await support.turns(3)
    assert counter.calls == 0
    reading.close()
    await counter.at(3)
    loop.remove_writer(writing)


async def test_a_terminal(loop, terminal):
    """One descriptor, watched for both directions, as line editors do."""
    controller, terminal = terminal
    received = []
    reader = support.Counter(loop, lambda: received.append(terminal.read(100)))
    writer = support.Counter(loop)
    loop.add_reader(terminal, reader)
    loop.add_writer(terminal, writer)
    controller.write(b"line\n")
    await reader.at(1)
    await writer.at(2)
    assert received == [b"line\n"]
    loop.remove_reader(terminal)
    loop.remove_writer(terminal)


async def test_datagram_sockets(loop):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        counter = support.Counter(loop, lambda: sock.recv(10))
        loop.add_reader(sock, counter)
        sock.sendto(b"", sock.getsockname())
        await counter.at(1)
        loop.remove_reader(sock)


async def test_a_listening_socket(loop):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepted = []
        counter = support.Counter(loop, lambda: accepted.append(listener.accept()[0]))
        loop.add_reader(listener, counter)
        with socket.create_connection(listener.getsockname()):
            await counter.at(1)
        loop.remove_reader(listener)
        accepted[0].close()


def test_regular_files_are_refused(loop):
    """Standard streams redirected to a file: programs catch PermissionError, and go on."""
    with tempfile.TemporaryFile() as file:
        for add, remove in (
            (loop.add_reader, loop.remove_reader),
            (loop.add_writer, loop.remove_writer),
        ):
            with pytest.raises(PermissionError) as caught:
                add(file, int)
            assert caught.value.errno == errno.EPERM
            assert remove(file) is False
    support.spin(loop, 3)


# Removing ------------------------------------------------------------------------------------


def test_removing_what_is_not_there(loop, pair):
    ours, _ = pair
    assert loop.remove_reader(ours) is False
    assert loop.remove_writer(ours) is False
    assert loop.remove_reader(10_000) is False
    loop.add_reader(ours, int)
    assert loop.remove_writer(ours) is False
    assert loop.remove_reader(ours) is True
    assert loop.remove_reader(ours) is False


async def test_removed_in_its_own_callback(loop, pair):
    ours, theirs = pair
    counter = support.Counter(loop, lambda: loop.remove_reader(ours))
    loop.add_reader(ours, counter)
    theirs.send(b"x")
    await counter.at(1)
    await support.turns(5)
    assert counter.calls == 1


async def test_removed_by_another_callback_of_the_turn(loop):
    """Both are ready; whichever comes first silences the other."""
    pairs = [support.socket_pair("unix") for _ in range(2)]
    called = []

    def silence(number):
        called.append(number)
        for ours, _ in pairs:
            loop.remove_reader(ours)

    for number, (ours, theirs) in enumerate(pairs):
        loop.add_reader(ours, silence, number)
        theirs.send(b"x")
    while not called:
        await support.turns()
    await support.turns(5)
    assert len(called) == 1
    for sock in [*pairs[0], *pairs[1]]:
        sock.close()


async def test_added_again_in_its_own_callback(loop, pair):
    ours, theirs = pair

    def again():
        loop.remove_reader(ours)
        if counter.calls < 50:
            loop.add_reader(ours, counter)

    counter = support.Counter(loop, again)
    loop.add_reader(ours, counter)
    theirs.send(b"x")
    await counter.at(50)
    assert loop.remove_reader(ours) is False


async def test_swapping_directions(loop, pair):
    """A state machine, as TLS over sockets is, that wants one direction at a time."""
    ours, theirs = pair
    echoed = bytearray()

    def readable():
        data.extend(ours.recv(7))
        loop.remove_reader(ours)
        loop.add_writer(ours, writable)

    def writable():
        ours.send(data)
        data.clear()
        loop.remove_writer(ours)
        loop.add_reader(ours, readable)

    data = bytearray()
    loop.add_reader(ours, readable)
    theirs.send(bytes(range(256)))
    while len(echoed) < 256:
        echoed += await loop.sock_recv(theirs, 256)
    assert echoed == bytes(range(256))
    loop.remove_reader(ours)


def test_what_is_ready_when_the_loop_is_stopped(loop, pair):
    """Events and timers of the turn that stops the loop are not left for the next run."""
    ours, peer = pair
    seen = []
    done = loop.create_future()

    def begin():
        # In a turn after a sleep; the callback of the future stops the loop in the next one.
        peer.send(b"x")
        loop.add_reader(ours, read)
        loop.call_at(loop.time() - 1, seen.append, "timer")
        done.set_result(None)
        loop.call_soon(in_the_last_turn)

    def read():
        ours.recv(1)
        loop.remove_reader(ours)
        seen.append("read")
        loop.call_soon(seen.append, "after the read")

    def in_the_last_turn():
        loop.call_soon(seen.append, "next run")

    loop.call_later(0.01, begin)
    loop.run_until_complete(done)
    assert seen == ["read", "timer"]
    support.spin(loop)
    assert seen == ["read", "timer", "next run", "after the read"]
