"""Take results in the order in which they come, not in that of the questions."""

import asyncio


async def answer(name, seconds):
    await asyncio.sleep(seconds)
    return name


async def main():
    questions = [answer("slow", 0.09), answer("quick", 0.01), answer("middling", 0.05)]
    for result in asyncio.as_completed(questions):
        print(await result)


asyncio.run(main())
