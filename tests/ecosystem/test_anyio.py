"""anyio, which runs the loop itself and leans on more of asyncio's insides than others."""

import asyncio
import re
import ssl
import sys
import tarfile

import pytest

import programs
import support
from programs import HOST, library


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


NOT_HERE = {
    # Where "localhost" is not ::1, as in most containers, these fail on every loop.
    "ipv6",
    "dualstack",
    "multi",
    "test_tcp_listener_same_port",
    "test_tcp_listener_retry_after_partial_failure",
    "test_tcp_listener_total_bind_failure",
    # Asks a name server of the Internet.
    "test_getaddrinfo",
}
# Counts the process's threads, without waiting for those that earlier tests told to end.
COUNTS_THREADS = "tests/test_to_thread.py::TestBlockingPortalProvider::test_single_thread"


@pytest.mark.timeout(600)
def test_its_own_suite(loop_name, mioloop_only, tmp_path):
    """The part that anyio runs on uvloop, with mioloop in its place: a thousand tests."""
    library("anyio")
    for name in ("psutil", "pytest_mock", "trustme", "truststore", "hypothesis"):
        library(name)
    with tarfile.open(programs.source_of("anyio")) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.glob("anyio-*")
    chosen = " and not ".join(["asyncio+uvloop", *sorted(NOT_HERE)])
    words = [sys.executable, "-m", "mioloop", "run", "--as-uvloop", "-m", "pytest", "-q"]
    words += ["-p", "no:cacheprovider", "-k", chosen, "tests"]
    words += ["--deselect", f"{COUNTS_THREADS}[asyncio+uvloop]"]
    with programs.running(words, tmp_path, cwd=folder, env=programs.environment()) as suite:
        status = suite.process.wait(500)
        assert status == 0, suite.printed[-5000:]
        assert int(re.search(r"(\d+) passed", suite.printed)[1]) > 900, suite.printed[-500:]
