"""The aiohttp server and client, as aiohttp's tutorial has them.

Owns the one workload in which both ends run on the loop under test.

The cost says how much both ends work, the rate also how much of it they do at the same time: a page
waits for the slower end, and each sweep of a hundred for its last page.

Rules: nothing here is tuned for a benchmark. The only addition to the tutorial is a second page
that tells the CPU time of the server. aiohttp is an extra: only child processes import this
module.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import aiohttp
from aiohttp import web

from mioloop.bench.calls import expect
from mioloop.bench.model import LoopFactory
from mioloop.bench.servers import Announce, listen_tcp

# The client's connection limit is 100 by default.
AT_ONCE = 100
MIN_REPETITIONS = 3


async def handle(request: web.Request) -> web.Response:
    """Greet."""
    name = request.match_info.get("name", "Anonymous")
    return web.Response(text=f"Hello, {name}")


async def tell_cpu(_request: web.Request) -> web.Response:
    """Tell the CPU seconds that this process has used."""
    return web.Response(text=repr(time.process_time()))


def serve(factory: LoopFactory, announce: Announce) -> None:
    """Serve until the process is ended."""
    app = web.Application()
    app.add_routes(
        [
            web.get("/cpu", tell_cpu),
            web.get("/", handle),
            web.get("/{name}", handle),
        ]
    )
    listener = listen_tcp()

    async def tell_address(_app: web.Application) -> None:
        announce({"address": listener.getsockname()})

    app.on_startup.append(tell_address)
    web.run_app(app, sock=listener, loop=factory(), print=None, access_log=None)


async def fetch_text(session: aiohttp.ClientSession, url: str) -> str:
    """Fetch one page."""
    async with session.get(url) as response:
        return await response.text()


def fetch(factory: LoopFactory, parameters: Mapping[str, Any]) -> dict[str, float]:
    """Fetch pages concurrently, a hundred at once.

    Args:
        factory: makes the loop under test.
        parameters: `address` of the server; `seconds` to measure for.

    Returns:
        The fields of a sample. The cost is the CPU time of server and client together, per request,
        in microseconds.

    Raises:
        WorkloadError: a page was not the right one.
        aiohttp.ClientError: the server did not answer.
    """
    host, port = parameters["address"]
    url = f"http://{host}:{port}"
    names = [f"visitor{number}" for number in range(AT_ONCE)]
    greetings = [f"Hello, {name}" for name in names]

    async def main() -> dict[str, float]:
        async with aiohttp.ClientSession() as session:

            async def fetch_all() -> None:
                texts = await asyncio.gather(
                    *[fetch_text(session, f"{url}/{name}") for name in names]
                )
                expect(texts == greetings, "the pages are not the right ones")

            await fetch_all()
            before = float(await fetch_text(session, f"{url}/cpu"))
            client_before, started = time.process_time(), time.perf_counter()
            count = 0
            deadline = started + parameters["seconds"]
            while count < MIN_REPETITIONS * AT_ONCE or time.perf_counter() < deadline:
                await fetch_all()
                count += AT_ONCE
            wall = time.perf_counter() - started
            client_cpu = time.process_time() - client_before
            server_cpu = float(await fetch_text(session, f"{url}/cpu")) - before
        return {
            "count": count,
            "cost": (server_cpu + client_cpu) / count * 1e6,
            "rate": count / wall,
            "busy": server_cpu / wall,
        }

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())
