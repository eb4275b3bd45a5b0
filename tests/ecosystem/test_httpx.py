"""httpx: against aiohttp, plain and over TLS, HTTP/2."""

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
