"""The time of one callback, on asyncio's loop and on mioloop's.

For a feeling, not for a claim: `python -m mioloop bench` measures with care.
"""

import asyncio
import time
from collections.abc import Callable

import mioloop

CALLBACKS = 100_000


def chain(loop: asyncio.AbstractEventLoop, left: int) -> None:
    """Schedule the next callback of the chain, or stop the loop after the last."""
    if left:
        loop.call_soon(chain, loop, left - 1)
    else:
        loop.stop()


def nanoseconds_per_callback(factory: Callable[[], asyncio.AbstractEventLoop]) -> float:
    """Run a chain of callbacks, each of which schedules the next."""
    loop = factory()
    try:
        loop.call_soon(chain, loop, CALLBACKS)
        started = time.perf_counter_ns()
        loop.run_forever()
        return (time.perf_counter_ns() - started) / CALLBACKS
    finally:
        loop.close()


if __name__ == "__main__":
    for factory in (asyncio.SelectorEventLoop, mioloop.new_event_loop):
        name = factory.__module__.partition(".")[0]
        print(f"{name:8} {nanoseconds_per_callback(factory):8.0f} ns per callback")
