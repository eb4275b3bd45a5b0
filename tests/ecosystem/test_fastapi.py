"""FastAPI and Starlette on uvicorn, fetched by httpx."""

import asyncio
import contextlib

import pytest

from programs import library
from serving import BODY, uvicorn_server


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


async def test_starlette(loop):
    """Lifespan, middleware, background tasks, uploads, server-sent events, websockets."""
    applications = library("starlette.applications")
    middleware = library("starlette.middleware.base")
    responses = library("starlette.responses")
    routing = library("starlette.routing")
    background = library("starlette.background")
    client_module = library("websockets.asyncio.client")
    httpx = library("httpx")
    told = []
    done = asyncio.Event()

    @contextlib.asynccontextmanager
    async def lifespan(application):
        told.append("begin")
        yield
        told.append("end")

    async def upload(request):
        size = 0
        async for part in request.stream():
            size += len(part)
        task = background.BackgroundTask(done.set)
        return responses.JSONResponse({"size": size}, background=task)

    async def events(request):
        async def parts():
            for number in range(50):
                yield f"data: {number}\n\n"
                await asyncio.sleep(0)

        return responses.StreamingResponse(parts(), media_type="text/event-stream")

    async def echo(websocket):
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    class Stamp(middleware.BaseHTTPMiddleware):
        async def dispatch(self, request, call_next):
            response = await call_next(request)
            response.headers["x-stamp"] = "yes"
            return response

    application = applications.Starlette(
        routes=[
            routing.Route("/upload", upload, methods=["POST"]),
            routing.Route("/events", events),
            routing.WebSocketRoute("/echo", echo),
        ],
        lifespan=lifespan,
    )
    application.add_middleware(Stamp)
    async with (
        uvicorn_server(application) as address,
        httpx.AsyncClient(base_url=address) as client,
    ):

        async def parts():
            for place in range(0, len(BODY), 10_000):
                yield BODY[place : place + 10_000]

        answer = await client.post("/upload", content=parts())
        assert answer.json() == {"size": len(BODY)}
        assert answer.headers["x-stamp"] == "yes"
        await done.wait()
        async with client.stream("GET", "/events") as response:
            lines = [line async for line in response.aiter_lines() if line]
        assert lines == [f"data: {number}" for number in range(50)]
        async with client_module.connect(f"ws{address[4:]}/echo") as connection:
            for number in range(50):
                await connection.send(str(number))
                assert await connection.recv() == str(number)
    assert told == ["begin", "end"]
