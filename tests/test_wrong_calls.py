"""Wrong calls: both loops raise the same types with the same texts.

Each table maps a name to a call on a loop; the call is made on stock asyncio of the running Python
and on the loop under test, and what they raise is compared.
"""

import asyncio
import contextlib
import re
import signal
import socket
import ssl
import threading

import pytest

import support


async def coroutine_function():
    pass


class Odd:
    """Has a fileno, of a sort."""

    def __init__(self, answer):
        self.answer = answer

    def __repr__(self):
        return f"odd({self.answer!r})"

    def fileno(self):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


# Any state of the loop ---------------------------------------------------------------------------

WRONG_TYPES = {
    "call_later(None)": lambda loop: loop.call_later(None, int),
    "call_later(text)": lambda loop: loop.call_later("1", int),
    "call_at(None)": lambda loop: loop.call_at(None, int),
    "run_until_complete(None)": lambda loop: loop.run_until_complete(None),
    "run_until_complete(5)": lambda loop: loop.run_until_complete(5),
    "run_until_complete(function)": lambda loop: loop.run_until_complete(coroutine_function),
    "create_task(None)": lambda loop: loop.create_task(None),
    "create_task(function)": lambda loop: loop.create_task(coroutine_function),
    "set_task_factory(5)": lambda loop: loop.set_task_factory(5),
    "set_exception_handler(5)": lambda loop: loop.set_exception_handler(5),
    "set_default_executor(5)": lambda loop: loop.set_default_executor(5),
    "set_default_executor(None)": lambda loop: loop.set_default_executor(None),
    "add_reader(-1)": lambda loop: loop.add_reader(-1, int),
    "add_reader(text)": lambda loop: loop.add_reader("text", int),
    "add_reader(None)": lambda loop: loop.add_reader(None, int),
    "add_reader(object)": lambda loop: loop.add_reader(Odd(None), int),
    "add_reader(fileno of a text)": lambda loop: loop.add_reader(Odd("text"), int),
    "add_reader(fileno of -1)": lambda loop: loop.add_reader(Odd(-1), int),
    "add_reader(failing fileno)": lambda loop: loop.add_reader(Odd(ValueError("no")), int),
    "add_reader(closed fd)": lambda loop: loop.add_reader(9999, int),
    "add_writer(-1)": lambda loop: loop.add_writer(-1, int),
    "add_writer(text)": lambda loop: loop.add_writer("text", int),
    "add_writer(closed fd)": lambda loop: loop.add_writer(9999, int),
    "remove_reader(-1)": lambda loop: loop.remove_reader(-1),
    "remove_reader(text)": lambda loop: loop.remove_reader("text"),
    "remove_writer(None)": lambda loop: loop.remove_writer(None),
    "remove_writer(fileno of -1)": lambda loop: loop.remove_writer(Odd(-1)),
    "add_signal_handler(text)": lambda loop: loop.add_signal_handler("x", int),
    "add_signal_handler(None)": lambda loop: loop.add_signal_handler(None, int),
    "add_signal_handler(1000)": lambda loop: loop.add_signal_handler(1000, int),
    "add_signal_handler(0)": lambda loop: loop.add_signal_handler(0, int),
    "add_signal_handler(-1)": lambda loop: loop.add_signal_handler(-1, int),
    "add_signal_handler(SIGKILL)": lambda loop: loop.add_signal_handler(signal.SIGKILL, int),
    "add_signal_handler(SIGSTOP)": lambda loop: loop.add_signal_handler(signal.SIGSTOP, int),
    "add_signal_handler(coroutine)": lambda loop: loop.add_signal_handler(
        signal.SIGUSR1, coroutine_function
    ),
    "remove_signal_handler(text)": lambda loop: loop.remove_signal_handler("x"),
    "remove_signal_handler(1000)": lambda loop: loop.remove_signal_handler(1000),
    "remove_signal_handler(0)": lambda loop: loop.remove_signal_handler(0),
}


@pytest.mark.parametrize("call", WRONG_TYPES.values(), ids=WRONG_TYPES)
@pytest.mark.parametrize("debug", [False, True], ids=["plain", "debug"])
def test_wrong_types(loop, model, call, debug):
    loop.set_debug(debug)
    model.set_debug(debug)
    expected = support.outcome(lambda: call(model))
    assert expected[0] is not None
    assert support.outcome(lambda: call(loop)) == expected


WRONG_IN_DEBUG = {
    f"{way}({name})": (way, thing)
    for way in ("call_soon", "call_soon_threadsafe", "call_later", "call_at", "run_in_executor")
    for name, thing in {"None": None, "5": 5, "a coroutine": coroutine_function}.items()
}


@pytest.mark.parametrize(("way", "thing"), WRONG_IN_DEBUG.values(), ids=WRONG_IN_DEBUG)
def test_wrong_callbacks_in_debug_mode(loop, model, way, thing):
    before = {"call_later": (1,), "call_at": (1,), "run_in_executor": (None,)}.get(way, ())

    def refused(loop):
        loop.set_debug(True)
        return support.outcome(lambda: getattr(loop, way)(*before, thing))

    expected = refused(model)
    assert expected[0] is TypeError
    assert refused(loop) == expected


# A number of arguments, or a keyword, that no loop takes: the type of the error must be the same,
# the text is that of the language the method is written in.
WRONG_ARITY = {
    "call_soon()": lambda loop: loop.call_soon(),
    "call_soon(colour)": lambda loop: loop.call_soon(int, colour=1),
    "call_soon_threadsafe()": lambda loop: loop.call_soon_threadsafe(),
    "call_soon_threadsafe(colour)": lambda loop: loop.call_soon_threadsafe(int, colour=1),
    "call_later()": lambda loop: loop.call_later(),
    "call_later(1)": lambda loop: loop.call_later(1),
    "call_later(colour)": lambda loop: loop.call_later(1, int, colour=1),
    "call_at(1)": lambda loop: loop.call_at(1),
    "call_at(colour)": lambda loop: loop.call_at(1, int, colour=1),
    "time(1)": lambda loop: loop.time(1),
    "stop(1)": lambda loop: loop.stop(1),
    "close(1)": lambda loop: loop.close(1),
    "run_forever(1)": lambda loop: loop.run_forever(1),
    "run_until_complete()": lambda loop: loop.run_until_complete(),
    "is_running(1)": lambda loop: loop.is_running(1),
    "is_closed(1)": lambda loop: loop.is_closed(1),
    "create_future(1)": lambda loop: loop.create_future(1),
    "create_task()": lambda loop: loop.create_task(),
    "get_debug(1)": lambda loop: loop.get_debug(1),
    "set_debug()": lambda loop: loop.set_debug(),
    "add_reader(0)": lambda loop: loop.add_reader(0),
    "add_writer()": lambda loop: loop.add_writer(),
    "remove_reader()": lambda loop: loop.remove_reader(),
    "remove_writer(0, 1)": lambda loop: loop.remove_writer(0, 1),
    "add_signal_handler(10)": lambda loop: loop.add_signal_handler(10),
    "remove_signal_handler()": lambda loop: loop.remove_signal_handler(),
    "run_in_executor()": lambda loop: loop.run_in_executor(),
    "a handle, cancel(1)": lambda loop: loop.call_soon(int).cancel(1),
    "a handle, cancelled(1)": lambda loop: loop.call_soon(int).cancelled(1),
    "a timer, when(1)": lambda loop: loop.call_later(1, int).when(1),
    "unknown method": lambda loop: loop.paint(),
}


@pytest.mark.parametrize("call", WRONG_ARITY.values(), ids=WRONG_ARITY)
def test_wrong_arity(loop, model, call):
    def refused(loop):
        kind, text = support.outcome(lambda: call(loop))
        # The class that is named is the one that defines the method; functions in C word a wrong
        # number in their own way.
        text = re.sub(r"^\w+\.(?=\w+\(\) )|(?<=^')\w+(?=' object)", "CLASS", text)
        return kind, re.sub(r"takes .* given\)?$", "takes another number", text)

    expected = refused(model)
    assert expected[0] in (TypeError, AttributeError)
    assert refused(loop) == expected


# A closed loop -----------------------------------------------------------------------------------

CLOSED = {
    "call_soon": lambda loop, sock: loop.call_soon(int),
    "call_soon_threadsafe": lambda loop, sock: loop.call_soon_threadsafe(int),
    "call_later": lambda loop, sock: loop.call_later(1, int),
    "call_at": lambda loop, sock: loop.call_at(1, int),
    "run_forever": lambda loop, sock: loop.run_forever(),
    "run_in_executor": lambda loop, sock: loop.run_in_executor(None, int),
    "add_reader": lambda loop, sock: loop.add_reader(sock, int),
    "add_writer": lambda loop, sock: loop.add_writer(sock, int),
    "remove_reader": lambda loop, sock: loop.remove_reader(sock),
    "remove_writer": lambda loop, sock: loop.remove_writer(sock),
    "add_signal_handler": lambda loop, sock: loop.add_signal_handler(signal.SIGUSR1, int),
    "remove_signal_handler": lambda loop, sock: loop.remove_signal_handler(signal.SIGUSR1),
    "create_future": lambda loop, sock: loop.create_future(),
    "stop": lambda loop, sock: loop.stop(),
    "close": lambda loop, sock: loop.close(),
    "time": lambda loop, sock: loop.time(),
    "is_running": lambda loop, sock: loop.is_running(),
    "set_debug": lambda loop, sock: loop.set_debug(True),
    "get_debug": lambda loop, sock: loop.get_debug(),
    "set_exception_handler": lambda loop, sock: loop.set_exception_handler(None),
    "set_task_factory": lambda loop, sock: loop.set_task_factory(None),
    "repr": lambda loop, sock: repr(loop),
}


@pytest.mark.parametrize("call", CLOSED.values(), ids=CLOSED)
@pytest.mark.parametrize("debug", [False, True], ids=["plain", "debug"])
def test_closed(loop, model, call, debug):
    first, second = socket.socketpair()
    with first, second:
        for one in (model, loop):
            one.set_debug(debug)
            one.close()
        expected = support.outcome(lambda: call(model, first))
        assert support.outcome(lambda: call(loop, first)) == expected
    assert expected in ((None, ""), (RuntimeError, "Event loop is closed"))
    assert loop.is_closed()


CLOSED_AWAITED = {
    "run_until_complete": lambda loop: loop.run_until_complete(coroutine_function()),
    "create_task": lambda loop: loop.create_task(coroutine_function()),
}


@pytest.mark.parametrize("call", CLOSED_AWAITED.values(), ids=CLOSED_AWAITED)
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_closed_with_a_coroutine(loop, model, call):
    loop.close()
    model.close()
    expected = support.outcome(lambda: call(model))
    assert expected == (RuntimeError, "Event loop is closed")
    assert support.outcome(lambda: call(loop)) == expected


# A loop that runs --------------------------------------------------------------------------------


def while_running(loop, call):
    """What a call raises within the running loop."""

    async def main():
        return support.outcome(lambda: call(loop))

    return loop.run_until_complete(main())


RUNNING = {
    "close": lambda loop: loop.close(),
    "run_until_complete": lambda loop: loop.run_until_complete(loop.create_future()),
    "a signal in a thread": lambda loop: in_thread(
        lambda: loop.add_signal_handler(signal.SIGUSR1, int)
    ),
    "call_soon in a thread": lambda loop: in_thread(lambda: loop.call_soon(int)),
    "call_later in a thread": lambda loop: in_thread(lambda: loop.call_later(1, int)),
    "call_at in a thread": lambda loop: in_thread(lambda: loop.call_at(1, int)),
}


def in_thread(call):
    """Make a call in another thread; raise here what it raises there."""
    raised = []

    def body():
        try:
            call()
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


@pytest.mark.parametrize("call", RUNNING.values(), ids=RUNNING)
@pytest.mark.parametrize("debug", [False, True], ids=["plain", "debug"])
def test_running(loop, model, call, debug):
    loop.set_debug(debug)
    model.set_debug(debug)
    assert while_running(loop, call) == while_running(model, call)


# Coroutines of the loop --------------------------------------------------------------------------


TLS = ssl.create_default_context()


class Plain(asyncio.Protocol):
    """A protocol that does nothing."""


AWAITED = {
    "nowhere to connect": lambda loop, sock: loop.create_connection(Plain),
    "two places to connect": lambda loop, sock: loop.create_connection(Plain, "h", 1, sock=sock),
    "a datagram socket": lambda loop, sock: loop.create_connection(
        Plain, sock=socket.socket(type=socket.SOCK_DGRAM)
    ),
    "a name without TLS": lambda loop, sock: loop.create_connection(
        Plain, "h", 1, server_hostname="h"
    ),
    "a time-out without TLS": lambda loop, sock: loop.create_connection(
        Plain, "h", 1, ssl_handshake_timeout=1
    ),
    "TLS without a name": lambda loop, sock: loop.create_connection(Plain, sock=sock, ssl=TLS),
    "TLS that is none": lambda loop, sock: loop.create_connection(
        Plain, sock=sock, ssl=5, server_hostname="h"
    ),
    "nowhere to listen": lambda loop, sock: loop.create_server(Plain),
    "two places to listen": lambda loop, sock: loop.create_server(Plain, "h", 1, sock=sock),
    "listening with ssl=True": lambda loop, sock: loop.create_server(Plain, "h", 1, ssl=True),
    "listening, a time-out without TLS": lambda loop, sock: loop.create_server(
        Plain, "h", 1, ssl_handshake_timeout=1
    ),
    "listening to a datagram socket": lambda loop, sock: loop.create_server(
        Plain, sock=socket.socket(type=socket.SOCK_DGRAM)
    ),
    "accepted, of the wrong sort": lambda loop, sock: loop.connect_accepted_socket(
        Plain, socket.socket(type=socket.SOCK_DGRAM)
    ),
    "start_tls of nothing": lambda loop, sock: loop.start_tls(None, Plain(), TLS),
    "start_tls without a context": lambda loop, sock: loop.start_tls(None, Plain(), None),
    "sock_recv of nothing": lambda loop, sock: loop.sock_recv(None, 1),
    "sendfile to nothing": lambda loop, sock: loop.sendfile(None, None),
    "an executor that is none": lambda loop, sock: loop.run_in_executor(5, int),
}


@pytest.mark.parametrize("call", AWAITED.values(), ids=AWAITED)
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_coroutines(loop, model, call):
    def refused(loop):
        with contextlib.closing(socket.socket()) as sock:
            return loop.run_until_complete(support.outcome_of(lambda: call(loop, sock)))

    expected = refused(model)
    assert expected[0] is not None
    assert refused(loop) == expected


# Descriptors that belong to transports -----------------------------------------------------------

OWNED = {
    "add_reader": lambda loop, fd: loop.add_reader(fd, int),
    "add_writer": lambda loop, fd: loop.add_writer(fd, int),
    "remove_reader": lambda loop, fd: loop.remove_reader(fd),
    "remove_writer": lambda loop, fd: loop.remove_writer(fd),
}


@pytest.mark.parametrize("call", OWNED.values(), ids=OWNED)
def test_descriptors_of_transports(loop, model, call):
    async def refused():
        loop = asyncio.get_running_loop()
        async with support.transport_and_socket(support.Recorder()) as (transport, _):
            fd = transport.get_extra_info("socket").fileno()
            kind, text = support.outcome(lambda: call(loop, fd))
            return kind, text.replace(f" {fd} ", " N ").partition("<")[0]

    expected = model.run_until_complete(refused())
    assert expected[0] is RuntimeError
    assert loop.run_until_complete(refused()) == expected
