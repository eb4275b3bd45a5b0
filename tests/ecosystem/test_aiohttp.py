"""aiohttp: server, client, websockets, streams, TLS."""

import asyncio

import pytest

import support
from programs import HOST, library
from serving import BODY, aiohttp_server, aiohttp_session


async def test_aiohttp(loop):
    async with aiohttp_server() as address, aiohttp_session() as session:

        async def get(name):
            async with session.get(f"{address}/hello/{name}") as response:
                assert response.status == 200
                return await response.text()

        assert await get("world") == "hello, world"
        names = [str(number) for number in range(200)]
        found = await asyncio.gather(*(get(name) for name in names))
        assert found == [f"hello, {name}" for name in names]


async def test_aiohttp_bodies(loop):
    async with aiohttp_server() as address, aiohttp_session() as session:
        async with session.get(f"{address}/download") as response:
            assert await response.read() == BODY
        async with session.post(f"{address}/echo", data=BODY) as response:
            assert await response.json() == {"size": len(BODY)}
        async with session.get(f"{address}/nowhere") as response:
            assert response.status == 404


async def test_aiohttp_websockets(loop):
    async with (
        aiohttp_server() as address,
        aiohttp_session() as session,
        session.ws_connect(f"{address}/chat") as connection,
    ):
        for number in range(100):
            await connection.send_str(f"message {number}")
            assert (await connection.receive()).data == f"MESSAGE {number}"


async def test_aiohttp_over_tls(loop, certificate):
    async with (
        aiohttp_server(tls=certificate.server_context()) as address,
        aiohttp_session() as session,
    ):
        trusted = certificate.client_context()
        async with session.get(f"{address}/download", ssl=trusted) as response:
            assert await response.read() == BODY


async def test_aiohttp_time_outs_and_cancelling(loop):
    aiohttp = library("aiohttp")
    silent = support.Recorder()
    server = await loop.create_server(lambda: silent, HOST, 0)
    async with support.serving(server), aiohttp_session() as session:
        with pytest.raises(asyncio.TimeoutError):
            await session.get(
                f"http://{HOST}:{support.port_of(server)}/",
                timeout=aiohttp.ClientTimeout(total=0.05),
            )
        await silent.wait_event("lost")
