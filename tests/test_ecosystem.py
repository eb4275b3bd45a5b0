"""The libraries people use, unmodified: each serves and fetches on the loop, in one process."""

import asyncio
import contextlib
import socket
import ssl

import pytest

import support

# Other projects' deprecations are theirs to mend.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

HOST = "127.0.0.1"
BODY = support.payload(300_000)


def library(name):
    """A library, or a skip that says it is not installed."""
    return pytest.importorskip(name, reason=f"{name} is not installed")


# aiohttp -----------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def aiohttp_server(tls=None):
    """An aiohttp application that serves on a free port; gives its address."""
    web = library("aiohttp.web")

    async def hello(request):
        return web.Response(text=f"hello, {request.match_info['name']}")

    async def echo(request):
        return web.json_response({"size": len(await request.read())})

    async def download(request):
        response = web.StreamResponse()
        await response.prepare(request)
        for place in range(0, len(BODY), 10_000):
            await response.write(BODY[place : place + 10_000])
        await response.write_eof()
        return response

    async def chat(request):
        connection = web.WebSocketResponse()
        await connection.prepare(request)
        async for message in connection:
            await connection.send_str(message.data.upper())
        return connection

    application = web.Application(client_max_size=10_000_000)
    application.add_routes(
        [
            web.get("/hello/{name}", hello),
            web.post("/echo", echo),
            web.get("/download", download),
            web.get("/chat", chat),
        ]
    )
    runner = web.AppRunner(application)
    await runner.setup()
    sock = socket.create_server((HOST, 0))
    await web.SockSite(runner, sock, ssl_context=tls).start()
    try:
        yield f"{'https' if tls else 'http'}://{HOST}:{sock.getsockname()[1]}"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def aiohttp_session():
    """A client session that is gone, connections and all, at the end."""
    async with library("aiohttp").ClientSession() as session:
        yield session
    await support.turns(5)


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


# uvicorn, FastAPI, httpx -------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def uvicorn_server(application, **options):
    """An ASGI application that uvicorn serves on a free port; gives its address."""
    uvicorn = library("uvicorn")
    sock = socket.create_server((HOST, 0))
    config = uvicorn.Config(application, log_level="warning", **options)
    server = uvicorn.Server(config)
    serving = asyncio.ensure_future(server.serve(sockets=[sock]))
    while not server.started and not serving.done():
        await support.turns()
    try:
        yield f"http://{HOST}:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


def fastapi_application():
    """An application with what most have: JSON in and out, sync and async handlers, streams."""
    fastapi = library("fastapi")
    responses = library("fastapi.responses")
    application = fastapi.FastAPI()

    @application.get("/hello/{name}")
    async def hello(name: str):
        return {"hello": name}

    @application.get("/blocking/{number}")
    def blocking(number: int):
        return {"double": 2 * number}

    @application.post("/sum")
    async def add(numbers: list[int]):
        return sum(numbers)

    @application.get("/download")
    async def download():
        async def parts():
            for place in range(0, len(BODY), 10_000):
                yield BODY[place : place + 10_000]

        return responses.StreamingResponse(parts())

    return application


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_fastapi_on_uvicorn_fetched_by_httpx(loop, http):
    library(http)
    httpx = library("httpx")
    async with (
        uvicorn_server(fastapi_application(), http=http) as address,
        httpx.AsyncClient(base_url=address) as client,
    ):
        assert (await client.get("/hello/world")).json() == {"hello": "world"}
        found = await asyncio.gather(*(client.get(f"/hello/{number}") for number in range(100)))
        assert [answer.json()["hello"] for answer in found] == [str(n) for n in range(100)]
        found = await asyncio.gather(*(client.get(f"/blocking/{number}") for number in range(20)))
        assert [answer.json()["double"] for answer in found] == [2 * n for n in range(20)]
        assert (await client.post("/sum", json=[1, 2, 3])).json() == 6
        assert (await client.post("/sum", json=["x"])).status_code == 422
        async with client.stream("GET", "/download") as response:
            assert b"".join([part async for part in response.aiter_bytes()]) == BODY


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


# websockets --------------------------------------------------------------------------------------


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


# anyio -------------------------------------------------------------------------------------------


def test_anyio(loop_factory):
    """anyio runs the loop itself, and leans on more of asyncio's insides than others."""
    anyio = library("anyio")
    kind = type(loop_factory_probe(loop_factory))

    async def serve(stream):
        async with stream:
            async for data in stream:
                await stream.send(data.upper())

    async def main():
        assert type(asyncio.get_running_loop()) is kind
        listener = await anyio.create_tcp_listener(local_host=HOST)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, serve)
            async with await anyio.connect_tcp(HOST, port) as stream:
                await stream.send(b"hello")
                assert await stream.receive() == b"HELLO"
                await stream.send_eof()
                with pytest.raises(anyio.EndOfStream):
                    await stream.receive()
            assert await anyio.to_thread.run_sync(lambda: anyio.from_thread.run(five)) == 5
            with anyio.move_on_after(0.01) as scope:
                await anyio.sleep_forever()
            assert scope.cancelled_caught
            group.cancel_scope.cancel()
        await listener.aclose()
        return "done"

    async def five():
        return 5

    assert anyio.run(main, backend_options={"loop_factory": loop_factory}) == "done"


def loop_factory_probe(loop_factory):
    """A closed loop of that factory, to know its class."""
    loop = loop_factory()
    loop.close()
    return loop


def test_anyio_sockets(loop_factory):
    anyio = library("anyio")

    async def main():
        with support.unix_path() as path:
            listener = await anyio.create_unix_listener(path)

            async def serve(stream):
                async with stream:
                    await stream.send(await stream.receive())

            async with anyio.create_task_group() as group:
                group.start_soon(listener.serve, serve)
                async with await anyio.connect_unix(path) as stream:
                    await stream.send(b"hello")
                    assert await stream.receive() == b"hello"
                group.cancel_scope.cancel()
            await listener.aclose()
        async with await anyio.create_udp_socket(local_host=HOST) as udp:
            host, port = udp.extra(anyio.abc.SocketAttribute.local_address)
            await udp.sendto(b"datagram", host, port)
            assert (await udp.receive())[0] == b"datagram"

    anyio.run(main, backend_options={"loop_factory": loop_factory})


def test_anyio_tls(loop_factory, certificate):
    anyio = library("anyio")
    tls = library("anyio.streams.tls")

    async def main():
        plain = await anyio.create_tcp_listener(local_host=HOST)
        port = plain.extra(anyio.abc.SocketAttribute.local_port)
        listener = tls.TLSListener(plain, certificate.server_context())

        async def serve(stream):
            async with stream:
                await stream.send(await stream.receive())

        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, serve)
            async with await anyio.connect_tcp(
                HOST,
                port,
                ssl_context=certificate.client_context(),
                tls_hostname="localhost",
            ) as stream:
                await stream.send(b"hello")
                assert await stream.receive() == b"hello"
                assert isinstance(stream.extra(tls.TLSAttribute.ssl_object), ssl.SSLObject)
            group.cancel_scope.cancel()
        await listener.aclose()

    anyio.run(main, backend_options={"loop_factory": loop_factory})
