"""uvicorn as a process: streams, websockets, a graceful end, several workers."""

import http.client
import os
import signal
import socket
import sys

import pytest

import programs
from programs import HOST

LOOPS = {"asyncio": "asyncio", "mioloop": "mioloop:new_event_loop"}


@pytest.fixture
def serve(loop_name, tmp_path):
    """Start uvicorn with options; gives the program and its port."""
    programs.library("uvicorn")
    started = []

    def start(*options):
        port = programs.free_port()
        words = [sys.executable, "-m", "uvicorn", "--loop", LOOPS[loop_name], "app:application"]
        words += ["--port", str(port), *options]
        context = programs.running(words, tmp_path, env=programs.environment())
        server = context.__enter__()
        started.append(context)
        server.wait_port(port)
        return server, port

    yield start
    for context in started:
        context.__exit__(None, None, None)


@pytest.mark.parametrize("http_library", ["h11", "httptools"])
def test_streaming(serve, loop_name, http_library):
    programs.library(http_library)
    server, port = serve("--http", http_library)
    assert programs.fetch(port, "/loop") == loop_name
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    for _ in range(5):
        connection.request("GET", "/stream")
        assert connection.getresponse().read() == bytes(range(256)) * 64 * 64
    connection.close()
    assert server.ends() in (0, -signal.SIGTERM)
    assert "Traceback" not in server.printed


@pytest.mark.parametrize("library", ["websockets", "wsproto"])
def test_websocket(serve, library):
    programs.library(library)
    client = programs.library("websockets.sync.client")
    server, port = serve("--ws", library)
    with client.connect(f"ws://{HOST}:{port}/") as connection:
        for number in range(50):
            connection.send(f"message {number}")
            assert connection.recv(timeout=10) == f"message {number}"
        connection.send(bytes(200_000))
        assert connection.recv(timeout=10) == bytes(200_000)
    server.ends()
    assert "Traceback" not in server.printed


def test_graceful_end(serve):
    """SIGTERM ends what is under way: the answer is whole, and the application is told."""
    server, port = serve()
    with socket.create_connection((HOST, port), 10) as client:
        client.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        server.wait_for(lambda: "slow begun" in server.printed, "in the middle of an answer")
        status = server.ends()
        answer = b""
        while part := client.recv(65536):
            answer += part
    assert b"begun" in answer
    assert b" and ended" in answer
    # uvicorn, when it has ended well, ends once more by the signal that ended it.
    assert status in (0, -signal.SIGTERM)
    assert "lifespan.shutdown" in server.printed
    assert "Finished server process" in server.printed
    assert "Traceback" not in server.printed


def test_several_workers(serve, loop_name):
    server, port = serve("--workers", "2")
    pids = set()

    def asked():
        assert programs.fetch(port, "/loop") == loop_name
        pids.add(programs.fetch(port, "/pid"))
        return len(pids) == 2

    server.wait_for(asked, "answering by two processes")
    first = int(min(pids))
    os.kill(first, signal.SIGKILL)
    known = set(pids)
    server.wait_for(lambda: asked_again(port, pids, known), "answering by a new process")
    assert server.ends() == 0
    assert "Traceback" not in server.printed


def asked_again(port, pids, known):
    """Whether a process answered that was not there before."""
    try:
        pids.add(programs.fetch(port, "/pid"))
    except OSError:
        return False
    return len(pids - known) > 0


def test_tls_and_a_unix_socket(serve, certificate, tmp_path):
    server, port = serve(
        "--ssl-certfile", certificate.certificate, "--ssl-keyfile", certificate.key
    )
    connection = http.client.HTTPSConnection(
        "localhost", port, timeout=10, context=certificate.client_context()
    )
    for _ in range(3):
        connection.request("GET", "/stream")
        assert len(connection.getresponse().read()) == 256 * 64 * 64
    connection.close()
    server.ends()
    assert "Traceback" not in server.printed
