"""Debug mode: slow callbacks, source tracebacks, checks of what is scheduled, origins."""

import asyncio
import contextlib
import gc
import logging
import os
import socket
import sys
import time
import traceback

import pytest

import support


@pytest.fixture
def debugging(loop):
    """The loop in debug mode, which takes every callback of 10 ms for slow."""
    loop.set_debug(True)
    loop.slow_callback_duration = 0.01
    return loop


def slow():
    """Take longer than the debugging loop likes."""
    end = time.monotonic() + 0.02
    while time.monotonic() < end:
        pass


def warnings_of(caplog):
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "asyncio" and record.levelno == logging.WARNING
    ]


def test_the_switch(loop):
    assert loop.get_debug() is False
    loop.set_debug(True)
    assert loop.get_debug() is True
    loop.set_debug(False)
    assert loop.get_debug() is False


@pytest.mark.parametrize(
    ("options", "environment"), [(["-X", "dev"], {}), ([], {"PYTHONASYNCIODEBUG": "1"})]
)
def test_switched_on_from_outside(script, options, environment):
    code = "loop = new_loop(); print(loop.get_debug()); loop.close()"
    assert script.check(code, *options, env=environment) == "True\n"


def test_slow_callback_duration(loop):
    assert loop.slow_callback_duration == 0.1
    loop.slow_callback_duration = 1
    assert loop.slow_callback_duration == 1


def test_slow_callbacks_are_named(debugging, caplog):
    debugging.call_soon(slow)
    support.spin(debugging)
    (message,) = warnings_of(caplog)
    assert message.startswith("Executing <Handle slow() at ")
    assert "test_debug.py" in message
    assert message.endswith(" seconds")
    assert 0.01 < float(message.split()[-2]) < 10


def test_slow_tasks_are_named(debugging, caplog):
    async def work():
        slow()

    debugging.run_until_complete(debugging.create_task(work(), name="the slow one"))
    (message,) = warnings_of(caplog)
    assert message.startswith("Executing <Task finished name='the slow one' coro=<")
    assert "work() done" in message


def test_slow_timers_and_readers_are_named(debugging, caplog):
    debugging.call_later(0, slow)
    support.spin(debugging, 2)
    ours, theirs = support.socket_pair("unix")
    with ours, theirs:
        debugging.add_reader(ours, slow)
        theirs.send(b"x")
        support.spin(debugging, 2)
        debugging.remove_reader(ours)
    messages = warnings_of(caplog)
    assert messages[0].startswith("Executing <TimerHandle ")
    assert messages[1].startswith("Executing <Handle slow() ")


def test_nothing_is_slow_without_debug_mode(loop, caplog):
    loop.slow_callback_duration = 0
    loop.call_soon(slow)
    support.spin(loop)
    assert warnings_of(caplog) == []


def test_quick_callbacks_are_not_slow(loop, caplog):
    loop.set_debug(True)
    loop.slow_callback_duration = 10
    loop.call_soon(slow)
    support.spin(loop)
    assert warnings_of(caplog) == []


# Where things come from ------------------------------------------------------------------------


def test_handles_tell_where_they_were_made(debugging, reports):
    def fail():
        raise ValueError("on purpose")

    debugging.call_soon(fail)
    debugging.call_later(0, fail)
    debugging.call_soon_threadsafe(fail)
    support.spin(debugging, 2)
    contexts = reports.take()
    assert len(contexts) == 3
    for context in contexts:
        frames = context["source_traceback"]
        assert frames[-1].name == "test_handles_tell_where_they_were_made"
        assert frames[-1].filename == __file__
        assert f" created at {__file__}:{frames[-1].lineno}>" in repr(context["handle"])


def test_the_log_shows_it(new_loop, caplog):
    loop = new_loop()
    loop.set_debug(True)
    loop.call_soon(int, "x")
    support.spin(loop)
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    text = errors[0].getMessage()
    assert "Object created at (most recent call last):\n" in text
    assert "loop.call_soon(int, " in text


class Failing(asyncio.Protocol):
    """What fails with whatever it receives; a datagram protocol too."""

    def data_received(self, data):
        raise ZeroDivisionError(data.decode())

    def datagram_received(self, data, address):
        self.data_received(data)


async def stream_fails(loop, stack):
    ours, theirs = support.socket_pair("unix")
    stack.enter_context(theirs).send(b"stream")
    transport, _ = await loop.create_connection(Failing, sock=ours)
    stack.callback(transport.close)


async def pipe_fails(loop, stack):
    reader, writer = os.pipe()
    os.write(writer, b"pipe")
    stack.callback(os.close, writer)
    transport, _ = await loop.connect_read_pipe(Failing, os.fdopen(reader, "rb", 0))
    stack.callback(transport.close)


async def datagram_fails(loop, stack):
    transport, _ = await loop.create_datagram_endpoint(Failing, ("127.0.0.1", 0))
    stack.callback(transport.close)
    transport.sendto(b"datagram", transport.get_extra_info("sockname"))


async def factory_fails(loop, stack):
    def fail():
        raise ZeroDivisionError("factory")

    server = await loop.create_server(fail, "127.0.0.1", 0)
    stack.callback(server.close)
    stack.enter_context(socket.create_connection(("127.0.0.1", support.port_of(server))))


async def reader_fails(loop, stack):
    def fail():
        loop.remove_reader(ours)
        raise ZeroDivisionError("reader")

    ours, theirs = (stack.enter_context(end) for end in support.socket_pair("unix"))
    loop.set_debug(False)
    loop.add_reader(ours, fail)
    loop.set_debug(True)
    theirs.send(b"x")


@pytest.mark.parametrize(
    "fails", [stream_fails, pipe_fails, datagram_fails, factory_fails, reader_fails]
)
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
async def test_the_log_shows_errors_of_whatever_fails(loop, fails):
    """The default handler asks what runs where it was made, which not all can tell."""
    loop.set_exception_handler(None)
    loop.set_debug(True)
    logged = loop.create_future()

    class Handler(logging.Handler):
        def emit(self, record):
            if record.levelno == logging.ERROR and not logged.done():
                logged.set_result(record)

    handler = Handler()
    logging.getLogger("asyncio").addHandler(handler)
    try:
        with contextlib.ExitStack() as stack:
            await fails(loop, stack)
            record = await logged
            await support.turns(2)
    finally:
        logging.getLogger("asyncio").removeHandler(handler)
    assert record.exc_info[0] is ZeroDivisionError, record.getMessage()
    assert str(record.exc_info[1]) == fails.__name__.partition("_")[0]
    # asyncio's frames have the connection that the factory failed for.
    traceback.clear_frames(record.exc_info[2])


def test_futures_and_tasks_tell_where_they_were_made(debugging):
    async def main():
        future = debugging.create_future()
        assert " created at " in repr(future)
        assert f" created at {__file__}:" in repr(debugging.create_task(asyncio.sleep(0)))
        future.cancel()

    debugging.run_until_complete(main())


def test_nothing_is_traced_without_debug_mode(loop, reports):
    handle = loop.call_soon(int, "x")
    assert "created at" not in repr(handle)
    support.spin(loop)
    assert "source_traceback" not in reports.take_one()


def test_coroutines_know_their_origin(loop):
    depths = []

    async def main():
        depths.append(sys.get_coroutine_origin_tracking_depth())
        loop.set_debug(False)
        await support.turns(2)
        depths.append(sys.get_coroutine_origin_tracking_depth())
        loop.set_debug(True)
        await support.turns(2)
        depths.append(sys.get_coroutine_origin_tracking_depth())

    before = sys.get_coroutine_origin_tracking_depth()
    loop.set_debug(True)
    loop.run_until_complete(main())
    assert depths[0] == depths[2] > 0
    assert depths[1] == before
    assert sys.get_coroutine_origin_tracking_depth() == before


def test_a_depth_that_was_set_is_restored(loop):
    before = sys.get_coroutine_origin_tracking_depth()
    sys.set_coroutine_origin_tracking_depth(3)
    try:
        loop.set_debug(True)
        support.spin(loop)
        assert sys.get_coroutine_origin_tracking_depth() == 3
    finally:
        sys.set_coroutine_origin_tracking_depth(before)


# What may be scheduled -------------------------------------------------------------------------


async def coroutine_function():
    pass


WAYS = {
    "call_soon": lambda loop, callback: loop.call_soon(callback),
    "call_soon_threadsafe": lambda loop, callback: loop.call_soon_threadsafe(callback),
    "call_later": lambda loop, callback: loop.call_later(1, callback),
    "call_at": lambda loop, callback: loop.call_at(1, callback),
    "run_in_executor": lambda loop, callback: loop.run_in_executor(None, callback),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("thing", [None, 5, "text", coroutine_function])
def test_only_plain_callables_may_be_scheduled(debugging, way, thing):
    model = asyncio.SelectorEventLoop()
    model.set_debug(True)
    expected = support.outcome(lambda: WAYS[way](model, thing))
    model.close()
    assert support.outcome(lambda: WAYS[way](debugging, thing)) == expected
    assert expected[0] is TypeError


def test_a_coroutine_is_no_callback(debugging):
    coroutine = coroutine_function()
    with pytest.raises(TypeError, match=r"^coroutines cannot be used with call_soon\(\)$"):
        debugging.call_soon(coroutine)
    coroutine.close()


# Nothing else changes --------------------------------------------------------------------------


async def test_everything_still_works(loop):
    loop.set_debug(True)
    received = support.Recorder()
    async with support.transport_pair(received, support.Recorder()) as (_, other):
        other.write(b"x" * 100_000)
        assert len(await received.wait_bytes(100_000)) == 100_000
    assert await loop.run_in_executor(None, int, "5") == 5
    await asyncio.sleep(0.001)


def test_collecting_garbage_in_debug_mode(loop):
    """Debug mode that crashed in the collector has been reported of another loop."""
    loop.set_debug(True)

    async def main():
        for number in range(300):
            loop.call_soon(len, [number])
            loop.call_later(0.001, int, number).cancel()
            if not number % 50:
                gc.collect()
                await support.turns()

    loop.run_until_complete(main())
    gc.collect()


def test_changing_it_while_it_runs(loop):
    ran = []

    async def main():
        for number in range(10):
            loop.set_debug(number % 2 == 0)
            loop.call_soon(ran.append, number)
            loop.call_later(0, ran.append, number)
            await support.turns(2)

    loop.run_until_complete(main())
    assert sorted(ran) == sorted([*range(10)] * 2)
