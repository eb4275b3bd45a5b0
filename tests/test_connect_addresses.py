"""`create_connection` to a name of several addresses, which the system's resolver gives."""

import asyncio
import errno
import re
import socket
import sys
import time

import pytest

import support

full_backlogs = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux lets a connect wait for a full backlog"
)


@pytest.fixture
def name(monkeypatch):
    """The function that sets what the name "several" means, address by address."""
    found = []

    def resolve(host, *arguments, **keywords):
        if host != "several":
            return original(host, *arguments, **keywords)
        kinds = {2: socket.AF_INET, 4: socket.AF_INET6}
        return [(kinds[len(place)], socket.SOCK_STREAM, 6, "", place) for place in found]

    original = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return found.extend


async def reached(**keywords):
    """Who is at the other end of a connection to the name."""
    async with support.connected("several", 1, **keywords) as transport:
        return transport.get_extra_info("peername")


def accept_all(listener):
    """The clients of all connections that the kernel has made with a listener."""
    listener.setblocking(False)
    peers = []
    try:
        while True:
            accepted, peer = listener.accept()
            accepted.close()
            peers.append(peer)
    except BlockingIOError:
        return peers


@pytest.mark.parametrize("delay", [None, 60])
async def test_an_address_that_refuses(loop, listener, refusing, name, delay):
    """The next one is tried at once, however long a slow one would be waited for."""
    name([refusing, refusing, listener.getsockname()])
    assert await reached(happy_eyeballs_delay=delay) == listener.getsockname()
    assert len(accept_all(listener)) == 1


@full_backlogs
async def test_an_address_that_does_not_answer(loop, listener, deaf, name):
    """The next one is tried after the delay, and the slow one given up when that answers."""
    name([deaf, listener.getsockname()])
    start = time.monotonic()
    assert await reached(happy_eyeballs_delay=0.1) == listener.getsockname()
    assert time.monotonic() - start >= 0.1


async def test_an_address_that_answers_in_time(loop, listener, name):
    """The next one is not tried."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        name([listener.getsockname(), other.getsockname()])
        assert await reached(happy_eyeballs_delay=60) == listener.getsockname()
        assert accept_all(other) == []


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
@pytest.mark.parametrize(
    ("keywords", "size"),
    [
        ({}, 4),
        ({"interleave": 0}, 4),
        ({"interleave": 1}, 2),
        ({"interleave": 2}, 4),
        ({"happy_eyeballs_delay": 60}, 2),
        ({"happy_eyeballs_delay": 60, "interleave": 0}, 4),
        ({"happy_eyeballs_delay": 60, "interleave": 2}, 4),
    ],
    ids=repr,
)
async def test_the_order_of_families(loop, listener, name, keywords, size):
    """So many addresses of the first family come first; then the families take turns."""
    with (
        socket.socket(socket.AF_INET6) as refusing,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as other,
    ):
        refusing.bind(("::1", 0))
        name([refusing.getsockname(), other.getsockname(), listener.getsockname()])
        assert len(await reached(**keywords)) == size


# Time-outs of the kernel -----------------------------------------------------------------------


def hasten(fd):
    """Have the kernel give up a connection that is being made."""
    with socket.socket(fileno=fd) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 10)
        sock.detach()


@full_backlogs
@pytest.mark.parametrize("way", ["an address", "a name", "a socket"])
async def test_the_kernel_gives_up(loop, deaf, name, way):
    """It does that when it sends the first packet again, after a second."""
    name([deaf])
    before = support.open_descriptors()
    with socket.socket() as sock:
        sock.setblocking(False)
        connects = {
            "an address": lambda: loop.create_connection(support.Recorder, *deaf),
            "a name": lambda: loop.create_connection(support.Recorder, "several", 1),
            "a socket": lambda: loop.sock_connect(sock, deaf),
        }
        task = asyncio.ensure_future(connects[way]())
        hastened = [sock.fileno()] if way == "a socket" else []
        while not hastened:
            await support.turns()
            new = support.open_descriptors().items() - before.items()
            hastened = [fd for fd, what in new if "socket" in what and fd != sock.fileno()]
        await support.turns(3)
        hasten(*hastened)
        with pytest.raises(TimeoutError, match=re.escape(f"Connect call failed {deaf}")) as caught:
            await task
        assert caught.value.errno == errno.ETIMEDOUT
        assert loop.remove_writer(sock) is False
