"""Signal handlers of the loop, wake-up descriptors, and KeyboardInterrupt.

Signals of this process are SIGUSR1 and SIGUSR2; what would end the test run happens in a process
of its own.
"""

import ctypes
import os
import signal
import threading

import pytest

import support


@pytest.fixture(autouse=True)
def signals_as_before():
    """The process gets back the handlers and the wake-up descriptor it had."""
    numbers = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield
    wakeup = signal.set_wakeup_fd(-1)
    after = [signal.getsignal(number) for number in numbers]
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)
    assert wakeup == -1
    assert after == before


def send(number=signal.SIGUSR1):
    """Send a signal to this process."""
    os.kill(os.getpid(), number)


async def test_handler_is_called(loop):
    counter = support.Counter(loop)
    loop.add_signal_handler(signal.SIGUSR1, counter, 1, "two")
    send()
    await counter.at(1)
    assert counter.arguments == (1, "two")
    send()
    await counter.at(2)
    assert loop.remove_signal_handler(signal.SIGUSR1) is True
    assert loop.remove_signal_handler(signal.SIGUSR1) is False


async def test_wakes_a_sleeping_loop(loop):
    counter = support.Counter(loop)
    loop.add_signal_handler(signal.SIGUSR1, counter)
    for number in range(1, 21):
        thread = threading.Thread(target=send)
        loop.call_soon(thread.start)
        await counter.at(number)
        thread.join()
    loop.remove_signal_handler(signal.SIGUSR1)


def test_a_signal_that_no_python_code_noticed_is_not_slept_over(loop):
    """It comes while the loop runs code in C, with nothing of Python's before the loop sleeps."""
    late = []

    def give_up():
        late.append(True)
        loop.stop()

    signal.signal(signal.SIGUSR1, lambda _number, _frame: loop.call_soon_threadsafe(loop.stop))
    try:
        loop.call_soon(ctypes.CDLL(None)["raise"], int(signal.SIGUSR1))
        timer = loop.call_later(10, give_up)
        loop.run_forever()
        timer.cancel()
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    assert not late


async def test_interrupts_a_busy_loop(loop):
    counter = support.Counter(loop)
    loop.add_signal_handler(signal.SIGUSR1, counter)
    send()
    for _ in range(1000):
        await support.turns()
    assert counter.calls == 1
    loop.remove_signal_handler(signal.SIGUSR1)


async def test_several_signals(loop):
    seen = []
    counter = support.Counter(loop)
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGCHLD):
        loop.add_signal_handler(number, lambda number=number: (seen.append(number), counter()))
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGUSR2, signal.SIGUSR1):
        send(number)
    await counter.at(4)
    assert len(seen) == len(set(seen)) == 4
    for number in seen:
        assert loop.remove_signal_handler(number) is True
        assert signal.getsignal(number) is signal.SIG_DFL


async def test_adding_again_replaces(loop):
    old, new = support.Counter(loop), support.Counter(loop)
    loop.add_signal_handler(signal.SIGUSR1, old)
    loop.add_signal_handler(signal.SIGUSR1, new)
    send()
    await new.at(1)
    assert old.calls == 0
    assert loop.remove_signal_handler(signal.SIGUSR1) is True
    assert loop.remove_signal_handler(signal.SIGUSR1) is False


async def test_removed_in_its_own_callback(loop):
    counter = support.Counter(loop, lambda: loop.remove_signal_handler(signal.SIGUSR1))
    loop.add_signal_handler(signal.SIGUSR1, counter)
    send()
    await counter.at(1)
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


async def test_a_failing_handler_is_reported(loop, reports):
    def fail():
        raise ValueError("on purpose")

    loop.add_signal_handler(signal.SIGUSR1, fail)
    send()
    while not reports.contexts:
        await support.turns()
    assert isinstance(reports.take_one()["exception"], ValueError)
    loop.remove_signal_handler(signal.SIGUSR1)


def test_a_signal_between_two_runs(loop):
    ran = []
    loop.add_signal_handler(signal.SIGUSR1, ran.append, 1)
    send()
    support.spin(loop, 3)
    assert ran == [1]
    loop.remove_signal_handler(signal.SIGUSR1)


def test_closing_restores(new_loop):
    loop = new_loop()
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        loop.add_signal_handler(number, int)
    loop.close()
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL
    assert signal.set_wakeup_fd(-1) == -1


def test_closing_a_loop_leaves_the_handlers_of_others(new_loop):
    def mine(number, frame):
        pass

    signal.signal(signal.SIGUSR2, mine)
    loop = new_loop()
    loop.add_signal_handler(signal.SIGUSR1, int)
    support.spin(loop)
    loop.close()
    assert signal.getsignal(signal.SIGUSR2) is mine
    signal.signal(signal.SIGUSR2, signal.SIG_DFL)


def test_interrupt_gets_its_own_default_back(loop):
    before = signal.getsignal(signal.SIGINT)
    loop.add_signal_handler(signal.SIGINT, int)
    assert loop.remove_signal_handler(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_the_wakeup_descriptor_is_chained_and_restored(new_loop, mioloop_only):
    """asyncio takes the place of the one that was set; programs that set one lose it."""
    ours, theirs = support.socket_pair("unix")
    signal.set_wakeup_fd(theirs.fileno())
    loop = new_loop()
    loop.add_signal_handler(signal.SIGUSR1, loop.stop)
    loop.call_soon(send)
    loop.run_forever()
    assert ours.recv(10) == bytes([signal.SIGUSR1])
    loop.close()
    assert signal.set_wakeup_fd(-1) == theirs.fileno()
    ours.close()
    theirs.close()


# Handlers that are not the loop's ----------------------------------------------------------------


def test_a_python_handler_runs_while_the_loop_sleeps(loop):
    """It wakes the loop by the call that is made for it."""

    def handler(number, frame):
        loop.call_soon_threadsafe(loop.stop)

    before = signal.signal(signal.SIGUSR1, handler)
    thread = threading.Thread(target=send)
    loop.call_soon(thread.start)
    loop.run_forever()
    thread.join()
    signal.signal(signal.SIGUSR1, before)


ALARM = """
import signal
loop = new_loop()
loop.call_soon(signal.setitimer, signal.ITIMER_REAL, 0.05)
class Enough(Exception): pass
def leave(number, frame): raise Enough
def stop(number, frame): loop.call_soon(loop.stop)
"""


def test_a_python_handler_may_use_call_soon(script, mioloop_only):
    """Notebooks do so; asyncio goes back to sleep without a look at its queue."""
    code = """
signal.signal(signal.SIGALRM, stop)
loop.run_forever()
loop.close()
print("stopped")
"""
    assert script.check(ALARM + code) == "stopped\n"


def test_what_a_python_handler_raises_leaves_the_loop(script):
    code = """
signal.signal(signal.SIGALRM, leave)
try:
    loop.run_forever()
except Enough:
    print(loop.is_running(), loop.run_until_complete(asyncio.sleep(0, 5)))
loop.close()
"""
    assert script.check(ALARM + code) == "False 5\n"


def test_a_timer_after_a_signal_is_on_time(loop):
    """Interrupting the wait neither ends it early nor begins it anew."""
    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    due = loop.time() + 0.05
    late = []
    loop.call_at(due, lambda: (late.append(loop.time() - due), loop.stop()))
    thread = threading.Thread(target=lambda: [send() for _ in range(5)])
    loop.call_soon(thread.start)
    loop.run_forever()
    thread.join()
    signal.signal(signal.SIGUSR1, before)
    assert 0 <= late[0] < 10


# KeyboardInterrupt -------------------------------------------------------------------------------

INTERRUPT = "import os, signal\ninterrupt = lambda: os.kill(os.getpid(), signal.SIGINT)\n"

ENDINGS = {
    "a task that sleeps": "loop.call_soon(interrupt); await asyncio.sleep(60)",
    "a task that is busy": "interrupt()\n        while True: await asyncio.sleep(0)",
}


@pytest.mark.parametrize("body", ENDINGS.values(), ids=ENDINGS)
def test_runner_cancels_the_main_task(script, body):
    code = f"""
async def main():
    loop = asyncio.get_running_loop()
    try:
        {body}
    except asyncio.CancelledError:
        print("cancelled")
        raise
try:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
except KeyboardInterrupt:
    print("interrupted", signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""
    assert script.check(INTERRUPT + code) == "cancelled\ninterrupted True\n"


def test_runner_interrupts_python_code_the_second_time(script):
    code = """
async def main():
    try:
        interrupt()
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        try:
            interrupt()
            while True: pass
        except KeyboardInterrupt:
            print("at once")
            raise
try:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
except KeyboardInterrupt:
    print("interrupted")
"""
    assert script.check(INTERRUPT + code) == "at once\ninterrupted\n"


@pytest.mark.parametrize(
    "body",
    [
        "loop.call_soon(interrupt)",
        "loop.call_later(0.01, interrupt)",
        "loop.call_soon(soon.start)",
        "chain(); loop.call_soon(soon.start)",
        "loop.call_soon(soon.start); loop.call_soon(spin)",
    ],
)
def test_interrupting_a_loop_that_runs_for_ever(script, body):
    """Without a Runner the exception comes out of `run_forever`, wherever the loop is."""
    code = f"""
import threading
loop = new_loop()
soon = threading.Timer(0.01, interrupt)  # started by the loop: it may take long to begin
def chain(): loop.call_soon(chain)
def spin():
    while True: pass
{body}
try:
    loop.run_forever()
except KeyboardInterrupt:
    print("interrupted")
print(loop.run_until_complete(asyncio.sleep(0, 5)))
loop.close()
"""
    assert script.check(INTERRUPT + code) == "interrupted\n5\n"


def test_interrupted_from_outside(script):
    process = script.start("""
        async def main():
            print("ready", flush=True)
            await asyncio.sleep(60)
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(main())
        """)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert error.rstrip().endswith("KeyboardInterrupt")
    assert process.returncode == -signal.SIGINT


def test_terminated_while_it_sleeps(script):
    """The default action of a signal still ends the process."""
    process = script.start("""
        loop = new_loop()
        loop.call_soon(lambda: print("ready", flush=True))
        loop.run_forever()
        """)
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGTERM
