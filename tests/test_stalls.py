"""Loops that are stuck are reported while they are: `mioloop.watch_stalls()`."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest

import mioloop

pytestmark = pytest.mark.usefixtures("mioloop_only")

SPAN = 0.02


class Reports:
    """Keeps what is reported; the code that is stuck waits for it."""

    def __init__(self):
        self.stalls = []
        self.come = threading.Condition()

    def __call__(self, stall):
        with self.come:
            self.stalls.append(stall)
            self.come.notify_all()

    def block_until_reported(self, count=1):
        with self.come:
            assert self.come.wait_for(lambda: len(self.stalls) >= count, timeout=20)


def test_the_stack_that_blocks_is_told_while_it_does(loop):
    reports = Reports()

    async def stuck_here():
        reports.block_until_reported()

    with mioloop.watch_stalls(SPAN, loop=loop, report=reports):
        loop.run_until_complete(stuck_here())
    stall = reports.stalls[0]
    assert stall.loop is loop
    assert stall.seconds >= SPAN
    names = [frame.name for frame in stall.stack]
    assert names.index("stuck_here") < names.index("block_until_reported")


def test_it_is_told_again_when_its_time_has_doubled(loop):
    reports = Reports()
    with mioloop.watch_stalls(SPAN, loop=loop, report=reports):
        loop.call_soon(reports.block_until_reported, 3)
        loop.call_soon(loop.stop)
        loop.run_forever()
    first, second, third = [stall.seconds for stall in reports.stalls[:3]]
    assert second >= 2 * first
    assert third >= 2 * second


def test_every_loop_is_watched_those_to_come_too(loop_factory):
    reports = Reports()

    async def stuck():
        reports.block_until_reported()

    with mioloop.watch_stalls(SPAN, report=reports):
        thread = threading.Thread(target=mioloop.run, args=(stuck(),))
        thread.start()
        thread.join()
    assert any(frame.name == "stuck" for frame in reports.stalls[0].stack)


def test_a_loop_that_waits_or_does_not_run_is_not_stuck(loop):
    reports = Reports()
    loop.run_until_complete(asyncio.sleep(0))
    # Long enough that a machine with other work does not look like a stall.
    with mioloop.watch_stalls(0.3, loop=loop, report=reports):
        threading.Event().wait(0.5)
        loop.run_until_complete(asyncio.sleep(0.5))
    assert reports.stalls == []


def test_the_default_is_a_warning_of_asyncio_s_logger(loop, caplog):
    seen = threading.Event()

    class Handler(logging.Handler):
        def emit(self, record):
            seen.set()

    handler = Handler()
    logging.getLogger("asyncio").addHandler(handler)
    try:
        with mioloop.watch_stalls(SPAN, loop=loop):
            loop.call_soon(seen.wait, 20)
            loop.call_soon(loop.stop)
            loop.run_forever()
    finally:
        logging.getLogger("asyncio").removeHandler(handler)
    record = caplog.records[0]
    assert (record.name, record.levelname) == ("asyncio", "WARNING")
    assert "The event loop has been stuck for" in record.getMessage()
    assert "in wait\n" in record.getMessage()


def test_an_exception_of_the_report_is_logged_and_watching_goes_on(loop, caplog):
    reports = Reports()

    def report(stall):
        reports(stall)
        raise ZeroDivisionError

    with mioloop.watch_stalls(SPAN, loop=loop, report=report):
        loop.call_soon(reports.block_until_reported, 2)
        loop.call_soon(loop.stop)
        loop.run_forever()
    assert "Exception in the report of a stall" in caplog.text


def test_inside_a_coroutine(loop):
    reports = Reports()

    async def main():
        with mioloop.watch_stalls(SPAN, report=reports):
            reports.block_until_reported()

    loop.run_until_complete(main())
    assert reports.stalls[0].loop is loop


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_the_span_must_be_one(seconds):
    with (
        pytest.raises(ValueError, match="seconds must be above zero"),
        mioloop.watch_stalls(seconds),
    ):
        pass


def test_other_loops_are_refused():
    other = asyncio.SelectorEventLoop()
    try:
        with pytest.raises(TypeError, match="a mioloop loop"), mioloop.watch_stalls(1, loop=other):
            pass
    finally:
        other.close()
