"""httpx: against aiohttp, plain and over TLS."""

import asyncio

import pytest

from programs import library
from serving import BODY, aiohttp_server


async def test_httpx_from_aiohttp(loop):
    httpx = library("httpx")
    async with aiohttp_server() as address, httpx.AsyncClient(base_url=address) as client:
        assert (await client.get("/download")).content == BODY
        assert (await client.post("/echo", content=BODY)).json() == {"size": len(BODY)}
        with pytest.raises(httpx.ConnectError):
            await client.get("http://127.0.0.1:1/")


async def test_httpx_over_tls(loop, certificate):
    httpx = library("httpx")
    async with (
        aiohttp_server(tls=certificate.server_context()) as address,
        httpx.AsyncClient(base_url=address, verify=certificate.client_context()) as client,
    ):
        found = await asyncio.gather(*(client.get("/download") for _ in range(5)))
        assert all(answer.content == BODY for answer in found)


async def test_httpx_time_outs_and_cancelling(loop):
    """A request that is given up takes its connection with it, and the next one is served."""
    httpx = library("httpx")
    reached = asyncio.Semaphore(0)
    async with aiohttp_server(reached=reached) as address:
        limits = httpx.Limits(max_connections=2)
        async with httpx.AsyncClient(base_url=address, limits=limits) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.get("/never", timeout=0.05)
            waiting = [asyncio.ensure_future(client.get("/never")) for _ in range(2)]
            for _ in range(3):
                await reached.acquire()
            with pytest.raises(httpx.PoolTimeout):
                await client.get("/hello/x", timeout=httpx.Timeout(5, pool=0.05))
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)
            assert all(task.cancelled() for task in waiting)
            found = await asyncio.gather(*(client.get(f"/hello/{n}") for n in range(20)))
            assert [answer.text for answer in found] == [f"hello, {n}" for n in range(20)]
