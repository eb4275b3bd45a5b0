"""A blocking function runs in a thread, and the loop goes on meanwhile."""

import asyncio
import time


def block():
    time.sleep(0.1)
    return "the blocking function is done"


async def tick(ticks):
    while True:
        ticks.append(time.monotonic())
        await asyncio.sleep(0.01)


async def main():
    ticks = []
    ticking = asyncio.create_task(tick(ticks))
    print(await asyncio.to_thread(block))
    loop = asyncio.get_running_loop()
    print(await loop.run_in_executor(None, block))
    ticking.cancel()
    print("the loop ticked meanwhile:", len(ticks) > 5)


asyncio.run(main())
