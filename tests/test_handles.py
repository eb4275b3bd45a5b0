"""`Handle` and `TimerHandle`: cancelling, comparing, printing, what they keep alive."""

import asyncio
import contextvars
import sys
import weakref

import pytest

import support

WAYS = {
    "call_soon": lambda loop, *what: loop.call_soon(*what),
    "call_soon_threadsafe": lambda loop, *what: loop.call_soon_threadsafe(*what),
    "call_later": lambda loop, *what: loop.call_later(0, *what),
    "call_at": lambda loop, *what: loop.call_at(loop.time(), *what),
}


@pytest.fixture(params=WAYS)
def schedule(request, loop):
    """One of the four ways to have a callback called: schedule(callback, *args)."""
    return lambda *what: WAYS[request.param](loop, *what)


def test_classes(loop, schedule, request):
    handle = schedule(int)
    timed = "call_later" in request.node.name or "call_at" in request.node.name
    assert isinstance(handle, asyncio.Handle)
    assert isinstance(handle, asyncio.TimerHandle) is timed


def test_cancelled_is_not_called(loop, schedule):
    ran = []
    handles = [schedule(ran.append, number) for number in range(4)]
    handles[1].cancel()
    handles[3].cancel()
    support.spin(loop, 2)
    assert ran == [0, 2]
    assert [handle.cancelled() for handle in handles] == [False, True, False, True]


def test_cancelling_again_changes_nothing(loop, schedule):
    handle = schedule(int)
    assert handle.cancel() is None
    assert handle.cancel() is None
    assert handle.cancelled()


def test_cancelling_lets_go_at_once(loop, schedule):
    class Thing:
        def method(self, other):
            pass

    callback, argument = Thing(), Thing()
    dead = [weakref.ref(callback), weakref.ref(argument)]
    handle = schedule(callback.method, argument)
    del callback, argument
    handle.cancel()
    assert [reference() for reference in dead] == [None, None]
    support.spin(loop, 2)


def test_a_callback_cancels_a_later_one_of_its_turn(loop):
    ran = []
    loop.call_soon(lambda: second.cancel())
    second = loop.call_soon(ran.append, 2)
    loop.call_soon(ran.append, 3)
    support.spin(loop)
    assert ran == [3]


async def test_a_callback_cancels_itself_while_it_runs(loop):
    ran = []

    def callback(argument):
        handle.cancel()
        ran.append(argument)

    argument = object()
    handle = loop.call_soon(callback, argument)
    await support.turns()
    assert ran == [argument]
    assert handle.cancelled()


def test_cancelling_what_already_ran(loop, schedule):
    ran = []
    handle = schedule(ran.append, 1)
    support.spin(loop, 2)
    assert not handle.cancelled()
    handle.cancel()
    assert handle.cancelled()
    later = schedule(ran.append, 2)
    support.spin(loop, 2)
    assert ran == [1, 2]
    assert not later.cancelled()


def test_a_handle_that_is_held_is_nobody_elses(loop, schedule):
    """Storage that is used again must not be that of a handle somebody still holds."""
    held = [schedule(int) for _ in range(100)]
    support.spin(loop, 2)
    ran = []
    fresh = [schedule(ran.append, number) for number in range(100)]
    assert not set(map(id, held)) & set(map(id, fresh))
    for handle in held:
        handle.cancel()
    support.spin(loop, 2)
    assert sorted(ran) == list(range(100))


def test_handles_can_be_weakly_referenced(loop, schedule):
    handle = schedule(int)
    reference = weakref.ref(handle)
    assert reference() is handle
    support.spin(loop, 2)
    del handle
    assert reference() is None


def test_a_cancelled_handle_outlives_its_loop(new_loop):
    loop = new_loop()
    handles = [loop.call_soon(int), loop.call_later(100, int)]
    loop.close()
    for handle in handles:
        handle.cancel()
        assert handle.cancelled()
        assert "cancelled" in repr(handle)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Handle.get_context came with Python 3.12")
def test_get_context(loop, schedule):
    context = contextvars.copy_context()
    assert loop.call_soon(int, context=context).get_context() is context
    assert loop.call_soon_threadsafe(int, context=context).get_context() is context
    assert loop.call_later(0, int, context=context).get_context() is context
    assert loop.call_at(0, int, context=context).get_context() is context
    assert type(schedule(int).get_context()) is contextvars.Context
    support.spin(loop, 2)


# Comparison ----------------------------------------------------------------------------------


def test_handles_compare_by_identity(loop):
    one, other = loop.call_soon(int), loop.call_soon(int)
    assert one == one
    assert one != other
    assert len({one, other, one}) == 2


def test_when(loop):
    before = loop.time()
    later = loop.call_later(5, int)
    assert before + 5 <= later.when() <= loop.time() + 5
    assert loop.call_at(12.5, int).when() == 12.5


def test_when_is_there_without_a_delay(loop):
    """Elsewhere `call_later(0)` has been seen to return a handle without `when()`."""
    for delay in (0, 0.0, -1):
        handle = loop.call_later(delay, int)
        assert isinstance(handle, asyncio.TimerHandle)
        assert isinstance(handle.when(), float)


def test_timers_are_ordered_by_time(loop):
    early, late = loop.call_at(1e9, int), loop.call_at(2e9, int)
    assert early < late and early <= late and early != late
    assert late > early and late >= early
    assert not (early > late or early >= late or late < early or late <= early)
    assert sorted([late, early]) == [early, late]


def test_equal_timers(loop):
    one, other, another = (loop.call_at(1e9, callback) for callback in (int, int, str))
    assert one == other and hash(one) == hash(other)
    assert one <= other and one >= other
    assert not one < other and not one > other
    assert one != another
    assert one <= one and one >= one and one == one
    one.cancel()
    assert one != other


def test_timers_and_other_things(loop):
    timer = loop.call_at(1e9, int)
    soon = loop.call_soon(int)
    assert timer != 1e9 and timer != soon and soon != timer and timer is not None
    for compare in (timer.__lt__, timer.__le__, timer.__gt__, timer.__ge__, timer.__eq__):
        assert compare(1) is NotImplemented
    with pytest.raises(TypeError):
        timer < 1  # noqa: B015
    with pytest.raises(TypeError):
        timer >= soon  # noqa: B015
    support.spin(loop)


# Printing ------------------------------------------------------------------------------------


def callback(*arguments):
    """A callback whose place in this file is part of what handles print."""


class Target:
    """A callable with a representation of its own."""

    def __call__(self):
        pass

    def __repr__(self):
        return "target!"

    def method(self):
        pass


def described(loop):
    """The handles of every kind, in every state, on one loop, as they print themselves."""
    made = [
        loop.call_soon(callback),
        loop.call_soon(callback, 1, "two"),
        loop.call_soon(Target()),
        loop.call_soon(Target().method),
        loop.call_soon(print, "x" * 1000),
        loop.call_soon(lambda: None),
        loop.call_soon_threadsafe(callback, {"a": 1}),
        loop.call_at(1e9, callback),
        loop.call_at(1.5e9, callback, 1),
        loop.call_at(2e9, callback, 2),
    ]
    made[1].cancel()
    made[-1].cancel()
    return [support.normal(repr(handle)) for handle in made]


@pytest.mark.parametrize("debug", [False, True])
def test_printed_as_asyncio_prints_them(new_loop, debug):
    loop, model = new_loop(), asyncio.SelectorEventLoop()
    model.set_debug(debug)
    loop.set_debug(debug)
    expected, printed = described(model), described(loop)
    model.close()
    assert printed == expected


def test_what_already_ran_can_be_printed(loop, schedule):
    handle = schedule(callback, 1)
    support.spin(loop, 2)
    assert "callback(" in repr(handle)
