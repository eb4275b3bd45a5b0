"""Run it: pip install . examples/extension && python examples/extension/demo.py .

Awaits Rust futures of the extension beside this file, through tokio and on the loop itself.
"""

from __future__ import annotations

import asyncio
import time

import example_extension as extension

import mioloop


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write((await reader.read()).upper())
    writer.close()


async def main() -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        start = time.perf_counter()
        answers = await asyncio.gather(
            *(extension.ask("127.0.0.1", port, b"question %d" % number) for number in range(100)),
            *(extension.tokio_nap(0.1, None) for _ in range(100)),
            *(extension.loop_nap(0.2, None) for _ in range(100)),
            *(extension.embed_nap(0.2, None) for _ in range(100)),
        )
        seconds = time.perf_counter() - start
    print(bytes(answers[99]).decode())
    print(f"300 naps and 100 questions took {seconds:.1f} s")


if __name__ == "__main__":
    mioloop.run(main())
