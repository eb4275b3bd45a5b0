"""FastAPI on uvicorn, fetched by httpx."""

import asyncio

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
