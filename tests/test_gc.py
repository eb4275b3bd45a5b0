"""What must die: loops that nobody closed, and all that callbacks and connections held."""

import asyncio
import gc
import socket
import sys
import weakref

import pytest

import support


class Thing:
    """Something to hold a weak reference to."""

    def method(self, *arguments):
        pass


def test_a_loop_that_outlives_its_module(script, mioloop_only):
    """At the very end the interpreter takes modules apart, whose names are None then."""
    code = """
    import gc, mioloop._loop
    loop = new_loop()
    names = vars(mioloop._loop)
    names.update({name: None for name in names if not name.startswith("__")})
    del loop
    gc.collect()
    print("end")
    """
    assert script.check(code) == "end\n"


@pytest.mark.parametrize("debug", [False, True])
def test_a_loop_dropped_unclosed(loop_factory, debug):
    """It warns, closes its descriptors, and takes with it what was queued, cycles too."""
    descriptors = support.open_descriptors()
    loop = loop_factory()
    loop.set_debug(debug)
    queued = [Thing() for _ in range(4)]
    dead = [weakref.ref(thing) for thing in queued]
    queued[0].loop = loop
    loop.call_soon(queued[0].method, loop)
    loop.call_later(1000, queued[1].method, loop)
    loop.call_soon_threadsafe(queued[2].method, loop)
    loop.set_exception_handler(queued[3].method)
    loop.call_soon(loop.call_soon, int)
    support.spin(loop)
    loop.call_soon(queued[0].method, loop)
    gone = weakref.ref(loop)
    held = [loop, queued]
    del loop, queued
    with pytest.warns(ResourceWarning, match="^unclosed event loop <.* closed=False"):
        support.drop(held)
    assert gone() is None
    assert [reference() for reference in dead] == [None] * 4
    assert support.open_descriptors() == descriptors


def test_a_collection_while_a_loop_is_made(loop_factory):
    """A class with a dictionary: before Python 3.13 it may be made ahead of the rest."""
    model = loop_factory()
    kind = type("Loop", (type(model),), {})
    model.close()
    taken = []
    before = gc.get_threshold()
    try:
        for number in range(40):
            gc.set_threshold(1 + number % 10)
            # Python keeps so many dictionaries for later; making others can start a collection.
            taken.extend({} for _ in range(100))
            loop = kind()
            loop.number = number
            loop.call_soon(loop.stop)
            loop.run_forever()
            loop.close()
    finally:
        gc.set_threshold(*before)


def test_a_loop_dropped_with_watchers(loop_factory):
    ours, theirs = support.socket_pair("unix")
    descriptors = support.open_descriptors()
    with ours, theirs:
        thing = Thing()
        loop = thing.loop = loop_factory()
        dead = weakref.ref(thing)
        loop.add_reader(ours, thing.method, loop)
        loop.add_writer(ours, thing.method, loop)
        held = [loop, thing]
        del loop, thing
        with pytest.warns(ResourceWarning, match="^unclosed event loop "):
            support.drop(held)
        assert dead() is None
        assert support.open_descriptors() == descriptors


def test_a_closed_loop_holds_nothing(new_loop):
    loop = new_loop()
    things = [Thing() for _ in range(3)]
    dead = [weakref.ref(thing) for thing in things]
    ours, theirs = support.socket_pair("unix")
    loop.call_soon(things[0].method)
    loop.call_later(1000, things[1].method)
    loop.add_reader(ours, things[2].method)
    loop.remove_reader(ours)
    loop.close()
    ours.close()
    theirs.close()
    del things
    gc.collect()
    assert [reference() for reference in dead] == [None] * 3


def test_a_closed_loop_dies_without_a_warning(loop_factory):
    loop = loop_factory()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    gone = weakref.ref(loop)
    del loop
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("delay", [0, 1000])
def test_what_a_timer_holds_dies_with_it(loop, delay):
    """Also if the program lets go of the timer long after it ran, or was cancelled."""
    things = [Thing() for _ in range(3)]
    dead = [weakref.ref(thing) for thing in things]
    timers = [loop.call_later(delay, thing.method, thing) for thing in things]
    support.spin(loop, 2)
    timers[0].cancel()
    del things
    assert dead[0]() is None
    assert None not in (dead[1](), dead[2]())
    if delay:
        timers[1].cancel()
        assert dead[1]() is None
        timers[2].cancel()
    timers.clear()
    assert [reference() for reference in dead] == [None] * 3
    again = [loop.call_later(1000, int) for _ in range(3)]
    assert not any(timer.cancelled() for timer in again)


@pytest.mark.parametrize("closes", [True, False])
def test_timers_that_outlive_their_loop(loop_factory, closes):
    loop = loop_factory()
    thing = Thing()
    thing.timers = [loop.call_later(0, thing.method, thing) for _ in range(10)]
    thing.timers += [loop.call_later(1000, thing.method, loop) for _ in range(10)]
    support.spin(loop, 2)
    gone = weakref.ref(loop)
    dead = weakref.ref(thing)
    held = [thing, list(thing.timers)]
    if closes:
        loop.close()
        del loop, thing
        support.drop(held)
    else:
        held.append(loop)
        del loop, thing
        with pytest.warns(ResourceWarning, match="^unclosed event loop "):
            support.drop(held)
    assert (gone(), dead()) == (None, None)


async def test_cycles_through_handles_are_found(loop):
    thing = Thing()
    dead = weakref.ref(thing)
    thing.handles = [loop.call_later(0.001, thing.method, thing), loop.call_soon(thing.method)]
    await asyncio.sleep(0.002)
    del thing
    gc.collect()
    assert dead() is None


async def test_cycles_through_cancelled_handles(loop):
    thing = Thing()
    dead = weakref.ref(thing)
    thing.handle = loop.call_later(1000, thing.method, thing)
    thing.handle.cancel()
    del thing
    gc.collect()
    assert dead() is None


async def test_watchers_that_were_removed(loop):
    ours, theirs = support.socket_pair("unix")
    with ours, theirs:
        thing = Thing()
        dead = weakref.ref(thing)
        loop.add_reader(ours, thing.method)
        loop.add_writer(ours, thing.method)
        await support.turns(2)
        loop.remove_reader(ours)
        loop.remove_writer(ours)
        del thing
        await support.turns(2)
        gc.collect()
        assert dead() is None


@pytest.mark.parametrize("protocol", [support.Recorder, support.BufferedRecorder])
async def test_connections_die(loop, kind, protocol):
    """Transport and protocol refer to each other, and are gone when the connection is."""
    one, other = protocol(), protocol()
    async with support.transport_pair(one, other, kind) as (first, second):
        first.write(b"x" * 1000)
        await other.wait_bytes(1000)
        second.close()
        await one.wait_event("lost")
        await other.wait_event("lost")
        dead = [weakref.ref(thing) for thing in (one, other, first, second)]
        del one, other, first, second
    await support.turns(2)
    gc.collect()
    assert [reference() for reference in dead] == [None] * 4


async def test_a_protocol_that_was_replaced_dies(loop, kind):
    ours, theirs = support.socket_pair(kind)
    transport, old = await loop.create_connection(support.Recorder, sock=ours)
    with theirs:
        transport.set_protocol(new := support.Recorder())
        dead = weakref.ref(old)
        del old
        await support.turns(2)
        gc.collect()
        assert dead() is None
        transport.close()
        await new.wait_event("lost")


async def test_a_transport_lives_while_it_is_connected(loop, kind):
    """Nobody but the loop holds it."""
    ours, theirs = support.socket_pair(kind)
    await loop.create_connection(support.Echo, sock=ours)
    gc.collect()
    theirs.send(b"hello")
    assert await support.read_exactly(theirs, 5) == b"hello"
    theirs.close()
    await support.turns(5)


async def test_a_connection_that_only_its_program_can_use(loop, kind):
    """The peer has said all it had to say: the loop has no use for the transport any more."""
    ours, theirs = support.socket_pair(kind)
    transport, protocol = await loop.create_connection(support.Recorder, sock=ours)
    protocol.keep_open_at_eof = True
    del ours
    theirs.shutdown(socket.SHUT_WR)
    await protocol.wait_event("eof")
    await support.turns(2)
    held = [transport, protocol]
    del transport, protocol
    with pytest.warns(ResourceWarning) as caught:
        support.drop(held)
    assert messages_of(caught) == ["unclosed transport"]
    assert await support.read_to_end(theirs) == b""
    theirs.close()


async def test_a_half_closed_transport_keeps_its_descriptor(loop, kind):
    protocol = support.Recorder()
    protocol.keep_open_at_eof = True
    async with support.transport_and_socket(protocol, kind) as (transport, peer):
        fd = transport.get_extra_info("socket").fileno()
        peer.shutdown(socket.SHUT_WR)
        await protocol.wait_event("eof")
        await support.turns(2)
        with pytest.raises(RuntimeError, match="is used by transport"):
            loop.add_reader(fd, int)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_handlers_that_do_not_close(loop):
    """A server lives on when its clients close, whatever its handlers forget."""
    handled = []

    async def handle(reader, writer):
        handled.append(await reader.read())

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    descriptors = len(support.open_descriptors())
    for count in range(1, 11):
        _, writer = await asyncio.open_connection("127.0.0.1", support.port_of(server))
        writer.write(b"hello")
        writer.close()
        await writer.wait_closed()
        while len(handled) < count:  # noqa: ASYNC110 - the handler says so
            await asyncio.sleep(0)
    await support.turns(5)
    for _ in range(2):
        gc.collect()
        await support.turns(5)
    assert handled == [b"hello"] * 10
    assert len(support.open_descriptors()) == descriptors
    server.close()
    await asyncio.wait_for(server.wait_closed(), 5)


async def test_much_is_written_after_the_end(loop, kind):
    """Nothing is watched while there is nothing to send, and again when there is."""
    protocol = support.Recorder()
    protocol.keep_open_at_eof = True
    async with support.transport_and_socket(protocol, kind, 4096) as (transport, peer):
        peer.shutdown(socket.SHUT_WR)
        await protocol.wait_event("eof")
        for _ in range(3):
            transport.write(bytes(500_000))
            assert len(await support.read_exactly(peer, 500_000)) == 500_000
            await support.turns(3)
        transport.write(bytes(500_000))
        transport.close()
        assert len(await support.read_to_end(peer)) == 500_000
        await protocol.wait_event("lost")
    assert protocol.error is None


async def test_written_data_is_let_go(loop, kind):
    received = support.Recorder()
    async with support.transport_pair(support.Recorder(), received, kind) as (transport, _):
        data = b"x" * 300_000
        before = sys.getrefcount(data)
        transport.write(data)
        await received.wait_bytes(300_000)
        await support.turns(2)
        assert sys.getrefcount(data) == before


def messages_of(caught):
    """The texts of the warnings that the transports and loops themselves gave."""
    texts = [str(warning.message) for warning in caught]
    return sorted(" ".join(text.split()[:2]) for text in texts if "socket.socket" not in text)


def test_transports_of_a_loop_dropped_unclosed(loop_factory):
    descriptors = support.open_descriptors()
    ours, theirs = support.socket_pair("tcp")
    loop = loop_factory()
    loop.run_until_complete(loop.create_connection(asyncio.Protocol, sock=ours))
    del ours
    with theirs:
        held = [loop]
        del loop
        with pytest.warns(ResourceWarning) as caught:
            support.drop(held)
        assert messages_of(caught) == ["unclosed event", "unclosed transport"]
    assert support.open_descriptors() == descriptors


def test_transports_of_a_loop_closed_around_them(new_loop):
    descriptors = support.open_descriptors()
    loop = new_loop()
    ours, theirs = support.socket_pair("tcp")
    transport, _ = loop.run_until_complete(loop.create_connection(asyncio.Protocol, sock=ours))
    del ours
    loop.close()
    with theirs:
        held = [transport]
        del transport
        with pytest.warns(ResourceWarning) as caught:
            support.drop(held)
        assert messages_of(caught) == ["unclosed transport"]
    assert support.open_descriptors() == descriptors


def test_servers_of_a_loop_closed_around_them(new_loop):
    descriptors = support.open_descriptors()
    loop = new_loop()
    server = loop.run_until_complete(loop.create_server(asyncio.Protocol, "127.0.0.1", 0))
    server.close()
    loop.close()
    del server
    gc.collect()
    assert support.open_descriptors() == descriptors


def test_a_server_collected_with_its_transport(new_loop):
    """In whatever order the collector empties them: the transport cannot tell the server then."""
    descriptors = support.open_descriptors()
    loop = new_loop()

    class Accepted(asyncio.Protocol):
        made = loop.create_future()

        def connection_made(self, transport):
            self.transport = transport
            self.made.set_result(self)

    server = loop.run_until_complete(loop.create_server(Accepted, "127.0.0.1", 0))
    with socket.create_connection(("127.0.0.1", support.port_of(server))):
        protocol = loop.run_until_complete(Accepted.made)
        loop.close()
        server.cycle = [server, protocol]
        protocol.server = server
        held = [server, protocol]
        del server, protocol, Accepted
        with pytest.warns(ResourceWarning):
            support.drop(held)
    assert support.open_descriptors() == descriptors


async def test_many_connections_leave_no_objects_behind(loop):
    async def work():
        server = await loop.create_server(support.Echo, "127.0.0.1", 0)
        async with support.serving(server):
            for _ in range(50):
                client = support.Recorder()
                transport, _ = await loop.create_connection(
                    lambda client=client: client, "127.0.0.1", support.port_of(server)
                )
                transport.write(b"hello")
                await client.wait_bytes(5)
                transport.close()
                await client.wait_event("lost")

    await work()
    await support.turns(5)
    gc.collect()
    before = len(gc.get_objects())
    await work()
    await support.turns(5)
    gc.collect()
    assert len(gc.get_objects()) - before < 100
