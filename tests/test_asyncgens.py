"""Asynchronous generators: hooks while the loop runs, finalisation, shutting them down."""

import asyncio
import gc
import sys
import threading

import pytest

import support


class Generator:
    """Counts up for ever, and notes how it ended."""

    def __init__(self, ending=None):
        self.ended = []
        self.ending = ending

    async def __call__(self):
        number = 0
        try:
            while True:
                yield number
                number += 1
        except BaseException as error:
            self.ended.append(type(error))
            raise
        finally:
            await asyncio.sleep(0)
            self.ended.append("slept")
            if self.ending:
                raise self.ending


CLOSED = [GeneratorExit, "slept"]


async def step(iterator):
    """The next value; the loop sees the first step only from within itself."""
    return await anext(iterator)


def test_hooks_while_running(loop):
    def first(generator):
        pass

    async def main():
        return sys.get_asyncgen_hooks()

    before = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(first, None)
    try:
        during = loop.run_until_complete(main())
        assert during.firstiter not in (None, first)
        assert during.finalizer is not None
        assert sys.get_asyncgen_hooks() == (first, None)
    finally:
        sys.set_asyncgen_hooks(*before)


def test_hooks_are_restored_after_an_exception(loop):
    def leave():
        raise SystemExit

    before = sys.get_asyncgen_hooks()
    loop.call_soon(leave)
    with pytest.raises(SystemExit):
        loop.run_forever()
    assert sys.get_asyncgen_hooks() == before


async def test_dropped_half_way(loop):
    """The collector finds the generator; the loop finishes it."""
    generator = Generator()
    async for number in generator():
        if number == 3:
            break
    gc.collect()
    await support.turns(4)
    assert generator.ended == CLOSED


async def test_dropped_by_another_thread(loop):
    generator = Generator()
    holder = [generator()]
    assert await anext(holder[0]) == 0
    finished = loop.create_future()

    def drop():
        holder.clear()
        loop.call_soon_threadsafe(finished.set_result, None)

    thread = threading.Thread(target=drop)
    thread.start()
    await finished
    thread.join()
    await support.turns(4)
    assert generator.ended == CLOSED


def test_shutting_down(loop):
    generators = [Generator() for _ in range(3)]
    running = [generator() for generator in generators]

    async def main():
        for iterator in running:
            await anext(iterator)

    loop.run_until_complete(main())
    assert [generator.ended for generator in generators] == [[], [], []]
    loop.run_until_complete(loop.shutdown_asyncgens())
    assert [generator.ended for generator in generators] == [CLOSED] * 3


def test_errors_of_shutting_down_are_reported(loop, reports):
    iterator = Generator(ending=ValueError("on purpose"))()
    loop.run_until_complete(step(iterator))
    loop.run_until_complete(loop.shutdown_asyncgens())
    context = reports.take_one()
    assert context["message"].startswith("an error occurred during closing of asynchronous generat")
    assert isinstance(context["exception"], ValueError)
    assert context["asyncgen"] is iterator


def test_beginning_one_after_shutting_down(loop):
    generator = Generator()

    async def main():
        await loop.shutdown_asyncgens()
        iterator = generator()
        with pytest.warns(ResourceWarning, match=r"after loop\.shutdown_asyncgens\(\) call"):
            await anext(iterator)
        await iterator.aclose()

    loop.run_until_complete(main())
    assert generator.ended == CLOSED


def test_runner_shuts_them_down(loop_factory):
    generator = Generator()
    iterator = generator()
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        assert runner.run(step(iterator)) == 0
        assert generator.ended == []
    assert generator.ended == CLOSED


def test_two_loops_keep_theirs_apart(new_loop):
    generators = [Generator(), Generator()]
    iterators = [generator() for generator in generators]
    loops = [new_loop(), new_loop()]
    for loop, iterator in zip(loops, iterators, strict=True):
        loop.run_until_complete(step(iterator))
    loops[0].run_until_complete(loops[0].shutdown_asyncgens())
    assert [generator.ended for generator in generators] == [CLOSED, []]
    loops[1].run_until_complete(loops[1].shutdown_asyncgens())
    assert generators[1].ended == CLOSED
