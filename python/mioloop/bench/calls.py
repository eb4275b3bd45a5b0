"""In-process workloads: callbacks, timers, tasks, queues, calls from a thread.

Owns the clock, `measure`, and one function per workload.

Rules: a workload is a function of the loop and the clock. It runs the loop, puts `with clock:`
around what is measured, checks that the work was done, and returns the number of operations. One
repetition takes some ten milliseconds on stock asyncio.
"""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from mioloop.bench.model import LoopFactory, WorkloadError, resolve

MIN_REPETITIONS = 3


class Clock:
    """Wall time and CPU time of all threads of this process, in seconds, of a `with` block."""

    def __init__(self) -> None:
        """Start with nothing measured."""
        self.wall = 0.0
        self.cpu = 0.0
        self._started = (0.0, 0.0)

    def __enter__(self) -> None:
        """Start the measured part."""
        self._started = (time.perf_counter(), time.process_time())

    def __exit__(self, *exception: object) -> None:
        """End the measured part."""
        cpu, wall = time.process_time(), time.perf_counter()
        self.wall = wall - self._started[0]
        self.cpu = cpu - self._started[1]


Workload = Callable[[asyncio.AbstractEventLoop, Clock], int]


def measure(factory: LoopFactory, parameters: Mapping[str, Any]) -> dict[str, float]:
    """Repeat a workload on one new loop and take the median of the repetitions.

    Args:
        factory: makes the loop under test.
        parameters: `call`, the `module:function` of the workload; `seconds` to measure for.

    Returns:
        The fields of a sample. The cost is CPU time per operation in microseconds.

    Raises:
        WorkloadError: the work was not done.
    """
    workload: Workload = resolve(parameters["call"])
    loop = factory()
    count = 0
    walls: list[float] = []
    cpus: list[float] = []
    try:
        workload(loop, Clock())
        while sum(walls) < parameters["seconds"] or len(walls) < MIN_REPETITIONS:
            # The garbage of one repetition is not paid for in the next.
            gc.collect()
            clock = Clock()
            count = workload(loop, clock)
            walls.append(clock.wall)
            cpus.append(clock.cpu)
    finally:
        loop.close()
    return {
        "count": count * len(walls),
        "cost": statistics.median(cpus) / count * 1e6,
        "rate": count / statistics.median(walls),
    }


def expect(is_done: bool, text: str) -> None:
    """Fail the workload unless the work was done."""
    if not is_done:
        raise WorkloadError(text)


def call_soon_chain(loop: asyncio.AbstractEventLoop, clock: Clock) -> int:
    """Each callback schedules the next: the price of a turn."""
    count = left = 20_000

    def step() -> None:
        nonlocal left
        left -= 1
        if left:
            loop.call_soon(step)
        else:
            loop.stop()

    loop.call_soon(step)
    with clock:
        loop.run_forever()
    expect(left == 0, "the chain broke off")
    return count


def call_soon_burst(loop: asyncio.AbstractEventLoop, clock: Clock) -> int:
    """Many callbacks at once, run in one turn: the price of a callback."""
    count = 30_000
    seen: list[int] = []
    with clock:
        for number in range(count):
            loop.call_soon(seen.append, number)
        loop.call_soon(loop.stop)
        loop.run_forever()
    expect(seen == list(range(count)), "callbacks were lost or out of order")
    return count


def call_later_fire(loop: asyncio.AbstractEventLoop, clock: Clock) -> int:
    """Timers spread over a few milliseconds, all of which fire."""
    count = 20_000
    chance = random.Random(1)
    delays = [chance.random() * 0.005 for _ in range(count)]
    fired = 0

    def fire() -> None:
        nonlocal fired
        fired += 1
        if fired == count:
            loop.stop()

    with clock:
        for delay in delays:
            loop.call_later(delay, fire)
        loop.run_forever()
    expect(fired == count, "timers were lost")
    return count


def call_later_cancel(loop: asyncio.AbstractEventLoop, clock: Clock) -> int:
    """Far timers that are cancelled at once: what a time-out costs when nothing times out."""
    count = 20_000
    fired: list[int] = []
    with clock:
        for number in range(count):
            loop.call_later(60 + number % 100, fired.append, number).cancel()
        loop.call_soon(loop.stop)
        loop.run_forever()
    expect(not fired, "a cancelled timer fired")
    return count


async def _return(value: int) -> int:
    return value


def tasks_gather(loop: asyncio.AbstractEventLoop, clock: Clock) -> int:
    """`gather` of coroutines that end at once: making, running and ending a task."""
    count = 5_000

    async def main() -> list[int]:
        with clock:
            return await asyncio.gather(*[_return(number) for number in range(count)])

    results = loop.run_until_complete(main())
    expect(results == list(range(count)), "gather mixed up its results")
    return count


def tasks_sleep0(loop: asyncio.AbstractEventLoop, clock: Clock) -> int:
    """A hundred tasks that yield to each other with `sleep(0)`: one step of a task."""
    tasks, yields = 100, 200
    done = 0

    async def worker() -> None:
        nonlocal done
        for _ in range(yields):
            await asyncio.sleep(0)
            done += 1

    async def main() -> None:
        with clock:
            await asyncio.gather(*[worker() for _ in range(tasks)])

    loop.run_until_complete(main())
    expect(done == tasks * yields, "tasks lost steps")
    return done


def queue_handover(loop: asyncio.AbstractEventLoop, clock: Clock) -> int:
    """Producer and consumer over a `Queue` of ten places."""
    count = 10_000
    seen: list[int] = []

    async def main() -> None:
        queue: asyncio.Queue[int] = asyncio.Queue(10)

        async def produce() -> None:
            for number in range(count):
                await queue.put(number)

        async def consume() -> None:
            seen.extend([await queue.get() for _ in range(count)])

        with clock:
            await asyncio.gather(produce(), consume())

    loop.run_until_complete(main())
    expect(seen == list(range(count)), "the queue lost or mixed up items")
    return count


def call_soon_threadsafe(loop: asyncio.AbstractEventLoop, clock: Clock) -> int:
    """Another thread schedules callbacks while the loop runs them."""
    count = 20_000
    ran = 0

    def run() -> None:
        nonlocal ran
        ran += 1
        if ran == count:
            loop.stop()

    def schedule() -> None:
        for _ in range(count):
            loop.call_soon_threadsafe(run)

    thread = threading.Thread(target=schedule)
    with clock:
        thread.start()
        loop.run_forever()
    thread.join()
    expect(ran == count, "calls from the other thread were lost")
    return count
