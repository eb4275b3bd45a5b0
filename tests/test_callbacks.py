"""`call_soon` and the turn: order, arguments, fairness, what is let go of afterwards."""

import asyncio
import contextlib
import contextvars
import functools
import gc
import weakref

import pytest

import support


def test_callbacks_run_in_order(loop):
    ran = []
    for number in range(1000):
        loop.call_soon(ran.append, number)
    support.spin(loop)
    assert ran == list(range(1000))


@pytest.mark.parametrize("count", range(8))
def test_arguments_arrive(loop, count):
    ran = []
    arguments = tuple(object() for _ in range(count))
    loop.call_soon(lambda *given: ran.append(given), *arguments)
    support.spin(loop)
    assert ran == [arguments]


def test_arguments_may_be_named(loop):
    ran = []
    loop.call_soon(callback=lambda: ran.append("soon"))
    loop.call_soon_threadsafe(
        context=contextvars.copy_context(), callback=lambda: ran.append("safe")
    )
    loop.call_later(0, callback=lambda: ran.append("later"))
    loop.call_at(callback=lambda: ran.append("at"), when=loop.time())
    support.spin(loop, 5)
    assert sorted(ran) == ["at", "later", "safe", "soon"]


@pytest.mark.parametrize("name", ["call_soon", "call_soon_threadsafe", "call_later", "call_at"])
def test_wrong_keywords_are_refused(loop, name):
    required = (0, print) if name in ("call_later", "call_at") else (print,)
    for arguments, keywords in [
        (required, {"callback": print}),
        (required, {"nothing": 1}),
        (required[:-1], {}),
        ((), {"context": None}),
    ]:
        with pytest.raises(TypeError):
            getattr(loop, name)(*arguments, **keywords)


class Callable:
    def __init__(self):
        self.ran = []

    def __call__(self, *arguments):
        self.ran.append(arguments)

    def method(self, *arguments):
        self.ran.append(arguments)


def test_every_sort_of_callable(loop):
    target = Callable()
    found = []
    for callback in (target, target.method, target.ran.append, functools.partial(target, 1)):
        loop.call_soon(callback, 2)
    loop.call_soon(Callable)
    loop.call_soon(found.extend, (3, 4))
    support.spin(loop)
    assert target.ran == [(2,), (2,), 2, (1, 2)]
    assert found == [3, 4]


def test_result_of_a_callback_is_ignored(loop):
    loop.call_soon(lambda: 1 / 3)
    loop.call_soon(lambda: NotImplemented)
    support.spin(loop)


def test_a_turn_runs_what_was_ready_when_it_began(loop):
    ran = []

    def first():
        ran.append("first")
        loop.call_soon(ran.append, "next turn")

    loop.call_soon(first)
    loop.call_soon(ran.append, "second")
    support.spin(loop)
    assert ran == ["first", "second"]
    support.spin(loop)
    assert ran == ["first", "second", "next turn"]


def test_both_ways_to_call_soon_share_one_order(loop):
    ran = []

    def body():
        for number in range(0, 100, 2):
            loop.call_soon(ran.append, number)
            loop.call_soon_threadsafe(ran.append, number + 1)

    loop.call_soon(body)
    support.spin(loop, 3)
    assert ran == list(range(100))


def test_a_long_chain_keeps_no_stack(loop):
    left = 100_000

    def link():
        nonlocal left
        left -= 1
        if left:
            loop.call_soon(link)
        else:
            loop.stop()

    loop.call_soon(link)
    loop.run_forever()
    assert left == 0


def test_a_large_burst_in_order(loop):
    ran = []
    for number in range(100_000):
        loop.call_soon(ran.append, number)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert ran == list(range(100_000))


async def test_ready_callbacks_do_not_starve_the_rest(loop):
    """A chain of callbacks leaves room for sockets, timers and other threads."""
    ours, theirs = support.socket_pair("unix")
    with ours, theirs:
        going = True
        waited = {name: loop.create_future() for name in ("reader", "writer", "timer", "thread")}

        def link():
            if going:
                loop.call_soon(link)

        def done(name):
            if not waited[name].done():
                waited[name].set_result(None)

        link()
        loop.add_reader(ours, done, "reader")
        loop.add_writer(ours, done, "writer")
        loop.call_later(0.01, done, "timer")
        threaded = loop.run_in_executor(None, loop.call_soon_threadsafe, done, "thread")
        theirs.send(b"x")
        await asyncio.wait(waited.values())
        await threaded
        going = False
        loop.remove_reader(ours)
        loop.remove_writer(ours)


async def test_a_failing_callback_does_not_disturb_the_others(loop, reports):
    ran = []

    def fail():
        raise ValueError("on purpose")

    loop.call_soon(ran.append, 1)
    handle = loop.call_soon(fail)
    loop.call_soon(ran.append, 2)
    await support.turns()
    assert ran == [1, 2]
    context = reports.take_one()
    assert isinstance(context["exception"], ValueError)
    assert context["handle"] is handle
    assert context["message"].startswith("Exception in callback ")
    assert "fail()" in context["message"]


async def test_a_callback_that_cannot_be_called_is_reported(loop, reports):
    loop.call_soon(None)
    await support.turns()
    assert isinstance(reports.take_one()["exception"], TypeError)


async def test_wrong_arguments_are_reported(loop, reports):
    loop.call_soon(lambda: None, 1)
    await support.turns()
    assert isinstance(reports.take_one()["exception"], TypeError)


class Thing:
    """Something to hold a weak reference to."""

    def method(self):
        pass


def test_what_ran_is_let_go(loop):
    callback, argument = Thing(), Thing()
    dead = [weakref.ref(callback), weakref.ref(argument)]
    loop.call_soon(lambda *_: None, argument)
    loop.call_soon(callback.method)
    del callback, argument
    support.spin(loop)
    assert [reference() for reference in dead] == [None, None]


def test_a_callback_may_drop_the_last_reference_to_anything(loop):
    """Finalisers run in the middle of a turn may use the loop."""
    ran = []

    class Noisy:
        def __del__(self):
            loop.call_soon(ran.append, "finalised")

    holder = [Noisy() for _ in range(10)]
    loop.call_soon(holder.clear)
    for _ in range(10):
        loop.call_soon(lambda noisy: None, Noisy())
    support.spin(loop, 2)
    gc.collect()
    assert ran == ["finalised"] * 20


def test_callbacks_wait_for_the_loop_to_run(loop):
    ran = []
    loop.call_soon(ran.append, 1)
    gc.collect()
    assert ran == []
    support.spin(loop)
    assert ran == [1]


async def test_many_turns_leave_no_objects_behind(loop):
    async def work():
        for _ in range(2000):
            loop.call_soon(int)
            loop.call_soon(int, 1)
            loop.call_later(0, int).cancel()
            await support.turns()

    await work()
    gc.collect()
    before = len(gc.get_objects())
    await work()
    gc.collect()
    assert len(gc.get_objects()) - before < 200


def test_a_subclass_may_override_the_scheduling(loop):
    """What libraries do that count or trace: the loop's own users must see the override."""
    scheduled = []

    class Tracing(type(loop)):
        def call_soon(self, callback, *arguments, context=None):
            scheduled.append(callback)
            return super().call_soon(callback, *arguments, context=context)

    async def main():
        await support.turns(2)
        return 5

    with contextlib.closing(Tracing()) as tracing:
        assert tracing.run_until_complete(main()) == 5
    assert len(scheduled) >= 3


def test_turns_cannot_be_replaced(loop, mioloop_only):
    """Who brings a turn of his own asks the selector, and is told."""
    with pytest.raises(RuntimeError, match="nest_asyncio"):
        loop._selector.select(0)
