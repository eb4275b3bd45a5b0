"""More in-process workloads than the command has: the details of callbacks, timers and tasks.

Owns one function per workload, and the lateness of timers, which has a unit of its own.

Rules: those of `mioloop.bench.calls`.
"""

from __future__ import annotations

import asyncio
import contextvars
import socket
import statistics
import threading
from collections.abc import Mapping
from typing import Any

from mioloop.bench.calls import Clock, expect
from mioloop.bench.model import LoopFactory

LATENESS_SAMPLES = 50
LATENESS_DELAY = 0.0015


def call_soon_context(loop: asyncio.AbstractEventLoop, clock: Clock) -> int:
    """Callbacks with three arguments and a context of their own."""
    count = 20_000
    context = contextvars.copy_context()
    total = 0

    def add(number: int, _text: str, _nothing: None) -> None:
        nonlocal total
        total += number

    with clock:
        for _ in range(count):
            loop.call_soon(add, 1, "text", None, context=context)
        loop.call_soon(loop.stop)
        loop.run_forever()
    expect(total == count, "callbacks were lost")
    return count


def call_soon_cancel(loop: asyncio.AbstractEventLoop, clock: Clock) -> int:
    """Callbacks that are cancelled before they run."""
    count = 20_000
    ran: list[int] = []
    with clock:
        for number in range(count):
            loop.call_soon(ran.append, number).cancel()
        loop.call_soon(loop.stop)
        loop.run_forever()
    expect(not ran, "a cancelled callback ran")
    return count


def timers_periodic(loop: asyncio.AbstractEventLoop, clock: Clock) -> int:
    """Coroutines that sleep a millisecond or two, again and again."""
    coroutines, naps = 500, 8
    woken = 0

    async def nap(number: int) -> None:
        nonlocal woken
        for _ in range(naps):
            await asyncio.sleep(0.001 + number % 10 * 0.0001)
            woken += 1

    async def main() -> None:
        with clock:
            await asyncio.gather(*[nap(number) for number in range(coroutines)])

    loop.run_until_complete(main())
    expect(woken == coroutines * naps, "sleepers were lost")
    return woken


def measure_lateness(factory: LoopFactory, _parameters: Mapping[str, Any]) -> dict[str, float]:
    """Measure how late a timer of 1.5 ms fires on an otherwise idle loop.

    The cost is the median lateness in microseconds. A timer that fires early fails the workload.
    """
    late: list[float] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(LATENESS_SAMPLES):
            fired: asyncio.Future[float] = loop.create_future()
            due = loop.time() + LATENESS_DELAY
            loop.call_at(due, lambda fired=fired: fired.set_result(loop.time()))
            late.append(await fired - due)

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
    expect(min(late) > -1e-5, f"a timer fired {-min(late) * 1e6:.0f} us early")
    return {"count": LATENESS_SAMPLES, "cost": max(statistics.median(late), 1e-7) * 1e6, "rate": 0}


async def _return() -> int:
    return 1


def run_until_complete(loop: asyncio.AbstractEventLoop, clock: Clock) -> int:
    """Start and stop the loop for each of many short coroutines."""
    count = 1_000
    total = 0
    with clock:
        for _ in range(count):
            total += loop.run_until_complete(_return())
    expect(total == count, "results were lost")
    return count


def tasks_group(loop: asyncio.AbstractEventLoop, clock: Clock) -> int:
    """A `TaskGroup` of coroutines that end at once."""
    count = 4_000

    async def main() -> int:
        with clock:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(_return()) for _ in range(count)]
        return sum(task.result() for task in tasks)

    expect(loop.run_until_complete(main()) == count, "tasks were lost")
    return count


def tasks_timeout(loop: asyncio.AbstractEventLoop, clock: Clock) -> int:
    """`asyncio.timeout` around one step of a task."""
    count = 4_000

    async def main() -> None:
        with clock:
            for _ in range(count):
                async with asyncio.timeout(60):
                    await asyncio.sleep(0)

    loop.run_until_complete(main())
    return count


def tasks_wait_for(loop: asyncio.AbstractEventLoop, clock: Clock) -> int:
    """`asyncio.wait_for` of a future that a callback resolves."""
    count = 3_000
    total = 0

    async def main() -> None:
        nonlocal total
        with clock:
            for _ in range(count):
                future: asyncio.Future[int] = loop.create_future()
                loop.call_soon(future.set_result, 1)
                total += await asyncio.wait_for(future, 60)

    loop.run_until_complete(main())
    expect(total == count, "results were lost")
    return count


def events_handover(loop: asyncio.AbstractEventLoop, clock: Clock) -> int:
    """Two tasks that wake each other through `asyncio.Event`."""
    count = 4_000
    turns = 0

    async def main() -> None:
        ping, pong = asyncio.Event(), asyncio.Event()

        async def serve() -> None:
            for _ in range(count):
                await ping.wait()
                ping.clear()
                pong.set()

        async def ask() -> None:
            nonlocal turns
            for _ in range(count):
                ping.set()
                await pong.wait()
                pong.clear()
                turns += 1

        with clock:
            await asyncio.gather(serve(), ask())

    loop.run_until_complete(main())
    expect(turns == count, "turns were lost")
    return count


def threads_round_trip(loop: asyncio.AbstractEventLoop, clock: Clock) -> int:
    """Another thread calls into the loop and waits for the callback, one at a time."""
    count = 1_000

    def drive() -> None:
        done = threading.Semaphore(0)
        for _ in range(count):
            loop.call_soon_threadsafe(done.release)
            done.acquire()
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=drive)
    with clock:
        thread.start()
        loop.run_forever()
    thread.join()
    return count


def threads_executor(loop: asyncio.AbstractEventLoop, clock: Clock) -> int:
    """`run_in_executor` of a function that returns at once, twenty at a time."""
    batches, at_once = 20, 20
    total = 0

    async def main() -> None:
        nonlocal total
        await loop.run_in_executor(None, int)
        with clock:
            for _ in range(batches):
                calls = [loop.run_in_executor(None, int, 1) for _ in range(at_once)]
                total += sum(await asyncio.gather(*calls))

    loop.run_until_complete(main())
    expect(total == batches * at_once, "calls were lost")
    return total


def readers_ping_pong(loop: asyncio.AbstractEventLoop, clock: Clock) -> int:
    """`add_reader` on both ends of a socket pair that send a byte to and fro."""
    count = left = 3_000
    one, two = socket.socketpair()
    with one, two:
        one.setblocking(False)
        two.setblocking(False)

        def on_one() -> None:
            nonlocal left
            one.recv(16)
            left -= 1
            if left:
                one.send(b"x")
            else:
                loop.stop()

        def on_two() -> None:
            two.recv(16)
            two.send(b"x")

        # By number: not every loop takes objects.
        loop.add_reader(one.fileno(), on_one)
        loop.add_reader(two.fileno(), on_two)
        one.send(b"x")
        with clock:
            loop.run_forever()
        loop.remove_reader(one.fileno())
        loop.remove_reader(two.fileno())
    expect(left == 0, "the game broke off")
    return count
