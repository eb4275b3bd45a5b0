"""What cuts in: KeyboardInterrupt beside an event, destructors, threads, the interpreter's end."""

import asyncio
import contextvars
import ctypes
import os
import signal
import socket
import threading
import time

import pytest

import support


@pytest.mark.parametrize("is_busy", [False, True])
def test_an_event_that_comes_with_an_interrupt_is_not_lost(loop, is_busy):
    """The kernel reports the bytes once; the signal handler raises before they are read."""
    library = ctypes.PyDLL(None)  # keeps the GIL
    ours, theirs = socket.socketpair()
    recorder = support.Recorder()
    waiting = threading.Event()

    def spin():
        waiting.set()
        if is_busy:
            loop.call_soon(spin)

    def interrupt():
        waiting.wait()
        library.send(theirs.fileno(), b"x", 1, 0)
        library.kill(os.getpid(), signal.SIGINT)

    with ours, theirs:
        made = loop.create_connection(lambda: recorder, sock=ours)
        transport, _ = loop.run_until_complete(made)
        thread = threading.Thread(target=interrupt)
        thread.start()
        loop.call_soon(spin)
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        thread.join()
        is_busy = False
        loop.run_until_complete(asyncio.wait_for(recorder.wait_bytes(1), 10))
        transport.close()
        loop.run_until_complete(recorder.wait_event("lost"))


def test_a_timer_set_by_what_dies_before_the_loop_sleeps(loop, mioloop_only):
    """A cancelled timer holds its context until it is looked at, which is when nothing is ready."""
    variable = contextvars.ContextVar("variable")

    class Dying:
        def __del__(self):
            loop.call_later(0.01, loop.stop)

    context = contextvars.copy_context()
    context.run(variable.set, Dying())
    loop.call_later(1000, int, context=context).cancel()
    del context
    late = loop.call_later(20, loop.stop)
    start = time.monotonic()
    loop.run_forever()
    late.cancel()
    assert time.monotonic() - start < 10


def test_callbacks_that_are_no_python_code_let_other_threads_run(script):
    """Python lets go of its lock between bytecodes, and here there are none."""
    code = """
    import functools, threading
    loop = new_loop()
    again = functools.partial(int)
    again.__setstate__((loop.call_soon, (again,), {}, {}))
    loop.call_soon(again)
    threading.Timer(0.01, loop.stop).start()
    loop.run_forever()
    loop.close()
    print("stopped")
    """
    assert script.check(code) == "stopped\n"


def test_a_busy_loop_lets_other_threads_run(loop):
    """A thread that wakes again and again gets the lock each time, and soon."""
    wakes = 100

    def wake():
        for _ in range(wakes):
            time.sleep(0.0005)
        loop.call_soon_threadsafe(done.set_result, None)

    def again():
        if not done.done():
            loop.call_soon(again)

    done = loop.create_future()
    loop.call_soon(again)
    start = time.monotonic()
    threading.Thread(target=wake).start()
    loop.run_until_complete(done)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    "step", ["asyncio.sleep(0)", "asyncio.sleep(0.0001)", "asyncio.sleep(100)"]
)
def test_the_interpreter_ends_while_a_daemon_thread_runs_a_loop(script, step):
    code = """
    import threading, warnings
    warnings.simplefilter("ignore")
    started = threading.Event()

    async def main():
        while True:
            started.set()
            await STEP

    loop = new_loop()
    threading.Thread(target=lambda: loop.run_until_complete(main()), daemon=True).start()
    started.wait()
    print("end")
    """
    for _ in range(3):
        assert script.check(code.replace("STEP", step)) == "end\n"
