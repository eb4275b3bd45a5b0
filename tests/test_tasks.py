"""Tasks and futures of a loop: keywords and factories by the rules of the running Python."""

import asyncio
import contextlib
import contextvars
import sys
import weakref

import pytest

import support

variable = contextvars.ContextVar("variable", default="unset")

KEYWORDS = [
    {},
    {"name": "given"},
    {"name": None},
    {"context": contextvars.copy_context()},
    {"name": "given", "context": contextvars.copy_context()},
]
if sys.version_info >= (3, 13, 3):
    KEYWORDS += [{"eager_start": True}, {"eager_start": False, "name": "given"}]


async def five():
    await asyncio.sleep(0)
    return 5


async def test_name(loop):
    assert loop.create_task(five(), name="given").get_name() == "given"
    assert loop.create_task(five(), name=7).get_name() == "7"
    assert loop.create_task(five()).get_name().startswith("Task-")
    assert await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}) == [5] * 3


async def test_context(loop):
    async def look():
        return variable.get()

    context = contextvars.copy_context()
    context.run(variable.set, "given")
    assert await loop.create_task(look(), context=context) == "given"
    assert await loop.create_task(look()) == "unset"


async def test_classes(loop):
    task, future = loop.create_task(five()), loop.create_future()
    assert type(task) is asyncio.Task
    assert type(future) is asyncio.Future
    assert task.get_loop() is loop
    assert future.get_loop() is loop
    assert await task == 5


async def test_current_and_all_tasks(loop):
    async def look():
        return asyncio.current_task()

    task = loop.create_task(look())
    assert asyncio.current_task() is not task
    assert task in asyncio.all_tasks()
    assert await task is task
    assert asyncio.current_task(loop) in asyncio.all_tasks(loop)
    seen = []
    loop.call_soon(lambda: seen.append(asyncio.current_task()))
    await support.turns()
    assert seen == [None]


async def test_steps_follow_the_order_of_creation(loop):
    ran = []

    async def step(number):
        for _ in range(3):
            ran.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*(step(number) for number in range(5)))
    assert ran == list(range(5)) * 3


async def test_done_callbacks(loop):
    ran = []
    future = loop.create_future()
    for number in range(4):
        future.add_done_callback(lambda future, number=number: ran.append((number, future)))
    future.set_result(1)
    assert ran == []
    await support.turns()
    assert ran == [(number, future) for number in range(4)]


async def test_cancelling(loop):
    async def wait():
        try:
            await loop.create_future()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            raise

    task = loop.create_task(wait())
    await support.turns()
    assert task.cancel("reason")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_groups_queues_and_locks(loop):
    queue, lock, done = asyncio.Queue(maxsize=2), asyncio.Lock(), []

    async def produce():
        for number in range(50):
            await queue.put(number)

    async def consume():
        while len(done) < 100:
            number = await queue.get()
            async with lock:
                await asyncio.sleep(0)
                done.append(number)

    async with asyncio.TaskGroup() as group:
        consumer = group.create_task(consume())
        for _ in range(2):
            group.create_task(produce())
        await consumer
    assert sorted(done) == sorted([*range(50)] * 2)


async def test_a_task_is_let_go(loop):
    class Thing:
        pass

    async def hold(thing):
        await asyncio.sleep(0)

    thing = Thing()
    dead = weakref.ref(thing)
    task = weakref.ref(loop.create_task(hold(thing)))
    del thing
    await support.turns(4)
    assert dead() is None
    assert task() is None


async def test_an_exception_nobody_asked_for(loop, reports):
    async def fail():
        raise ValueError("on purpose")

    task = loop.create_task(fail())
    await support.turns(2)
    del task
    context = reports.take_one()
    assert context["message"] == "Task exception was never retrieved"
    assert isinstance(context["exception"], ValueError)


async def test_python_tasks_and_futures(loop):
    """The pure Python classes are what debuggers and coverage tools put in place of the C ones."""
    loop.set_task_factory(lambda loop, coro, **kw: asyncio.tasks._PyTask(coro, loop=loop, **kw))
    task = loop.create_task(five(), name="given")
    assert type(task) is asyncio.tasks._PyTask
    assert await task == 5
    future = asyncio.futures._PyFuture(loop=loop)
    loop.call_soon(future.set_result, 1)
    assert await future == 1


# Task factories --------------------------------------------------------------------------------


def calls_of_factories(loop):
    """What a factory is called with, for every way to make a task on this loop."""
    calls = []

    def factory(loop, coro, **keywords):
        calls.append(keywords)
        keywords = {key: keywords[key] for key in keywords if key in ("name", "context")}
        return asyncio.Task(coro, loop=loop, **keywords)

    async def main():
        for keywords in KEYWORDS:
            await loop.create_task(five(), **keywords)
        async with asyncio.TaskGroup() as group:
            group.create_task(five())
            group.create_task(five(), name="given")
        await asyncio.ensure_future(five())
        await asyncio.create_task(five())
        await asyncio.gather(five(), five())
        await asyncio.wait_for(five(), 10)

    loop.set_task_factory(factory)
    assert loop.get_task_factory() is factory
    loop.run_until_complete(main())
    loop.close()
    return calls


def test_factories_get_what_the_caller_gave(new_loop):
    """Factories know the keywords of their Python: none may be added, none dropped."""
    assert calls_of_factories(new_loop()) == calls_of_factories(asyncio.SelectorEventLoop())


def test_a_factory_that_takes_the_coroutine_alone(loop):
    """uvloop's way to call them broke this, the signature that was documented for years."""

    def factory(loop, coro):
        return asyncio.Task(coro, loop=loop)

    async def main():
        return await asyncio.create_task(five())

    def use(loop):
        loop.set_task_factory(factory)
        with contextlib.closing(main()) as coroutine:
            return support.outcome(lambda: loop.run_until_complete(coroutine))

    with contextlib.closing(asyncio.SelectorEventLoop()) as model:
        expected = use(model)
    assert use(loop) == expected
    assert expected[0] in (None, TypeError)


def test_a_factory_may_be_replaced_and_removed(loop):
    made = []

    def factory(loop, coro, **keywords):
        made.append(coro)
        return asyncio.Task(coro, loop=loop, **keywords)

    assert loop.get_task_factory() is None
    loop.set_task_factory(factory)
    assert loop.run_until_complete(five()) == 5
    loop.set_task_factory(None)
    assert loop.get_task_factory() is None
    assert loop.run_until_complete(five()) == 5
    assert len(made) == 1


def test_a_factory_that_raises(loop):
    def factory(loop, coro, **keywords):
        coro.close()
        raise ValueError("no task")

    loop.set_task_factory(factory)
    with pytest.raises(ValueError, match="no task"):
        loop.create_task(five())
    loop.set_task_factory(None)


def test_only_callables_are_factories(loop):
    with pytest.raises(TypeError, match=r"^task factory must be a callable or None$"):
        loop.set_task_factory(5)


# Eager tasks -----------------------------------------------------------------------------------


@pytest.fixture
def eager(loop):
    """The loop, with every task begun as it is made."""
    if sys.version_info < (3, 12):
        pytest.skip("eager tasks came with Python 3.12")
    loop.set_task_factory(asyncio.eager_task_factory)
    return loop


async def test_eager_tasks_begin_at_once(loop, eager):
    ran = []

    async def work():
        ran.append(asyncio.current_task())
        await asyncio.sleep(0)
        ran.append("end")
        return 5

    task = loop.create_task(work(), name="given")
    assert ran == [task]
    assert task.get_name() == "given"
    assert not task.done()
    assert await task == 5
    assert ran == [task, "end"]


async def test_eager_tasks_may_end_at_once(loop, eager):
    async def quick():
        return 7

    async def fail():
        raise ValueError("on purpose")

    outer = asyncio.current_task()
    task = loop.create_task(quick())
    assert task.done()
    assert task.result() == 7
    assert asyncio.current_task() is outer
    failed = loop.create_task(fail())
    assert failed.done()
    with pytest.raises(ValueError, match="on purpose"):
        await failed


async def test_eager_tasks_in_their_context(loop, eager):
    async def change():
        variable.set("changed")
        return variable.get()

    assert await loop.create_task(change()) == "changed"
    assert variable.get() == "unset"
    context = contextvars.copy_context()
    assert await loop.create_task(change(), context=context) == "changed"
    assert context[variable] == "changed"


@pytest.mark.skipif(sys.version_info < (3, 14), reason="eager_start came with Python 3.14")
async def test_eager_start(loop):
    ran = []

    async def work():
        ran.append(1)
        await asyncio.sleep(0)
        return 5

    task = loop.create_task(work(), eager_start=True)
    assert ran == [1]
    later = loop.create_task(work(), eager_start=False)
    assert ran == [1]
    assert await asyncio.gather(task, later) == [5, 5]


# What is no task -------------------------------------------------------------------------------


@pytest.mark.parametrize("thing", [None, 5, five, "text"])
def test_only_coroutines_become_tasks(loop, thing):
    expected = support.outcome(lambda: asyncio.Task(thing, loop=loop))
    assert expected[0] is TypeError
    assert support.outcome(lambda: loop.create_task(thing)) == expected


def test_unknown_keywords(loop):
    with contextlib.closing(five()) as coroutine, pytest.raises(TypeError):
        loop.create_task(coroutine, colour="red")


def test_no_task_on_a_closed_loop(loop):
    loop.close()
    closed = pytest.raises(RuntimeError, match=r"^Event loop is closed$")
    with contextlib.closing(five()) as coroutine, closed:
        loop.create_task(coroutine)


@pytest.mark.parametrize("ends", ["closed", "dropped"])
def test_futures_of_a_loop_that_never_ran(loop_factory, ends):
    """What the loop keeps to make them does not keep the loop; a closed one needs no collector."""
    loop = loop_factory()
    for _ in range(2):
        assert loop.create_future().get_loop() is loop
    gone = weakref.ref(loop)
    if ends == "closed":
        loop.close()
        assert loop.create_future().get_loop() is loop
        del loop
    else:
        held = [loop]
        del loop
        with pytest.warns(ResourceWarning, match="^unclosed event loop "):
            support.drop(held)
    assert gone() is None
