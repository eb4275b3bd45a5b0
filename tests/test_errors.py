"""Exception handlers: who is told of an error, with what, and what happens when that fails too."""

import asyncio
import contextvars
import gc
import logging
import sys
import weakref

import pytest

import support


@pytest.fixture
def plain(new_loop):
    """A loop without an exception handler of its own."""
    return new_loop()


def fail(*arguments):
    raise ValueError("on purpose")


def test_handlers_may_be_set_and_removed(plain):
    def handler(loop, context):
        pass

    assert plain.get_exception_handler() is None
    plain.set_exception_handler(handler)
    assert plain.get_exception_handler() is handler
    plain.set_exception_handler(None)
    assert plain.get_exception_handler() is None


@pytest.mark.parametrize("thing", [1, "text", ()])
def test_only_callables_are_handlers(plain, thing):
    with pytest.raises(TypeError) as caught:
        plain.set_exception_handler(thing)
    assert str(caught.value) == f"A callable object or None is expected, got {thing!r}"


def test_what_a_handler_is_called_with(plain):
    """The loop first, then the context: elsewhere this has been wrong."""
    calls = []
    plain.set_exception_handler(lambda *arguments: calls.append(arguments))
    handle = plain.call_soon(fail, 1)
    support.spin(plain)
    ((loop, context),) = calls
    assert loop is plain
    assert set(context) == {"message", "exception", "handle"}
    assert context["handle"] is handle
    assert isinstance(context["exception"], ValueError)
    assert context["message"].startswith("Exception in callback fail(")


def told(context):
    """The message of a report, and the exception of it."""

    def reraise():
        raise context["exception"]

    return support.normal(context["message"]), support.outcome(reraise)


def test_messages_are_those_of_asyncio(plain):
    class Target:
        def __call__(self):
            raise ValueError

        def __repr__(self):
            return "target!"

    def messages(loop):
        collected = support.Reports()
        loop.set_exception_handler(collected)
        loop.call_soon(fail)
        loop.call_soon(fail, 1, "two")
        loop.call_soon(Target())
        loop.call_later(0, fail, 3)
        loop.call_soon_threadsafe(fail, 4)
        loop.call_soon(int, "x")
        loop.call_soon(None)
        support.spin(loop, 3)
        return [told(context) for context in collected.take()]

    model = asyncio.SelectorEventLoop()
    expected = messages(model)
    model.close()
    assert messages(plain) == expected
    assert len(expected) == 7


def test_the_default_handler_logs(plain, caplog):
    plain.call_soon(fail, 1)
    support.spin(plain)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("asyncio", logging.ERROR)
    lines = record.getMessage().splitlines()
    assert lines[0].startswith("Exception in callback fail(")
    assert lines[1].startswith("handle: <Handle fail(")
    assert isinstance(record.exc_info[1], ValueError)
    assert record.exc_info[2] is not None


def test_call_exception_handler(plain, caplog):
    plain.call_exception_handler({"message": "told by hand", "zebra": 1, "apple": "two"})
    plain.call_exception_handler({})
    assert [record.getMessage() for record in caplog.records] == [
        "told by hand\napple: 'two'\nzebra: 1",
        "Unhandled exception in event loop",
    ]


def test_the_default_handler_may_be_called(plain, caplog):
    plain.set_exception_handler(lambda loop, context: loop.default_exception_handler(context))
    plain.call_soon(fail)
    support.spin(plain)
    assert caplog.records[0].getMessage().startswith("Exception in callback fail(")


def test_a_handler_that_fails(plain, caplog):
    ran = []

    def handler(loop, context):
        raise LookupError("in the handler")

    plain.set_exception_handler(handler)
    plain.call_soon(fail)
    plain.call_soon(ran.append, 1)
    support.spin(plain)
    assert ran == [1]
    (record,) = caplog.records
    assert record.getMessage().startswith("Unhandled error in exception handler")
    assert isinstance(record.exc_info[1], LookupError)


@pytest.mark.parametrize("exception", [SystemExit, KeyboardInterrupt])
def test_leaving_from_a_handler(plain, exception):
    def handler(loop, context):
        raise exception

    plain.set_exception_handler(handler)
    plain.call_soon(fail)
    with pytest.raises(exception):
        plain.run_forever()
    assert not plain.is_running()


def test_a_handler_may_use_the_loop(plain):
    ran = []

    def handler(loop, context):
        loop.call_soon(ran.append, "later")
        loop.call_soon(loop.stop)

    plain.set_exception_handler(handler)
    plain.call_soon(fail)
    plain.run_forever()
    assert ran == ["later"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio chooses the context from 3.12 on")
def test_handlers_run_in_the_context_of_the_callback(plain):
    variable = contextvars.ContextVar("variable", default="unset")
    seen = []
    plain.set_exception_handler(lambda loop, context: seen.append(variable.get()))
    context = contextvars.copy_context()
    context.run(variable.set, "given")
    plain.call_soon(fail, context=context)
    plain.call_soon(fail)
    support.spin(plain)
    assert seen == ["given", "unset"]


def test_an_overridden_handler_is_called(plain):
    class Own(type(plain)):
        def call_exception_handler(self, context):
            seen.append(context["message"])

    seen = []
    loop = Own()
    loop.call_soon(fail)
    loop.call_later(0, fail)
    support.spin(loop, 2)
    loop.close()
    assert len(seen) == 2


async def test_errors_of_tasks_go_to_who_awaits_them(loop):
    async def failing():
        fail()

    task = loop.create_task(failing())
    with pytest.raises(ValueError, match="on purpose"):
        await task


async def test_errors_of_done_callbacks(loop, reports):
    future = loop.create_future()
    future.add_done_callback(fail)
    future.set_result(None)
    await support.turns(2)
    assert isinstance(reports.take_one()["exception"], ValueError)


async def test_a_future_nobody_asked(loop, reports):
    loop.create_future().set_exception(ValueError("on purpose"))
    assert reports.take_one()["message"] == "Future exception was never retrieved"


def test_the_exception_is_let_go(plain):
    """A report must not keep the frames of the callback alive."""

    class Thing:
        pass

    dead = []

    def hold():
        thing = Thing()
        dead.append(weakref.ref(thing))
        fail()

    plain.set_exception_handler(lambda loop, context: None)
    plain.call_soon(hold)
    support.spin(plain)
    gc.collect()
    assert dead[0]() is None
