"""hypercorn: HTTP/2 over TLS by httpx, many streams on one connection; HTTP/1.1; a graceful end."""

import asyncio
import sys

import pytest

import programs
from programs import HOST, library


@pytest.fixture
def server(loop_name, tmp_path, certificate):
    """Hypercorn on TLS, as a process."""
    library("hypercorn")
    port = programs.free_port()
    run = ["-m", "mioloop", "run"] if loop_name == "mioloop" else []
    words = [sys.executable, *run, "-m", "hypercorn", "-b", f"{HOST}:{port}"]
    words += ["--certfile", certificate.certificate, "--keyfile", certificate.key]
    with programs.running([*words, "app:application"], tmp_path, env=programs.environment()) as it:
        it.wait_port(port)
        it.tls_port = port
        yield it


async def test_many_streams(loop, loop_name, server, certificate):
    httpx = library("httpx")
    library("h2")
    async with httpx.AsyncClient(
        base_url=f"https://localhost:{server.tls_port}",
        verify=certificate.client_context(),
        http2=True,
        http1=False,
    ) as client:
        answer = await client.get("/loop")
        assert (answer.http_version, answer.text) == ("HTTP/2", loop_name)
        answers = await asyncio.gather(*(client.get("/stream") for _ in range(20)))
        assert {len(answer.content) for answer in answers} == {256 * 64 * 64}
        answers = await asyncio.gather(*(client.get("/slow") for _ in range(20)))
        assert {answer.text for answer in answers} == {"begun and ended"}
    assert server.ends() == 0
    assert "Traceback" not in server.printed


async def test_http1(loop, server, certificate):
    httpx = library("httpx")
    async with httpx.AsyncClient(
        base_url=f"https://localhost:{server.tls_port}", verify=certificate.client_context()
    ) as client:
        answers = await asyncio.gather(*(client.get("/stream") for _ in range(10)))
        assert {answer.http_version for answer in answers} == {"HTTP/1.1"}
        assert {len(answer.content) for answer in answers} == {256 * 64 * 64}
        async with client.stream("GET", "/slow") as response:
            assert [part async for part in response.aiter_text()][0] == "begun"
    assert server.ends() == 0
