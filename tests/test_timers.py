"""`call_later`, `call_at`, `time`: when timers run, in which order, never early."""

import asyncio
import gc
import random
import time
import weakref
from fractions import Fraction

import support


def test_the_clock_is_the_monotonic_one(loop):
    """Libraries compare `loop.time()` with `time.monotonic()`."""
    for _ in range(1000):
        before = time.monotonic()
        now = loop.time()
        assert type(now) is float
        assert before <= now <= time.monotonic()


async def test_never_early(loop):
    """Rounding of a wait to whole milliseconds has made other loops early by up to one."""
    finished = loop.create_future()
    waiting = 300
    lateness = []

    def check(due):
        nonlocal waiting
        lateness.append(loop.time() - due)
        waiting -= 1
        if not waiting:
            finished.set_result(None)

    chance = random.Random(1)
    for _ in range(waiting):
        delay = chance.uniform(0, 0.1)
        due = loop.time() + delay
        loop.call_later(delay, check, due)
    await finished
    assert min(lateness) >= 0


async def test_never_early_one_at_a_time(loop):
    for delay in (0.0001, 0.0003, 0.0005, 0.001, 0.0015, 0.0101):
        for _ in range(5):
            began = time.monotonic()
            await asyncio.sleep(delay)
            assert time.monotonic() - began >= delay


async def test_short_sleeps_are_short(loop, mioloop_only):
    """asyncio rounds up to a whole millisecond; the best of many shows what the loop can do."""
    taken = []
    for _ in range(100):
        began = time.monotonic()
        await asyncio.sleep(0.0003)
        taken.append(time.monotonic() - began)
    assert 0.0003 <= min(taken) < 0.0009


async def test_in_order_of_time(loop):
    ran = []
    base = loop.time()
    numbers = list(range(500))
    random.Random(2).shuffle(numbers)
    for number in numbers:
        loop.call_at(base + number / 10_000, ran.append, number)
    finished = loop.create_future()
    loop.call_at(base + 0.06, finished.set_result, None)
    await finished
    assert ran == sorted(numbers)


def test_first_come_first_served_among_equals(loop, mioloop_only):
    """asyncio's heap promises nothing for three or more of the same time."""
    ran = []
    due = loop.time() + 0.001
    for number in range(1000):
        loop.call_at(due, ran.append, number)
    loop.call_at(due, loop.stop)
    loop.run_forever()
    assert ran == list(range(1000))


def test_due_timers_come_after_what_was_ready(loop):
    ran = []
    loop.call_later(0, ran.append, "timer")
    loop.call_at(0, ran.append, "long due")
    loop.call_soon(ran.append, "soon")
    support.spin(loop)
    assert ran == ["soon", "long due", "timer"]


def test_past_times_and_negative_delays_run_at_once(loop):
    ran = []
    loop.call_later(-10, ran.append, -10)
    loop.call_at(-5, ran.append, -5)
    loop.call_at(loop.time() - 1, ran.append, -1)
    support.spin(loop)
    assert sorted(ran) == [-10, -5, -1]


async def test_delays_of_other_number_types(loop):
    ran = []
    begun = loop.time()
    for delay in (Fraction(1, 1000), True, 0):
        handle = loop.call_later(delay, ran.append, delay)
        assert isinstance(handle.when(), float)
        assert abs(handle.when() - begun - delay) < 0.5
    integer = int(loop.time()) - 1
    assert loop.call_at(integer, ran.append, "int").when() == integer
    await asyncio.sleep(0.002)
    assert ran[0] == "int"
    assert {0, Fraction(1, 1000)} <= set(ran[1:])


async def test_delays_without_end(loop):
    """Centuries, and infinity, are times like any other."""
    handles = [loop.call_later(delay, int) for delay in (1e9, 1e12, 1e300, float("inf"))]
    handles.append(loop.call_at(float("inf"), int))
    handles.append(loop.call_at(float("-inf"), int))
    await asyncio.sleep(0.001)
    assert handles[3].when() == handles[4].when() == float("inf")
    for handle in handles:
        handle.cancel()


async def test_cancelled_timers_are_not_waited_for(loop):
    ran = []
    loop.call_later(0.001, ran.append, "cancelled").cancel()
    late = loop.call_later(30, ran.append, "late")
    await asyncio.sleep(0.005)
    late.cancel()
    assert ran == []


def test_a_loop_without_timers_left_goes_on(loop):
    """The last timer is cancelled by a callback of the same turn."""
    handle = loop.call_later(0.001, int)
    loop.call_soon(handle.cancel)
    loop.call_later(0.002, loop.stop)
    loop.run_forever()


async def test_a_timer_that_cancels_its_neighbour(loop):
    """Both are due in one turn: the first to run silences the other."""
    ran = []
    due = loop.time() + 0.001

    def silence(index):
        ran.append(index)
        handles[1 - index].cancel()

    handles = [loop.call_at(due, silence, index) for index in range(2)]
    await asyncio.sleep(0.005)
    assert len(ran) == 1


async def test_timers_set_by_timers(loop):
    finished = loop.create_future()

    def tick(left):
        if left:
            loop.call_later(0, tick, left - 1)
        else:
            finished.set_result(None)

    tick(1000)
    await finished


async def test_a_due_timer_is_not_stranded(loop):
    """A callback sets a timer that is due before the poll that follows would end."""
    ours, theirs = support.socket_pair("unix")
    with ours, theirs:
        finished = loop.create_future()

        def set_due_timer():
            ours.recv(10)
            loop.call_at(loop.time(), finished.set_result, None)

        loop.add_reader(ours, set_due_timer)
        theirs.send(b"x")
        await finished
        loop.remove_reader(ours)


async def test_a_nearer_timer_shortens_the_wait(loop):
    loop.call_later(1000, int)
    began = time.monotonic()
    loop.call_soon(loop.call_later, 0.01, int)
    await asyncio.sleep(0.02)
    assert time.monotonic() - began < 10


def test_timers_wait_for_the_loop_to_run(loop):
    ran = []
    handle = loop.call_later(0.001, ran.append, 1)
    while loop.time() < handle.when():
        pass
    assert ran == []
    support.spin(loop)
    assert ran == [1]


def test_stopping_does_not_lose_timers(loop):
    ran = []
    loop.call_later(0.003, ran.append, "kept")
    support.spin(loop)
    while not ran:
        support.spin(loop)
    assert ran == ["kept"]


async def test_masses_of_cancelled_timers_cost_no_memory(loop):
    """Time-outs that never fire, the commonest use of a timer."""

    async def work():
        for _ in range(5000):
            loop.call_later(3600, int, 1).cancel()
        await support.turns(2)

    await work()
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(4):
        await work()
    gc.collect()
    assert len(gc.get_objects()) - before < 1000


async def test_a_timer_that_ran_is_let_go(loop):
    class Thing:
        pass

    thing = Thing()
    dead = weakref.ref(thing)
    loop.call_later(0, lambda thing: None, thing)
    del thing
    await support.turns(3)
    assert dead() is None


async def test_a_failing_timer_is_reported(loop, reports):
    ran = []
    handle = loop.call_later(0, lambda: 1 / 0)
    loop.call_later(0, ran.append, 1)
    await support.turns(3)
    context = reports.take_one()
    assert isinstance(context["exception"], ZeroDivisionError)
    assert context["handle"] is handle
    assert ran == [1]


async def test_timeouts_and_sleeps_of_asyncio(loop):
    try:
        async with asyncio.timeout(0.005):
            await asyncio.sleep(30)
    except TimeoutError:
        pass
    else:
        raise AssertionError("the time-out did not come")
    async with asyncio.timeout(30):
        assert await asyncio.sleep(0.001, "result") == "result"
    assert await asyncio.wait_for(asyncio.sleep(0, 7), 5) == 7


def test_what_sleepers_are_woken_by(loop, reports):
    """asyncio's own callback: futures that are waited for, cancelled, done, and none at all."""
    wake = asyncio.futures._set_result_unless_cancelled
    futures = [loop.create_future() for _ in range(4)]
    futures[1].cancel()
    futures[2].set_result("before")
    for future in futures[:3]:
        loop.call_later(0, wake, future, "result")
    loop.call_later(0, wake, object(), "result")
    loop.call_soon(wake, futures[3], "soon")
    support.spin(loop, 3)
    assert [future.cancelled() or future.result() for future in futures] == [
        "result",
        True,
        "before",
        "soon",
    ]
    seen = reports.take()
    assert [type(report["exception"]) for report in seen] == [
        asyncio.InvalidStateError,
        AttributeError,
    ]
    assert all("_set_result_unless_cancelled" in report["message"] for report in seen)
