"""`add_reader` and `add_writer` on descriptors that hang up, are closed, or are used again."""

import asyncio
import gc
import warnings
import weakref

import pytest

import support


@pytest.fixture
def pair():
    """Two connected non-blocking sockets."""
    first, second = support.socket_pair("unix")
    with first, second:
        yield first, second


async def test_peer_closes(loop, pair):
    ours, theirs = pair
    received = []
    counter = support.Counter(loop, lambda: received.append(ours.recv(10)))
    loop.add_reader(ours, counter)
    theirs.send(b"last")
    theirs.close()
    await counter.at(2)
    assert received[:2] == [b"last", b""]
    loop.remove_reader(ours)


async def test_peer_resets(loop):
    ours, theirs = support.socket_pair("tcp")
    with ours:
        reader, writer = support.Counter(loop), support.Counter(loop)
        support.fill(ours)
        loop.add_reader(ours, reader)
        loop.add_writer(ours, writer)
        support.reset(theirs)
        await reader.at(1)
        await writer.at(1)
        loop.remove_reader(ours)
        loop.remove_writer(ours)


@pytest.mark.parametrize("direction", ["reader", "writer"])
async def test_closed_behind_the_loops_back(loop, direction):
    """Nothing hangs, nothing crashes, and the registration can be taken back."""
    add, remove = getattr(loop, f"add_{direction}"), getattr(loop, f"remove_{direction}")
    ours, theirs = support.socket_pair("unix")
    fd = ours.fileno()
    add(ours, int)
    ours.close()
    theirs.close()
    await support.turns(3)
    assert remove(fd) is True
    assert remove(fd) is False
    await asyncio.sleep(0.001)


@pytest.mark.parametrize("direction", ["reader", "writer"])
async def test_an_object_is_known_when_it_is_closed(loop, direction):
    """anyio removes the reader of a socket when whoever waited is done, and may have closed it."""
    add, remove = getattr(loop, f"add_{direction}"), getattr(loop, f"remove_{direction}")
    ours, theirs = support.socket_pair("unix")
    with theirs:
        add(ours, int)
        ours.close()
        assert remove(ours) is True
        with pytest.raises(ValueError, match="Invalid file descriptor: -1"):
            remove(ours)
        with pytest.raises(ValueError, match="Invalid file descriptor: -1"):
            remove(-1)


def test_removing_what_is_closed_from_a_closed_loop(new_loop):
    loop = new_loop()
    ours, theirs = support.socket_pair("unix")
    ours.close()
    theirs.close()
    loop.close()
    assert loop.remove_reader(ours) is False
    assert loop.remove_writer(ours) is False


async def test_what_is_watched_lives(loop):
    """The loop holds the object by which a descriptor was named, until nobody watches it."""
    ours, theirs = support.socket_pair("unix")
    with theirs:
        counter = support.Counter(loop)
        loop.add_reader(ours, counter)
        fd, dead = ours.fileno(), weakref.ref(ours)
        del ours
        gc.collect()
        theirs.send(b"x")
        await counter.at(1)
        assert dead() is not None
        dead().recv(10)
        loop.add_writer(fd, int)
        assert loop.remove_reader(fd)
        assert dead() is not None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            assert loop.remove_writer(fd)
            gc.collect()
        assert dead() is None


async def test_both_directions_closed_behind_the_loops_back(loop, mioloop_only):
    """asyncio raises OSError out of the first `remove_` here, and keeps the second."""
    ours, theirs = support.socket_pair("unix")
    fd = ours.fileno()
    loop.add_reader(ours, int)
    loop.add_writer(ours, int)
    ours.close()
    theirs.close()
    await support.turns(3)
    assert loop.remove_reader(fd) is True
    assert loop.remove_writer(fd) is True
    assert loop.remove_reader(fd) is False


def test_closed_behind_the_back_of_a_loop_that_closes(new_loop):
    loop = new_loop()
    ours, theirs = support.socket_pair("unix")
    loop.add_reader(ours, int)
    ours.close()
    theirs.close()
    support.spin(loop)
    loop.close()


async def test_a_number_used_again(loop):
    """The next socket gets the number of the one that was closed, many times over."""
    numbers = set()
    for turn in range(50):
        ours, theirs = support.socket_pair("unix")
        numbers.add(ours.fileno())
        counter = support.Counter(loop, lambda ours=ours: ours.recv(10))
        loop.add_reader(ours, counter)
        theirs.send(b"x")
        await counter.at(1)
        if turn % 2:
            theirs.send(b"unread")
        assert loop.remove_reader(ours)
        ours.close()
        theirs.close()
    assert len(numbers) < 10


async def test_events_of_a_closed_descriptor_do_not_reach_its_successor(loop):
    """Of two ready descriptors, one's callback closes the other and uses its number again."""
    pairs = [support.socket_pair("unix") for _ in range(2)]
    replaced = []

    def replace(number):
        mine, other = pairs[number][0], pairs[1 - number][0]
        mine.recv(10)
        loop.remove_reader(mine)
        loop.remove_reader(other)
        fd = other.fileno()
        other.close()
        successor, peer = support.socket_pair("unix")
        replaced.extend((successor, peer))
        assert fd in (successor.fileno(), peer.fileno())
        loop.add_reader(successor, counter)
        loop.add_reader(peer, counter)

    counter = support.Counter(loop)
    for number, (ours, theirs) in enumerate(pairs):
        loop.add_reader(ours, replace, number)
        theirs.send(b"x")
    while not replaced:
        await support.turns()
    await support.turns(5)
    assert counter.calls == 0
    for sock in replaced:
        assert loop.remove_reader(sock)
    for sock in [*pairs[0], *pairs[1], *replaced]:
        sock.close()


async def test_a_descriptor_that_lives_on_as_a_copy(loop, mioloop_only):
    """The kernel goes on reporting the closed number for the copy; its successor hears nothing."""
    ours, theirs = support.socket_pair("unix")
    fd = ours.fileno()
    copy = ours.dup()
    loop.add_reader(fd, int)
    ours.close()
    successor, peer = support.socket_pair("unix")
    loop.remove_reader(fd)
    counter = support.Counter(loop)
    loop.add_reader(successor, counter)
    loop.add_reader(peer, counter)
    theirs.send(b"x")
    await asyncio.sleep(0.01)
    assert counter.calls == 0
    for sock in (successor, peer):
        loop.remove_reader(sock)
    for sock in (copy, theirs, successor, peer):
        sock.close()
