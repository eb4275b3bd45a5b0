"""A task group ends with its last task, or with the first that fails; a time-out, with time."""

import asyncio


async def work(name, seconds):
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        print(name, "was cancelled")
        raise
    return name


async def fail():
    await asyncio.sleep(0.01)
    raise ValueError("one of them failed")


async def main():
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work(f"task {number}", 0.01)) for number in range(3)]
    print([task.result() for task in tasks])
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(work("the long one", 60))
            group.create_task(fail())
    except* ValueError as errors:
        print(*errors.exceptions)
    try:
        async with asyncio.timeout(0.01):
            await work("the late one", 60)
    except TimeoutError:
        print("too late")


asyncio.run(main())
