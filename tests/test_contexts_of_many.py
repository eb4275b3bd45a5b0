"""Contexts of callbacks of which many wait at once: each has its own copy, to all appearances."""

import contextvars
import gc
import sys
import threading
import weakref

import pytest

import support

# More than wait before mioloop lets them share a copy.
MANY = 1_500

variable = contextvars.ContextVar("variable", default="unset")
other = contextvars.ContextVar("other", default=0)

shows_context = pytest.mark.skipif(
    sys.version_info < (3, 12), reason="Handle.get_context came with Python 3.12"
)


@pytest.fixture(params=["call_soon", "call_soon_threadsafe", "call_later"])
def schedule(request, loop):
    """Schedules a callback for one of the next turns."""
    if request.param == "call_later":
        return lambda callback, *args: loop.call_later(0, callback, *args)
    return getattr(loop, request.param)


def run_all(loop):
    """Runs until what waits has run, timers too."""
    support.spin(loop, 3)


def test_what_one_sets_no_other_sees(loop, schedule):
    seen = []

    def look(number):
        seen.append((variable.get(), other.get()))
        if number % 3:
            variable.set(number)

    for number in range(MANY):
        schedule(look, number)
        if number % 50 == 49:
            other.set(number)
    other.set(0)
    run_all(loop)
    expected = [
        ("unset", number - number % 50 - 1 if number >= 50 else 0) for number in range(MANY)
    ]
    assert seen == expected
    assert variable.get() == "unset"


def test_each_sees_what_was_set_when_it_was_scheduled(loop, schedule):
    seen = []
    for number in range(MANY):
        token = other.set(number)
        schedule(lambda: seen.append(other.get()))
        other.reset(token)
    run_all(loop)
    assert seen == list(range(MANY))


def test_what_callbacks_schedule_has_their_context(loop, schedule):
    seen = []

    def begin(number):
        if number % 2:
            variable.set(number)
        schedule(lambda: seen.append((number, variable.get())))

    for number in range(MANY):
        schedule(begin, number)
    support.spin(loop, 6)
    expected = [(number, number if number % 2 else "unset") for number in range(MANY)]
    assert sorted(seen) == expected


def test_a_token_is_of_one_callback(loop, schedule):
    """Setting what is set already changes nothing, and yet the token belongs to the context."""
    tokens, refused = [], []

    def set_it():
        tokens.append(variable.set("same"))

    def reset_it(number):
        try:
            variable.reset(tokens[number])
        except ValueError:
            refused.append(number)

    token = variable.set("same")
    for _ in range(MANY):
        schedule(set_it)
    run_all(loop)
    for number in range(MANY):
        schedule(reset_it, number)
    run_all(loop)
    variable.reset(token)
    assert len(tokens) == MANY
    assert refused == list(range(MANY))


@shows_context
def test_a_handle_shows_one_context_for_good(loop, schedule):
    handles = [schedule(int) for _ in range(MANY)]
    waiting = [handle.get_context() for handle in handles[::2]]
    assert len(set(map(id, waiting))) == MANY // 2
    assert [handle.get_context() for handle in handles[::2]] == waiting
    run_all(loop)
    assert [handle.get_context() for handle in handles[::2]] == waiting
    assert len({id(handle.get_context()) for handle in handles}) == MANY


@shows_context
def test_a_handle_shows_the_context_that_it_ran_in(loop, schedule):
    handles = []
    shown = []

    def run(number):
        if number % 2:
            variable.set(number)
        if number % 3 == 0:
            shown.append(handles[number].get_context())
        if number % 5 == 0:
            assert handles[number].get_context().get(variable) == (number if number % 2 else None)

    for number in range(MANY):
        handles.append(schedule(run, number))
    run_all(loop)
    assert all(
        a is handles[number].get_context()
        for number, a in zip(range(0, MANY, 3), shown, strict=True)
    )
    values = [handle.get_context().get(variable) for handle in handles]
    assert values == [number if number % 2 else None for number in range(MANY)]
    assert len({id(handle.get_context()) for handle in handles}) == MANY
    shown[0].run(variable.set, "changed")
    assert handles[1].get_context().get(variable) == 1
    assert variable.get() == "unset"


@shows_context
def test_a_report_shows_the_context_that_the_callback_ran_in(loop, schedule, reports):
    def fail(number):
        variable.set(number)
        raise ValueError("on purpose")

    for _ in range(MANY):
        schedule(int)
    for number in range(90):
        schedule(fail, number)
    run_all(loop)
    contexts = [report["handle"].get_context() for report in reports.take()]
    assert [context[variable] for context in contexts] == list(range(90))


@shows_context
def test_cancelled_handles_have_contexts_too(loop, schedule):
    handles = [schedule(int) for _ in range(MANY)]
    for handle in handles:
        handle.cancel()
    run_all(loop)
    assert len({id(handle.get_context()) for handle in handles}) == MANY


def count_contexts():
    return sum(type(thing) is contextvars.Context for thing in gc.get_objects())


def test_there_are_fewer_copies_than_callbacks(loop, schedule, mioloop_only):
    before = count_contexts()
    handles = [schedule(int) for _ in range(MANY)]
    assert count_contexts() - before < MANY * 3 / 4
    run_all(loop)
    assert count_contexts() - before < MANY * 3 / 4
    assert len(handles) == MANY


def test_values_die_with_the_callbacks(loop, schedule):
    class Value:
        pass

    def begin():
        value = Value()
        variable.set(value)
        for _ in range(MANY):
            schedule(int)
        return weakref.ref(value)

    reference = contextvars.copy_context().run(begin)
    assert reference() is not None
    run_all(loop)
    gc.collect()
    assert reference() is None


def test_values_die_while_the_loop_waits(loop):
    """The loop keeps no copy that only it would use."""

    class Value:
        pass

    died = threading.Event()

    def begin():
        value = Value()
        weakref.finalize(value, died.set)
        variable.set(value)
        for _ in range(MANY):
            loop.call_soon(int)

    def wait():
        answers.append(died.wait(10))
        loop.call_soon_threadsafe(loop.stop)

    answers = []
    waiter = threading.Thread(target=wait)
    loop.call_soon(contextvars.copy_context().run, begin)
    waiter.start()
    loop.run_forever()
    waiter.join()
    assert answers == [True]
