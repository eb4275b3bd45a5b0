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


async def test_a_hundred_clients_hear_every_broadcast(loop):
    server_module = library("websockets.asyncio.server")
    client_module = library("websockets.asyncio.client")
    connected = set()

    async def serve(connection):
        connected.add(connection)
        try:
            await connection.wait_closed()
        finally:
            connected.remove(connection)

    async with server_module.serve(serve, HOST, 0, ping_interval=0.05) as server:
        address = f"ws://{HOST}:{support.port_of(server)}/"
        clients = await asyncio.gather(*(client_module.connect(address) for _ in range(100)))
        for number in range(20):
            server_module.broadcast(connected, f"news {number}")
            if number % 5 == 0:
                await asyncio.sleep(0)
        for client in clients:
            assert [await client.recv() for _ in range(20)] == [f"news {n}" for n in range(20)]
        latencies = await asyncio.gather(*(ping(client) for client in clients))
        assert all(latency > 0 for latency in latencies)
        await asyncio.gather(*(client.close() for client in clients[:50]))
        server_module.broadcast(connected, b"rest")
        assert {await client.recv() for client in clients[50:]} == {b"rest"}
        await asyncio.gather(*(client.close() for client in clients[50:]))


async def ping(client):
    return await (await client.ping())


async def test_a_slow_client_holds_back_its_sender_only(loop):
    server_module = library("websockets.asyncio.server")
    client_module = library("websockets.asyncio.client")
    sent = 0

    async def serve(connection):
        nonlocal sent
        async for message in connection:
            if message == "flood":
                for _ in range(100):
                    await connection.send(BODY)
                    sent += 1
            else:
                await connection.send(message)

    async with server_module.serve(serve, HOST, 0, compression=None) as server:
        address = f"ws://{HOST}:{support.port_of(server)}/"
        options = {"max_queue": 1, "compression": None}
        async with client_module.connect(address, **options) as slow:
            await slow.send("flood")
            async with client_module.connect(address) as other:
                for number in range(50):
                    await other.send(str(number))
                    assert await other.recv() == str(number)
            assert sent < 100
            assert [await slow.recv() == BODY for _ in range(100)] == [True] * 100
