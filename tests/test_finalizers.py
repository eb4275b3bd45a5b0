"""Transports that a program forgets: warned of while they are whole, and closed."""

import asyncio
import gc
import os
import socket
import sys
import warnings
import weakref
from contextlib import nullcontext

import pytest

import support


class Holder(asyncio.Protocol):
    """Holds its transport, as most protocols do: a cycle."""

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        raise AssertionError


async def stream(loop, ends):
    ours, peer = socket.socketpair()
    ends.append(peer)
    return await loop.create_connection(Holder, sock=ours)


async def connection(loop, ends):
    listener = socket.create_server(("127.0.0.1", 0))
    ends.append(listener)
    made = await loop.create_connection(Holder, *listener.getsockname())
    ends.append(listener.accept()[0])
    return made


async def datagrams(loop, ends):
    return await loop.create_datagram_endpoint(Holder, local_addr=("127.0.0.1", 0))


async def read_pipe(loop, ends):
    reading, writing = os.pipe()
    ends.append(os.fdopen(writing, "wb", 0))
    return await loop.connect_read_pipe(Holder, os.fdopen(reading, "rb", 0))


async def write_pipe(loop, ends):
    reading, writing = os.pipe()
    ends.append(os.fdopen(reading, "rb", 0))
    return await loop.connect_write_pipe(Holder, os.fdopen(writing, "wb", 0))


KINDS = [stream, connection, datagrams, read_pipe, write_pipe]


@pytest.fixture
def unraisable(monkeypatch):
    """What was reported because nobody could catch it."""
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: seen.append(report.exc_type))
    return seen


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def forgotten(request, loop):
    """A transport, in a list, of a loop that is closed."""
    ends = []
    made = [loop.run_until_complete(request.param(loop, ends))[0]]
    support.spin(loop)
    loop.close()
    yield made
    for end in ends:
        end.close()


def forget(made):
    """Drop the transport; what was warned of, in order."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        support.drop(made)
    return caught


def test_the_warning_names_it(forgotten, unraisable):
    shown, kind = repr(forgotten[0]), type(forgotten[0])
    caught = forget(forgotten)
    (warning,) = [one for one in caught if "unclosed transport" in str(one.message)]
    assert warning.category is ResourceWarning
    assert str(warning.message) == f"unclosed transport {shown}"
    # It lives on in the warning, closed.
    assert type(warning.source) is kind
    fd = warning.source.get_extra_info("pipe" if "Pipe" in shown else "socket").fileno
    with pytest.raises(ValueError, match="closed") if "Pipe" in shown else nullcontext():
        assert fd() == -1
    caught.clear()
    del warning, fd
    gc.collect()
    assert not [one for one in gc.get_objects() if type(one) is kind]
    assert unraisable == []


def test_its_socket_is_whole(forgotten, unraisable):
    """The collector empties the objects of a cycle; not before they were closed."""
    sock = forgotten[0].get_extra_info("socket")
    if sock is not None:
        real = forgotten[0].get_extra_info("socket")._sock
        real_seen = weakref.ref(real)
        del real, sock
        forget(forgotten)
        assert real_seen() is None or real_seen().fileno() == -1
    else:
        forget(forgotten)
    assert unraisable == []


@pytest.mark.parametrize("in_a_cycle", [False, True])
def test_a_warning_that_is_an_error(forgotten, unraisable, in_a_cycle):
    if not in_a_cycle:
        forgotten[0].get_protocol().transport = None
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        support.drop(forgotten)
    assert ResourceWarning in unraisable
    assert set(unraisable) == {ResourceWarning}


def test_an_exception_that_travels_is_not_disturbed(forgotten):
    forgotten[0].get_protocol().transport = None

    def fail():
        (_transport,) = forgotten
        forgotten.clear()
        raise LookupError("mine")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        with pytest.raises(LookupError, match="mine") as raised:
            fail()
        # Not all of asyncio's transports die without the collector.
        raised.value.__traceback__ = None
        del raised
        gc.collect()
