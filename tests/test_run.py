"""Running, stopping and closing a loop, and what leaves `run_until_complete`."""

import asyncio
import signal
import socket
import sys
import threading

import pytest

import support

CLOSED = r"^Event loop is closed$"


async def five():
    await asyncio.sleep(0)
    return 5


def test_result(loop):
    assert loop.run_until_complete(five()) == 5
    assert loop.run_until_complete(loop.create_task(five())) == 5
    future = loop.create_future()
    loop.call_soon(future.set_result, 6)
    assert loop.run_until_complete(future) == 6


def test_exception(loop):
    async def fail():
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        loop.run_until_complete(fail())


def test_states(loop):
    assert not loop.is_running()
    assert not loop.is_closed()
    seen = []

    async def main():
        seen.append((loop.is_running(), loop.is_closed(), asyncio.get_running_loop() is loop))

    loop.run_until_complete(main())
    assert seen == [(True, False, True)]
    assert not loop.is_running()
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
    loop.close()
    assert loop.is_closed()


def test_nothing_is_in_the_dictionary(new_loop, mioloop_only):
    """CPython looks there before each method call, unless it is empty."""

    async def use(loop):
        loop.set_debug(True)
        loop.set_debug(False)
        loop.set_exception_handler(None)
        loop.set_task_factory(None)
        loop.add_signal_handler(signal.SIGUSR1, int)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
            server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
            server.close()
            transport.close()
            await loop.run_in_executor(None, int)
            await loop.shutdown_default_executor()
            await loop.shutdown_asyncgens()

    fresh, used = new_loop(), new_loop()
    assert vars(fresh) == {}
    used.run_until_complete(use(used))
    used.close()
    assert vars(used) == {}
    used.mine = 1
    assert vars(used) == {"mine": 1}


def test_printed(loop):
    assert repr(loop).endswith(" running=False closed=False debug=False>")
    loop.set_debug(True)
    loop.call_soon(lambda: seen.append(repr(loop)))
    seen = []
    support.spin(loop)
    assert seen[0].endswith(" running=True closed=False debug=True>")
    loop.close()
    assert repr(loop).endswith(" running=False closed=True debug=True>")


def test_isinstance(loop):
    """aiohttp and others decide by these classes."""
    assert isinstance(loop, asyncio.AbstractEventLoop)
    assert isinstance(loop, asyncio.BaseEventLoop)


# Stopping ------------------------------------------------------------------------------------


def test_stop_before_running_makes_one_turn(loop):
    ran = []
    loop.call_soon(ran.append, 1)
    loop.stop()
    loop.call_soon(lambda: loop.call_soon(ran.append, 3))
    loop.call_soon(ran.append, 2)
    loop.run_forever()
    assert ran == [1, 2]
    support.spin(loop)
    assert ran == [1, 2, 3]


def test_stop_lets_the_turn_end(loop):
    ran = []
    loop.call_soon(loop.stop)
    loop.call_soon(loop.stop)
    loop.call_soon(ran.append, 1)
    loop.run_forever()
    assert ran == [1]
    assert not loop.is_running()


def test_running_again_after_stop(loop):
    for _ in range(100):
        support.spin(loop)
    assert loop.run_until_complete(five()) == 5


def test_stopped_too_early(loop):
    async def main():
        loop.stop()
        await loop.create_future()

    with pytest.raises(RuntimeError, match=r"^Event loop stopped before Future completed\.$"):
        loop.run_until_complete(main())


def test_stop_from_the_task_that_ends(loop):
    async def main():
        loop.stop()
        return 7

    assert loop.run_until_complete(main()) == 7


# What cannot run -----------------------------------------------------------------------------


ALREADY = r"^This event loop is already running$"
ANOTHER = r"^Cannot run the event loop while another loop is running$"


def test_not_within_itself(loop):
    async def main():
        with pytest.raises(RuntimeError, match=ALREADY):
            loop.run_until_complete(loop.create_future())
        with pytest.raises(RuntimeError, match=r"^Cannot close a running event loop$"):
            loop.close()
        with pytest.raises(RuntimeError, match=ALREADY):
            loop.run_forever()

    loop.run_until_complete(main())


def test_not_within_another(loop, new_loop):
    other = new_loop()

    async def main():
        with pytest.raises(RuntimeError, match=ANOTHER):
            other.run_until_complete(other.create_future())
        assert not other.is_running()
        with pytest.raises(RuntimeError, match=ANOTHER):
            other.run_forever()

    loop.run_until_complete(main())


def test_a_refused_run_changes_nothing(loop, new_loop, loop_name):
    if loop_name == "asyncio" and sys.version_info[:3] == (3, 13, 0):
        pytest.skip("asyncio of Python 3.13.0 forgets the running loop here")
    other = new_loop()

    async def main():
        for refusing in (loop, other):
            with pytest.raises(RuntimeError):
                refusing.run_forever()
            assert loop.is_running()
            assert not other.is_running()
            assert asyncio.get_running_loop() is loop
            await asyncio.sleep(0)

    loop.run_until_complete(main())


def test_not_within_stock_asyncio_either(loop):
    async def main():
        with pytest.raises(RuntimeError, match=ANOTHER):
            loop.run_forever()

    model = asyncio.SelectorEventLoop()
    model.run_until_complete(main())
    model.close()


def test_futures_of_another_loop(loop, new_loop):
    with pytest.raises(ValueError, match="belongs to a different loop"):
        loop.run_until_complete(new_loop().create_future())


@pytest.mark.parametrize("thing", [None, 5, five])
def test_not_awaitable(loop, thing):
    with pytest.raises(TypeError):
        loop.run_until_complete(thing)


# Closing -------------------------------------------------------------------------------------


def test_closing_twice(loop):
    loop.close()
    loop.close()
    assert loop.is_closed()


def test_running_a_closed_loop(loop):
    future = loop.create_future()
    loop.close()
    with pytest.raises(RuntimeError, match=CLOSED):
        loop.run_forever()
    with pytest.raises(RuntimeError, match=CLOSED):
        loop.run_until_complete(future)
    assert not loop.is_running()


def test_closing_forgets_what_was_queued(new_loop):
    ran = []
    loop = new_loop()
    loop.call_soon(ran.append, 1)
    loop.call_later(0, ran.append, 2)
    loop.close()
    assert ran == []


def test_many_loops(new_loop):
    for _ in range(200):
        loop = new_loop()
        assert loop.run_until_complete(five()) == 5
        loop.close()


# Exceptions that are no Exception ----------------------------------------------------------------


class GracefulExit(SystemExit):
    """As aiohttp raises it from a signal handler: its exact type must come out."""


class Interrupted(KeyboardInterrupt):
    """The same for the other one."""


LEAVING = [SystemExit, KeyboardInterrupt, GracefulExit, Interrupted]


@pytest.mark.parametrize("exception", LEAVING)
def test_out_of_a_callback(loop, exception):
    """It leaves at once; what was behind it in the queue is kept, in its order."""
    ran = []

    def leave():
        raise exception(3)

    loop.call_soon(ran.append, 1)
    loop.call_soon(leave)
    for number in range(2, 6):
        loop.call_soon(ran.append, number)
    with pytest.raises(exception) as caught:
        loop.run_forever()
    assert type(caught.value) is exception
    assert caught.value.args == (3,)
    assert ran == [1]
    assert not loop.is_running()
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
    loop.call_soon(ran.append, 6)
    support.spin(loop)
    assert ran == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("exception", LEAVING)
def test_out_of_a_task(loop, exception):
    async def main():
        await asyncio.sleep(0)
        raise exception(3)

    with pytest.raises(exception) as caught:
        loop.run_until_complete(main())
    assert type(caught.value) is exception
    assert loop.run_until_complete(five()) == 5


@pytest.mark.parametrize("exception", LEAVING)
def test_out_of_another_task(loop, exception):
    async def leave():
        raise exception(3)

    async def main():
        task = loop.create_task(leave())
        await loop.create_future()
        await task

    task = loop.create_task(main())
    with pytest.raises(exception):
        loop.run_until_complete(task)
    assert not task.done()
    assert loop.run_until_complete(five()) == 5


@pytest.mark.parametrize("exception", LEAVING)
def test_out_of_a_timer_and_a_reader(loop, exception):
    def leave():
        raise exception(3)

    loop.call_later(0, leave)
    with pytest.raises(exception):
        loop.run_forever()
    ours, theirs = support.socket_pair("unix")
    with ours, theirs:
        loop.add_reader(ours, leave)
        theirs.send(b"x")
        with pytest.raises(exception):
            loop.run_forever()
        assert loop.remove_reader(ours)
    assert loop.run_until_complete(five()) == 5


class Odd(BaseException):
    """A BaseException that is neither of the two that asyncio knows."""


def test_other_base_exceptions_are_reported(loop, reports):
    ran = []

    def fail():
        raise Odd

    loop.call_soon(fail)
    loop.call_soon(ran.append, 1)
    support.spin(loop)
    assert ran == [1]
    assert isinstance(reports.take_one()["exception"], Odd)


def test_a_generator_exit_is_reported(loop, reports):
    def fail():
        raise GeneratorExit

    loop.call_soon(fail)
    support.spin(loop)
    assert isinstance(reports.take_one()["exception"], GeneratorExit)


# The ways to run -----------------------------------------------------------------------------


def test_runner(loop_factory):
    with asyncio.Runner(loop_factory=loop_factory, debug=True) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, type(loop_factory_probe(loop_factory)))
        assert loop.get_debug()
        assert runner.run(five()) == 5
        assert runner.run(asyncio.sleep(0, 6)) == 6
    assert loop.is_closed()


def loop_factory_probe(loop_factory):
    """A closed loop of that factory, to know its class."""
    loop = loop_factory()
    loop.close()
    return loop


@pytest.mark.skipif(sys.version_info < (3, 12), reason="loop_factory came with Python 3.12")
def test_asyncio_run(loop_factory):
    async def main():
        return type(asyncio.get_running_loop())

    kind = asyncio.run(main(), loop_factory=loop_factory)
    assert kind is type(loop_factory_probe(loop_factory))


def test_runner_cancels_what_is_left(loop_factory):
    ended = []

    async def endless():
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(0)
            ended.append(1)

    async def main():
        asyncio.ensure_future(endless())
        await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())
    assert ended == [1]


def test_in_a_thread(new_loop):
    results = []

    def body():
        loop = new_loop()
        results.append(loop.run_until_complete(five()))
        loop.close()

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert results == [5]


def test_the_main_task_can_be_told(loop):
    """anyio finds it by the callback that `run_until_complete` gives it."""

    async def main():
        return repr(asyncio.current_task())

    assert "_run_until_complete_cb()" in loop.run_until_complete(main())


def test_set_event_loop(loop):
    """A loop that is only set, not running, serves `get_event_loop` of old programs."""
    asyncio.set_event_loop(loop)
    try:
        assert asyncio.get_event_loop() is loop
    finally:
        asyncio.set_event_loop(None)
