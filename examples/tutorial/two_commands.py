"""Run two commands side by side, and read what each prints line by line."""

import asyncio
import sys


async def run(name, code):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE
    )
    lines = [line.decode().strip() async for line in process.stdout]
    return name, lines, await process.wait()


async def main():
    count = "for n in range(3): print(n)"
    fail = "print('failing'); raise SystemExit(3)"
    for name, lines, status in await asyncio.gather(run("count", count), run("fail", fail)):
        print(name, lines, status)


asyncio.run(main())
