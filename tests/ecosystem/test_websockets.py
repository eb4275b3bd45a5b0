"""websockets: a hundred clients, broadcasts, pings, TLS."""

import asyncio

import pytest

import support
from programs import HOST, library
from serving import BODY


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_websockets(loop, certificate, tls):
    server_module = library("websockets.asyncio.server")
    client_module = library("websockets.asyncio.client")

    async def echo(connection):
        async for message in connection:
            await connection.send(message)

    keywords = {"ssl": certificate.server_context()} if tls else {}
    trust = {"ssl": certificate.client_context(), "server_hostname": "localhost"} if tls else {}
    async with server_module.serve(echo, HOST, 0, **keywords) as server:
        address = f"{'wss' if tls else 'ws'}://{HOST}:{support.port_of(server)}/"

        async def talk(number):
            async with client_module.connect(address, **trust) as connection:
                for turn in range(10):
                    await connection.send(f"{number} {turn}")
                    assert await connection.recv() == f"{number} {turn}"
                await connection.send(BODY)
                assert await connection.recv() == BODY

        await asyncio.gather(*(talk(number) for number in range(10)))
