"""Calls in other threads: `run_in_executor`, `to_thread`, the threads of the default executor."""

import asyncio
import concurrent.futures
import contextvars
import functools
import gc
import os
import sys
import threading
import time
import traceback
import weakref

import pytest

import support
from executors import MOST_THREADS, Blocked

variable = contextvars.ContextVar("variable", default="unset")

# Calls and what comes of them -------------------------------------------------------------------


async def test_run_in_executor(loop):
    assert await loop.run_in_executor(None, int, "5") == 5
    assert await loop.run_in_executor(None, functools.partial(int, "11", base=2)) == 3
    with pytest.raises(ValueError, match="invalid literal"):
        await loop.run_in_executor(None, int, "x")
    here = threading.get_ident()
    assert await loop.run_in_executor(None, threading.get_ident) != here


async def test_many_in_the_executor(loop):
    calls = [loop.run_in_executor(None, lambda number=number: number) for number in range(500)]
    assert await asyncio.gather(*calls) == list(range(500))


async def test_the_future_of_an_executor(loop):
    future = loop.run_in_executor(None, int)
    assert isinstance(future, asyncio.Future)
    assert future.get_loop() is loop
    assert await future == 0


async def test_threads_of_the_executor(loop):
    names = {await loop.run_in_executor(None, lambda: threading.current_thread().name)}
    assert all(name.startswith("asyncio_") for name in names)


async def test_an_executor_of_ones_own(loop):
    with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="mine") as pool:
        name = await loop.run_in_executor(pool, lambda: threading.current_thread().name)
        assert name.startswith("mine")
        loop.set_default_executor(pool)
        name = await loop.run_in_executor(None, lambda: threading.current_thread().name)
        assert name.startswith("mine")


def test_only_thread_pools_are_default_executors(loop):
    with pytest.raises(TypeError, match=r"^executor must be ThreadPoolExecutor instance$"):
        loop.set_default_executor(object())


async def test_to_thread(loop):
    variable.set("task")
    assert await asyncio.to_thread(variable.get) == "task"
    assert await asyncio.to_thread(dict, a=1) == {"a": 1}


async def test_cancelling_waits_for_nothing(loop):
    begun, go_on = threading.Event(), threading.Event()

    def work():
        begun.set()
        go_on.wait()

    future = loop.run_in_executor(None, work)
    try:
        begun.wait()
        future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await future
    finally:
        go_on.set()


async def test_the_arguments(loop):
    assert await loop.run_in_executor(executor=None, func=int) == 0
    assert await loop.run_in_executor(None, func=int) == 0
    assert await loop.run_in_executor(None, lambda *args: args, *range(5)) == (0, 1, 2, 3, 4)
    for call in (
        lambda: loop.run_in_executor(None),
        lambda: loop.run_in_executor(),
        lambda: loop.run_in_executor(None, int, args=1),
        lambda: loop.run_in_executor(None, int, context=contextvars.copy_context()),
    ):
        with pytest.raises(TypeError, match="run_in_executor"):
            call()


async def test_exceptions_have_their_tracebacks(loop):
    def fail():
        raise LookupError("here")

    with pytest.raises(LookupError, match=r"^here$") as caught:
        await loop.run_in_executor(None, fail)
    assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "fail"


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, BaseException])
async def test_no_exception_leaves_the_thread(loop, error):
    def fail():
        raise error("here")

    for _ in range(3):
        with pytest.raises(error, match=r"^here$"):
            await loop.run_in_executor(None, fail)
        assert await loop.run_in_executor(None, int) == 0


@pytest.mark.skipif(sys.version_info < (3, 13), reason="before, the future is never done")
async def test_stop_iteration(loop):
    with pytest.raises(RuntimeError) as caught:
        await loop.run_in_executor(None, next, iter(()))
    assert isinstance(caught.value.__cause__, StopIteration)


@pytest.mark.parametrize("name", ["CancelledError", "InvalidStateError"])
async def test_exceptions_that_asyncio_has_its_own_of(loop, name):
    def fail():
        raise getattr(concurrent.futures, name)("here")

    with pytest.raises(getattr(asyncio, name), match=r"^here$") as caught:
        await loop.run_in_executor(None, fail)
    if sys.version_info >= (3, 13):
        assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "fail"


async def test_contexts(loop):
    variable.set("task")
    assert await loop.run_in_executor(None, variable.get) == "unset"
    assert await asyncio.to_thread(variable.get) == "task"
    assert await asyncio.to_thread(variable.set, "thread")
    assert variable.get() == "task"


@pytest.mark.parametrize("debug", [False, True])
async def test_coroutines_are_refused_in_debug_mode(loop, debug):
    async def coroutine():
        pass

    loop.set_debug(debug)
    try:
        if debug:
            with pytest.raises(TypeError, match=r"cannot be used with run_in_executor\(\)$"):
                loop.run_in_executor(None, coroutine)
        else:
            (await loop.run_in_executor(None, coroutine)).close()
        assert await loop.run_in_executor(None, int) == 0
    finally:
        loop.set_debug(False)


async def test_a_call_that_waits_is_cancelled(loop):
    """It is not begun any more; what was queued behind it is."""
    called = []
    async with Blocked(loop):
        first, second = (loop.run_in_executor(None, called.append, number) for number in (1, 2))
        assert first.cancel()
        await support.turns(2)
    await second
    assert called == [2]
    assert first.cancelled()


async def test_a_call_that_was_cancelled_while_it_ran(loop):
    """It goes on to its end; nobody is told of its result, or its exception."""
    ended = threading.Semaphore(0)

    def work():
        blocked.work()
        ended.release()
        raise LookupError

    blocked = Blocked(loop)
    future = loop.run_in_executor(None, work)
    blocked.begun.acquire()
    future.cancel()
    await support.turns(2)
    blocked.go_on.set()
    ended.acquire()
    await loop.run_in_executor(None, int)
    assert future.cancelled()


async def test_nothing_is_kept(loop):
    """Neither the function, nor its arguments, nor its result."""

    class Thing:
        def method(self, *things):
            return Thing()

    things = [Thing() for _ in range(5)]
    dead = [weakref.ref(thing) for thing in things]
    result = await loop.run_in_executor(None, things[0].method, *things)
    dead.append(weakref.ref(result))
    del things, result
    # The thread lets go of the call after the loop has the result.
    assert await asyncio.to_thread(support.wait_until, lambda: not any(thing() for thing in dead))


async def test_exceptions_keep_nothing_alive(loop):
    """What the function had dies with its exception, without the collector."""

    class Thing:
        pass

    def fail():
        thing = Thing()
        dead.append(weakref.ref(thing))
        raise LookupError

    dead = []
    gc.disable()
    try:
        for run in (lambda: loop.run_in_executor(None, fail), lambda: asyncio.to_thread(fail)):
            try:
                await run()
            except LookupError:
                assert dead[-1]() is not None
            assert await asyncio.to_thread(support.wait_until, lambda: dead[-1]() is None)
    finally:
        gc.enable()


async def test_deep_recursion(loop):
    """It ends in Python's own error, and the thread goes on."""

    def deeper():
        return deeper() + 1

    for _ in range(3):
        with pytest.raises(RecursionError):
            await loop.run_in_executor(None, deeper)
    assert await loop.run_in_executor(None, int) == 0


async def test_the_loop_is_not_running_in_the_thread(loop):
    with pytest.raises(RuntimeError, match="no running event loop"):
        await loop.run_in_executor(None, asyncio.get_running_loop)


async def test_results_come_in_the_order_in_which_they_were_there(loop):
    """Callbacks of a future run in the loop's thread, a turn after the result."""
    here, seen = threading.get_ident(), []
    future = loop.run_in_executor(None, int)
    future.add_done_callback(lambda future: seen.append((threading.get_ident(), future.result())))
    await future
    await support.turns()
    assert seen == [(here, 0)]


# Threads ----------------------------------------------------------------------------------------


async def test_what_threads_have_of_their_own(loop):
    """Thread-local values live as long as their thread."""

    class Thing:
        pass

    def keep():
        own.thing = Thing()
        return weakref.ref(own.thing)

    own = threading.local()
    dead = await loop.run_in_executor(None, keep)
    assert dead() is not None
    await loop.shutdown_default_executor()
    assert dead() is None


async def test_threads_are_pythons_own(loop):
    thread, known = await loop.run_in_executor(
        None, lambda: (threading.current_thread(), threading.enumerate())
    )
    assert type(thread) is threading.Thread
    assert thread.name == "asyncio_0"
    assert thread in known
    assert not thread.daemon
    assert thread.native_id in support.thread_ids()


async def test_threads_start_on_demand(loop):
    """No more than are needed at once, no more than a ThreadPoolExecutor has."""
    before = len(threading.enumerate())
    for _ in range(20):
        await loop.run_in_executor(None, int)
    # A thread may have told its result and not be idle yet.
    assert 1 <= len(threading.enumerate()) - before <= 3
    async with Blocked(loop):
        names = [thread.name for thread in threading.enumerate() if "asyncio_" in thread.name]
        assert sorted(names) == sorted(f"asyncio_{number}" for number in range(MOST_THREADS))
        late = loop.run_in_executor(None, int)
        assert len(threading.enumerate()) - before == MOST_THREADS
    assert await late == 0


async def test_calls_of_one_turn_run_side_by_side(loop):
    """They wait for each other, on threads that slept."""
    barrier = threading.Barrier(MOST_THREADS)
    for _ in range(20):
        calls = [loop.run_in_executor(None, barrier.wait, 10) for _ in range(MOST_THREADS)]
        assert sorted(await asyncio.gather(*calls)) == list(range(MOST_THREADS))


@pytest.mark.parametrize("use_first", [False, True])
async def test_a_call_begins_while_the_loop_is_blocked(loop, use_first):
    if use_first:
        await loop.run_in_executor(None, int)
    begun = threading.Event()
    future = loop.run_in_executor(None, begun.set)
    assert begun.wait(10)
    await future


async def test_a_call_that_blocks_holds_up_nobody(loop):
    go_on = threading.Event()
    for _ in range(20):
        blocked = loop.run_in_executor(None, go_on.wait, 10)
        calls = [loop.run_in_executor(None, int) for _ in range(10)]
        assert await asyncio.gather(*calls) == [0] * 10
        assert not blocked.done()
        go_on.set()
        assert await blocked
        go_on.clear()


async def test_calls_from_within_calls(loop):
    """A thread has the loop call again, which is ready for it at any time."""

    def ask(depth):
        if depth == 0:
            return 0
        asked = asyncio.run_coroutine_threadsafe(asyncio.to_thread(ask, depth - 1), loop)
        return asked.result(10) + 1

    assert await asyncio.to_thread(ask, MOST_THREADS - 1) == MOST_THREADS - 1


async def test_many_calls_that_let_go_of_the_lock(loop):
    def work(number):
        time.sleep(0)
        return number

    for _ in range(10):
        calls = [loop.run_in_executor(None, work, number) for number in range(200)]
        assert await asyncio.gather(*calls) == list(range(200))


# Executors of ones own --------------------------------------------------------------------------


def test_processes(loop):
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        assert loop.run_until_complete(loop.run_in_executor(pool, os.getpid)) != os.getpid()
    # What multiprocessing leaves running for later.
    from multiprocessing import resource_tracker

    resource_tracker._resource_tracker._stop()


@pytest.mark.skipif(sys.version_info < (3, 14), reason="came with Python 3.14")
async def test_interpreters(loop):
    with concurrent.futures.InterpreterPoolExecutor(1) as pool:
        assert await loop.run_in_executor(pool, int, "5") == 5


async def test_another_default_executor_after_the_first(loop):
    assert await loop.run_in_executor(None, threading.current_thread)
    with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="mine") as pool:
        loop.set_default_executor(pool)
        thread = await loop.run_in_executor(None, threading.current_thread)
        assert thread.name.startswith("mine")
    with pytest.raises(RuntimeError, match=r"^cannot schedule new futures after shutdown$"):
        loop.run_in_executor(None, int)


async def test_an_executor_that_refuses(loop):
    class Refusing(concurrent.futures.ThreadPoolExecutor):
        def submit(self, function, /, *args, **keywords):
            raise NotImplementedError("no calls")

    loop.set_default_executor(Refusing())
    with pytest.raises(NotImplementedError, match=r"^no calls$"):
        loop.run_in_executor(None, int)
