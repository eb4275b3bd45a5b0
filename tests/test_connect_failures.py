"""`create_connection` that comes to nothing: failures, and what is given up half-way."""

import asyncio
import contextlib
import errno
import gc
import os
import re
import resource
import socket
import sys

import pytest

import support

HOST = "127.0.0.1"

full_backlogs = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux lets a connect wait for a full backlog"
)


# Failures ------------------------------------------------------------------------------------


async def failure(loop, *arguments, **keywords):
    return await support.outcome_of(
        lambda: loop.create_connection(support.Recorder, *arguments, **keywords)
    )


def test_refused(loop, model, refusing):
    expected = model.run_until_complete(failure(model, *refusing))
    assert expected[0] is ConnectionRefusedError
    assert loop.run_until_complete(failure(loop, *refusing)) == expected


@pytest.mark.parametrize(
    "arguments",
    [
        ("255.255.255.255", 80),
        ("224.0.0.1", 80),
        ("::ffff:255.255.255.255", 80),
        ("fe80::1", 80),
        (HOST, 80, socket.AF_INET6),
        ("::1", 80, socket.AF_INET),
        (HOST, 80, socket.AF_UNIX),
        (HOST, 80.0),
        (HOST, None),
        (None, 0),
        ("", 0),
    ],
)
def test_places_where_nobody_can_be(loop, model, arguments):
    keywords = {"family": arguments[2]} if len(arguments) > 2 else {}
    expected = model.run_until_complete(failure(model, *arguments[:2], **keywords))
    assert expected[0] is not None
    assert loop.run_until_complete(failure(loop, *arguments[:2], **keywords)) == expected


@pytest.mark.parametrize("host", [HOST, "::1", "localhost"])
def test_refused_by_every_address_of_a_name(loop, model, refusing, host):
    expected = model.run_until_complete(failure(model, host, refusing[1]))
    assert issubclass(expected[0], OSError)
    assert loop.run_until_complete(failure(loop, host, refusing[1])) == expected


def test_refused_errors_have_their_number(loop, refusing):
    with pytest.raises(ConnectionRefusedError) as caught:
        loop.run_until_complete(loop.create_connection(support.Recorder, *refusing))
    assert caught.value.errno is not None


@pytest.mark.parametrize(
    "arguments", [(HOST, "no such service"), ("no such host", 80), (HOST, 100_000), (HOST, -1)]
)
def test_names_that_mean_nothing(loop, model, arguments):
    expected = model.run_until_complete(failure(model, *arguments))
    assert expected[0] in (socket.gaierror, OverflowError)
    assert loop.run_until_complete(failure(loop, *arguments)) == expected


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
async def test_a_factory_that_fails(loop, listener):
    """asyncio leaves the socket to the collector, with a warning."""

    def fail():
        raise LookupError("no protocol")

    with pytest.raises(LookupError, match="no protocol"):
        await loop.create_connection(fail, *listener.getsockname())


async def test_a_socket_that_is_not_connected(loop, kind):
    """Writing to it fails; the transport ends with the error."""
    family = socket.AF_INET if kind == "tcp" else socket.AF_UNIX
    transport, protocol = await loop.create_connection(
        support.Recorder, sock=socket.socket(family, socket.SOCK_STREAM)
    )
    transport.write(b"data")
    await protocol.wait_event("lost")
    assert protocol.error is None or isinstance(protocol.error, OSError)


async def test_a_file_that_is_no_socket(loop):
    with pytest.raises((AttributeError, TypeError, ValueError)):
        await loop.create_connection(support.Recorder, sock=sys.stdin)


@pytest.mark.parametrize(
    "keywords",
    [
        {"server_hostname": "name"},
        {"ssl_handshake_timeout": 1.0},
        {"ssl_shutdown_timeout": 1.0},
        {"sock": 5},
        {"sock": False},
        {"flags": socket.AI_NUMERICHOST, "host": "localhost"},
        {"family": -1},
        {"family": "2"},
        {"proto": -1},
        {"local_addr": ("::1", 0)},
        {"local_addr": ("192.0.2.1", 0)},
        {"interleave": 1},
        {"happy_eyeballs_delay": 0.1},
        {"happy_eyeballs_delay": 0.1, "host": "localhost"},
        {"host": "::1%lo"},
        {"host": "fe80::1%lo"},
        {"host": "fe80::1%no such device"},
        {"host": "127.1"},
        {"host": b"0::1"},
        {"host": bytearray(b"127.0.0.1")},
        {"host": 127},
        {"host": None},
        {"port": None},
        {"port": "1"},
        {"port": b"1"},
        {"port": True},
        {"port": "-1"},
        {"port": "tcpmux"},
        {"port": "tcpmux", "host": "localhost"},
        {"host": ("127.0.0.1", 1)},
        {"host": "127.0.0.1\0"},
        {"host": "a" * 64 + ".invalid"},
        {"host": ".", "flags": socket.AI_NUMERICHOST},
    ],
    ids=repr,
)
def test_wrong_arguments(loop, model, keywords):
    """Whatever they are, the error is asyncio's."""
    keywords = {"host": HOST, "port": 1} | keywords
    expected = model.run_until_complete(failure(model, **keywords))
    assert expected[0] is not None
    assert loop.run_until_complete(failure(loop, **keywords)) == expected


@pytest.mark.parametrize("host", [HOST, "localhost"])
def test_a_loop_that_is_closed(new_loop, model, host):
    own = new_loop()
    own.close()
    model.close()
    with pytest.raises(RuntimeError) as expected:
        model.create_connection(support.Recorder, host, 1).send(None)
    with pytest.raises(RuntimeError) as caught:
        own.create_connection(support.Recorder, host, 1).send(None)
    assert str(caught.value) == str(expected.value)


async def test_no_descriptor_is_left(loop, listener):
    """The error is the system's; the next attempt succeeds."""
    with few_descriptors(), pytest.raises(OSError, match="Too many open files") as caught:
        await loop.create_connection(support.Recorder, *listener.getsockname())
    assert caught.value.errno == errno.EMFILE
    async with support.connected(*listener.getsockname()):
        pass


@contextlib.contextmanager
def few_descriptors():
    """Every number for a descriptor is taken."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(support.open_descriptors()) + 1, limits[1]))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        yield
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("host", [HOST, "localhost"])
def test_errors_keep_nothing_alive(new_loop, refusing, host, mioloop_only):
    """Nor does what they were caught in: the collector has nothing to do."""
    own = new_loop()

    async def attempt():
        with contextlib.suppress(OSError):
            await own.create_connection(support.Recorder, host, refusing[1])

    own.run_until_complete(attempt())
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            own.run_until_complete(attempt())
        assert gc.collect() == 0
    finally:
        gc.enable()


# Given up half-way ---------------------------------------------------------------------------


@full_backlogs
async def test_cancelled_while_it_waits(loop, deaf):
    """Its descriptor is closed once: one that took the number since stays open."""
    for number in range(20):
        task = asyncio.ensure_future(loop.create_connection(support.Recorder, *deaf))
        await support.turns(3 + number % 3)
        assert not task.done()
        task.cancel()
        successors = []
        for _ in range(5):
            await support.turns()
            successors.extend(os.pipe())
        with pytest.raises(asyncio.CancelledError):
            await task
        await support.turns(3)
        for fd in successors:
            os.close(fd)


@full_backlogs
@pytest.mark.parametrize("is_refused", [False, True])
async def test_an_answer_after_a_while(loop, is_refused):
    """The kernel asks again after a second."""
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind((HOST, 0))
        full.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        place = full.getsockname()
        task = asyncio.ensure_future(loop.create_connection(support.Recorder, *place))
        await support.turns(3)
        assert not task.done()
        if is_refused:
            full.close()
            with pytest.raises(ConnectionRefusedError, match=re.escape(f"call failed {place}")):
                await task
            return
        full.setblocking(False)
        while not task.done():
            with contextlib.suppress(BlockingIOError):
                stack.enter_context(full.accept()[0])
            await asyncio.sleep(0.001)
        transport, protocol = await task
        assert transport.get_extra_info("peername") == place
        transport.close()
        await protocol.wait_event("lost")


@full_backlogs
async def test_timed_out(loop, deaf):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await loop.create_connection(support.Recorder, *deaf)


@full_backlogs
async def test_a_waiting_sock_connect_is_cancelled(loop, deaf):
    with socket.socket() as sock:
        sock.setblocking(False)
        task = asyncio.ensure_future(loop.sock_connect(sock, deaf))
        await support.turns(3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert loop.remove_writer(sock) is False


@full_backlogs
def test_a_loop_that_ends_while_connecting(new_loop, deaf):
    loop = new_loop()
    task = loop.create_task(loop.create_connection(support.Recorder, *deaf))
    support.spin(loop, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()


@pytest.mark.parametrize("turns", range(12))
async def test_cancelled_at_every_stage(loop, turns):
    """However far it came, nothing stays open at either end."""
    made = []

    def factory():
        made.append(support.Recorder())
        return made[-1]

    server = await loop.create_server(factory, HOST, 0)
    async with support.serving(server):
        task = asyncio.ensure_future(
            loop.create_connection(support.Recorder, HOST, support.port_of(server))
        )
        await support.turns(turns)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            transport, _ = await task
            transport.close()
        async with support.connected(HOST, support.port_of(server)) as transport:
            transport.write(b"last")
            while not any(protocol.data == b"last" for protocol in made):
                await support.turns()
        for protocol in made:
            await protocol.wait_event("lost")


async def test_many_cancelled_connects(loop):
    server = await loop.create_server(support.Echo, HOST, 0)

    async def attempt(number):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(number / 20_000):
                transport, _ = await loop.create_connection(
                    asyncio.Protocol, HOST, support.port_of(server)
                )
                transport.close()

    async with support.serving(server):
        await asyncio.gather(*(attempt(number) for number in range(100)))
        async with support.connected(HOST, support.port_of(server)) as transport:
            transport.write(b"still there")
            await transport.get_protocol().wait_bytes(11)
