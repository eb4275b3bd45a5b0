"""Servers in the process and on the loop of the test, for its clients to talk to."""

import asyncio
import contextlib
import socket

import support
from programs import HOST, library

BODY = support.payload(300_000)


@contextlib.asynccontextmanager
async def aiohttp_server(tls=None, reached=None):
    """An aiohttp application that serves on a free port; gives its address.

    A request for `/never` is not answered; it releases the semaphore `reached`.
    """
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

    async def never(request):
        reached.release()
        await asyncio.Event().wait()

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
            web.get("/never", never),
            web.get("/chat", chat),
        ]
    )
    runner = web.AppRunner(application, handler_cancellation=True)
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
