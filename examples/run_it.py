"""The two ways to select mioloop in a program: `mioloop.run`, and a loop factory."""

import asyncio

import mioloop


async def add(first: int, second: int) -> int:
    """Add two numbers, after a while."""
    await asyncio.sleep(0.001)
    return first + second


async def main() -> int:
    """Add several pairs at once."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(add(number, number)) for number in range(10)]
    return sum(task.result() for task in tasks)


if __name__ == "__main__":
    print("mioloop.run:", mioloop.run(main()))
    with asyncio.Runner(loop_factory=mioloop.new_event_loop) as runner:
        print("asyncio.Runner:", runner.run(main()))
