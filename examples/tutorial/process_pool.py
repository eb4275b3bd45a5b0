"""Work for the processor goes to a pool of processes."""

import asyncio
from concurrent.futures import ProcessPoolExecutor


def count_primes(limit):
    return sum(all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(2, limit))


async def main():
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(2) as pool:
        limits = [100, 1_000, 5_000]
        counts = await asyncio.gather(
            *(loop.run_in_executor(pool, count_primes, limit) for limit in limits)
        )
    for limit, count in zip(limits, counts, strict=True):
        print(f"{count} primes below {limit}")


if __name__ == "__main__":
    asyncio.run(main())
