"""Asynchronous generators, comprehensions, iterators and context managers."""

import asyncio
import contextlib


async def count(limit):
    for number in range(limit):
        await asyncio.sleep(0)
        yield number


class Countdown:
    def __init__(self, start):
        self.left = start

    def __aiter__(self):
        return self

    async def __anext__(self):
        if not self.left:
            raise StopAsyncIteration
        self.left -= 1
        await asyncio.sleep(0)
        return self.left


@contextlib.asynccontextmanager
async def opened(name):
    print("open", name)
    yield name
    await asyncio.sleep(0)
    print("close", name)


async def main():
    print([number**2 async for number in count(5)])
    print({number: number % 2 == 0 async for number in count(4)})
    print([left async for left in Countdown(3)])
    async with opened("first") as first, opened("second") as second:
        print(first, second)
    async with contextlib.aclosing(count(1_000_000)) as numbers:
        async for number in numbers:
            if number == 3:
                break
    print("left early")


asyncio.run(main())
