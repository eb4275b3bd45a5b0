"""The end of the default executor: shut down, with its loop, with the interpreter, after a fork."""

import asyncio
import gc
import sys
import threading
import time
import weakref

import pytest

import executors
import support


async def test_after_the_executor_was_shut_down(loop):
    assert await loop.run_in_executor(None, int) == 0
    await loop.shutdown_default_executor()
    with pytest.raises(RuntimeError, match=r"^Executor shutdown has been called$"):
        loop.run_in_executor(None, int)


async def test_shutting_down_waits_for_what_runs(loop):
    ended = []
    future = loop.run_in_executor(None, lambda: (time.sleep(0.05), ended.append(1)))
    await loop.shutdown_default_executor()
    assert ended == [1]
    await future


@pytest.mark.skipif(sys.version_info < (3, 12), reason="came with Python 3.12")
async def test_shutting_down_has_an_end(loop, loop_name):
    if loop_name == "asyncio" and sys.version_info < (3, 13):
        pytest.skip("asyncio of Python 3.12 waits for ever")
    go_on = threading.Event()
    future = loop.run_in_executor(None, go_on.wait)
    try:
        with pytest.warns(RuntimeWarning, match="joining its threads within 0.01 seconds"):
            await loop.shutdown_default_executor(0.01)
    finally:
        go_on.set()
    assert await future


def test_no_executor_on_a_closed_loop(loop):
    loop.close()
    with pytest.raises(RuntimeError, match=r"^Event loop is closed$"):
        loop.run_in_executor(None, int)


async def test_shutting_down_ends_the_threads(loop):
    before = threading.enumerate()
    await asyncio.gather(*[loop.run_in_executor(None, time.sleep, 0.001) for _ in range(10)])
    assert len(threading.enumerate()) > len(before)
    await loop.shutdown_default_executor()
    assert threading.enumerate() == before


async def test_what_is_queued_is_run_before_the_end(loop):
    called = []
    async with executors.Blocked(loop) as blocked:
        futures = [loop.run_in_executor(None, called.append, number) for number in range(10)]
        ending = asyncio.ensure_future(loop.shutdown_default_executor())
        await support.turns(3)
        assert not ending.done()
        blocked.go_on.set()
        await ending
    assert sorted(called) == list(range(10))
    await asyncio.gather(*futures)


def test_a_loop_that_is_closed_while_a_call_runs(new_loop):
    loop = new_loop()
    blocked = executors.Blocked(loop)
    loop.run_in_executor(None, blocked.work)
    blocked.begun.acquire()
    loop.close()
    blocked.go_on.set()


def test_a_loop_that_is_dropped_unclosed(loop_factory):
    """Its threads do not keep it; they end with it."""
    before = threading.enumerate()
    loop = loop_factory()
    loop.run_until_complete(loop.run_in_executor(None, int))
    assert len(threading.enumerate()) > len(before)
    gone = weakref.ref(loop)
    held = [loop]
    del loop
    with pytest.warns(ResourceWarning, match="^unclosed event loop"):
        assert support.wait_until(lambda: held.clear() or gc.collect() >= 0)
    # The recorded warning was the last to hold it.
    assert support.wait_until(lambda: gc.collect() >= 0 and gone() is None)
    assert support.wait_until(lambda: threading.enumerate() == before)


def test_a_loop_dropped_with_calls_queued(loop_factory):
    """They are run all the same."""
    before = threading.enumerate()
    called = []
    loop = loop_factory()

    blocked = executors.Blocked(loop)
    for _ in range(executors.MOST_THREADS):
        loop.run_in_executor(None, blocked.work)
    for number in range(5):
        loop.run_in_executor(None, called.append, number)
    loop.close()
    del loop, blocked.loop
    blocked.go_on.set()
    assert support.wait_until(lambda: threading.enumerate() == before)
    assert sorted(called) == list(range(5))


@pytest.mark.parametrize("end", ["loop.close()", "del loop", "pass"])
def test_exit_with_idle_threads(script, end):
    code = f"""
import warnings
warnings.simplefilter("ignore", ResourceWarning)
loop = new_loop()
loop.run_until_complete(asyncio.to_thread(print, "called"))
{end}
"""
    assert script.check(code) == "called\n"


def test_exit_with_calls_queued(script):
    """They are run to the end before the interpreter goes."""
    code = """
import time, warnings
warnings.simplefilter("ignore", ResourceWarning)
loop = new_loop()
async def main():
    for number in range(50):
        loop.run_in_executor(None, lambda: (time.sleep(0.001), print("called\\n", end="")))
loop.run_until_complete(main())
"""
    assert script.check(code) == "called\n" * 50


def test_exit_from_a_daemon_thread_s_loop(script):
    """The threads of its executor are joined at exit, though they are daemons too."""
    code = """
import threading, time
def work():
    loop = new_loop()
    loop.run_in_executor(None, lambda: (begun.set(), time.sleep(0.01), print("called")))
    loop.run_forever()
begun = threading.Event()
threading.Thread(target=work, daemon=True).start()
begun.wait()
"""
    assert script.check(code) == "called\n"


def test_no_calls_after_the_end_of_threads(script):
    code = """
import atexit
def late():
    loop = new_loop()
    for used in (used_loop, loop):
        try:
            used.run_in_executor(None, int)
        except RuntimeError as error:
            print(error)
        used.close()
used_loop = new_loop()
used_loop.run_until_complete(asyncio.to_thread(int))
atexit.register(late)
"""
    text = "cannot schedule new futures after interpreter shutdown"
    assert script.check(code).splitlines() in (
        [text, text],
        ["cannot schedule new futures after shutdown", text],
    )


def test_forked_children_exit(script):
    """A child has none of the threads, and does not wait for them."""
    code = """
import os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
loop = new_loop()
loop.run_until_complete(asyncio.to_thread(int))
pid = os.fork()
if pid == 0:
    warnings.simplefilter("ignore", ResourceWarning)
    own = new_loop()
    own.run_until_complete(asyncio.to_thread(print, "child"))
    own.close()
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
loop.close()
"""
    assert script.check(code) == "child\n"
