"""Loops whose `time()` or `call_at()` is the program's: fake clocks in tests, patches."""

import asyncio
from unittest import mock

import pytest
from tests import support


class Clock:
    """Stands still until it is moved."""

    def __init__(self, now=1000.0):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def clock(loop):
    """The clock that the loop goes by, as an attribute of its own."""
    loop.time = Clock()
    return loop.time


@pytest.mark.parametrize("debug", [False, True])
def test_timers_go_by_it(loop, clock, debug):
    loop.set_debug(debug)
    ran = []
    handles = [loop.call_later(delay, ran.append, delay) for delay in (20, 10)]
    handles.append(loop.call_at(1005, ran.append, "at"))
    assert [handle.when() for handle in handles] == [1020, 1010, 1005]
    for now, seen in [(1004.999, 0), (1005, 1), (1009, 1), (1010.5, 2), (1020, 3)]:
        clock.now = now
        support.spin(loop)
        assert ran == ["at", 10, 20][:seen]


def test_moved_in_a_run(loop):
    """Set, moved and taken away while the loop runs: what is due runs in the turn after."""

    async def main():
        ran = []
        loop.call_later(3600, ran.append, "hour")
        loop.call_later(7200, ran.append, "two")
        for _ in range(100):
            await asyncio.sleep(0)
        begun = loop.time()
        loop.time = Clock(begun + 3601)
        await asyncio.sleep(0)
        assert ran == []
        await asyncio.sleep(0)
        assert ran == ["hour"]
        del loop.time
        assert begun <= loop.time() < begun + 1000
        assert loop.call_later(10, int).when() < begun + 1000
        await asyncio.sleep(0.001)
        assert ran == ["hour"]

    loop.run_until_complete(main())


def test_sleeps_and_timeouts(loop, clock):
    async def main():
        sleeping = asyncio.ensure_future(asyncio.sleep(60, "slept"))
        limited = asyncio.ensure_future(asyncio.wait_for(asyncio.Event().wait(), 30))
        await asyncio.sleep(0)
        clock.now += 30
        with pytest.raises(TimeoutError):
            await limited
        assert not sleeping.done()
        clock.now += 30
        assert await sleeping == "slept"

    loop.run_until_complete(main())


async def test_waits_as_long_as_it_says(loop):
    """The clock tells the delay, the system how long that is."""
    begun = loop.time()
    loop.time = lambda: type(loop).time(loop) - 5000
    await asyncio.sleep(0.05)
    del loop.time
    assert 0.05 <= loop.time() - begun < 10


async def test_mocked_for_a_while(loop):
    """A mock that gives an integer, and is taken back."""
    with mock.patch.object(loop, "time", return_value=7):
        assert loop.call_later(0.5, int).when() == 7.5
        assert loop.call_later(1, int).when() == 8
    assert loop.call_later(1, int).when() >= 1 + loop.time() - 1
    await asyncio.sleep(0.001)


def test_a_subclass(loop_factory):
    """Its timers count from the first, before the loop has run."""
    model = loop_factory()
    model.close()

    class Clocked(type(model)):
        now = 50.0

        def time(self):
            return self.now

    loop = Clocked()
    ran = []
    assert loop.call_later(2, ran.append, 52).when() == 52
    support.spin(loop)
    assert ran == []
    loop.now = 52
    support.spin(loop)
    assert ran == [52]
    support.finish(loop)


def test_a_patched_class(loop):
    """Seen from the next run on."""
    ran = []
    loop.call_later(3600, ran.append, "hour")
    with mock.patch.object(type(loop), "time", return_value=loop.time() + 4000):
        support.spin(loop)
        assert ran == ["hour"]
        due = loop.call_later(1, int).when()
    support.spin(loop)
    assert due > loop.time() + 3000
    assert loop.call_later(1, int).when() < due


def test_what_it_raises_leaves_the_loop(loop):
    ran = []
    loop.call_later(0, ran.append, "timer")
    loop.time = mock.Mock(side_effect=LookupError("no time"))
    with pytest.raises(LookupError, match="no time"):
        loop.call_later(0, int)
    loop.call_soon(ran.append, "soon")
    with pytest.raises(LookupError, match="no time"):
        loop.run_forever()
    del loop.time
    support.spin(loop)
    assert sorted(ran) == ["soon", "timer"]


@pytest.mark.parametrize("debug", [False, True])
async def test_its_own_call_at(loop, debug):
    """`call_later()` schedules by it, and gives what it gives."""
    loop.set_debug(debug)
    real = loop.call_at
    seen = []

    def call_at(when, callback, *args, context=None):
        seen.append((when, callback, args, context))
        return real(when, callback, *args, context=context)

    loop.call_at = call_at
    ran = loop.create_future()
    begun = loop.time()
    handle = loop.call_later(0.001, ran.set_result, "ran")
    assert await ran == "ran"
    del loop.call_at
    loop.call_later(0, int)
    ((when, callback, args, context),) = seen
    assert begun + 0.001 <= when == handle.when() <= loop.time()
    assert (callback, args, context) == (ran.set_result, ("ran",), None)


def test_attributes_are_as_ever(loop):
    """What is set on a loop stays what it was; what is not there cannot be deleted."""
    names = ("anything", "\N{EURO SIGN}", "\udc80")
    for name in names:
        setattr(loop, name, 1)
        assert getattr(loop, name) == 1
        delattr(loop, name)
    for name in (*names, "time"):
        with pytest.raises(AttributeError):
            delattr(loop, name)
    with pytest.raises(TypeError):
        setattr(loop, 1, 2)
    assert loop.call_later(1, int).when() > 0
