"""A producer and three consumers share a queue."""

import asyncio


async def produce(queue):
    for number in range(10):
        await queue.put(number)
        await asyncio.sleep(0.001)


async def consume(queue, done):
    while True:
        number = await queue.get()
        await asyncio.sleep(0.002)
        done.append(number)
        queue.task_done()


async def main():
    queue = asyncio.Queue(maxsize=3)
    done = []
    consumers = [asyncio.create_task(consume(queue, done)) for _ in range(3)]
    await produce(queue)
    await queue.join()
    for consumer in consumers:
        consumer.cancel()
    await asyncio.gather(*consumers, return_exceptions=True)
    print("consumed", sorted(done))


asyncio.run(main())
