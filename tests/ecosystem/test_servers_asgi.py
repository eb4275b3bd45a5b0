"""gunicorn, granian, Sanic, Quart, daphne: each serves, streams, talks, and ends when told."""

import concurrent.futures
import http.client
import os
import signal
import sys

import pytest

import programs
from programs import HOST, library

RUN = {"asyncio": [], "mioloop": ["-m", "mioloop", "run", "--as-uvloop"]}

SERVERS = {
    "gunicorn": ["-m", "gunicorn", "-k", "asgi", "-w", "2", "-b", "PLACE", "app:application"],
    "granian": ["-m", "granian", "--interface", "asgi", "--loop", "asyncio", "--port", "PORT"],
    "daphne": ["-m", "daphne", "-p", "PORT", "app:application"],
    "hypercorn": ["-m", "hypercorn", "-w", "2", "-b", "PLACE", "app:application"],
}
SERVERS["granian"] += ["--workers", "2", "app:application"]


def start(loop_name, arguments, folder, port):
    """Run a server; the loop is asyncio's, or mioloop in the place of all others."""
    arguments = [word.replace("PLACE", f"{HOST}:{port}") for word in arguments]
    arguments = [word.replace("PORT", str(port)) for word in arguments]
    if loop_name == "asyncio" and "gunicorn" in arguments:
        arguments += ["--asgi-loop", "asyncio"]
    uvloop = "true" if loop_name == "mioloop" else "false"
    words = [sys.executable, *RUN[loop_name], *arguments]
    return programs.running(
        words, folder, env=programs.environment(SANIC_USE_UVLOOP=uvloop), cwd=folder
    )


def stream(port):
    """Fetch a megabyte, three times on one connection."""
    connection = http.client.HTTPConnection(HOST, port, timeout=20)
    for _ in range(3):
        connection.request("GET", "/stream")
        assert connection.getresponse().read() == bytes(range(256)) * 64 * 64
    connection.close()


@pytest.mark.parametrize("name", SERVERS)
def test_serving(name, loop_name, tmp_path):
    library(name)
    port = programs.free_port()
    with start(loop_name, SERVERS[name], tmp_path, port) as server:
        server.wait_port(port)
        assert programs.fetch(port, "/loop") == loop_name
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(stream, port) for _ in range(16)]:
                done.result()
        if name != "granian":
            client = library("websockets.sync.client")
            with client.connect(f"ws://{HOST}:{port}/") as connection:
                for number in range(20):
                    connection.send(f"message {number}")
                    assert connection.recv(timeout=10) == f"message {number}"
        assert server.ends() == 0
        assert "Traceback" not in server.printed, server.printed


def test_gunicorn_replaces_a_worker(loop_name, tmp_path):
    library("gunicorn")
    port = programs.free_port()
    with start(loop_name, SERVERS["gunicorn"], tmp_path, port) as server:
        server.wait_port(port)
        first = programs.fetch(port, "/pid")
        os.kill(int(first), signal.SIGTERM)

        def is_replaced():
            try:
                return (
                    programs.fetch(port, "/pid") != first and server.printed.count("Booting") >= 3
                )
            except OSError:
                return False

        server.wait_for(is_replaced, "with another worker")
        assert programs.fetch(port, "/loop") == loop_name
        server.process.send_signal(signal.SIGHUP)
        server.wait_for(lambda: server.printed.count("Booting") >= 5, "reloaded")
        assert server.ends() == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_sanic(workers, loop_name, tmp_path):
    library("sanic")
    port = programs.free_port()
    words = ["-m", "sanic", "sanic_app:app", "--port", "PORT", "--workers", str(workers)]
    if workers == 1:
        words.append("--single-process")
    with start(loop_name, words, tmp_path, port) as server:
        server.wait_port(port)
        assert programs.fetch(port, "/loop") == loop_name
        client = library("websockets.sync.client")
        with client.connect(f"ws://{HOST}:{port}/feed") as connection:
            for number in range(20):
                connection.send(f"message {number}")
                assert connection.recv(timeout=10) == f"message {number}"
        assert programs.fetch(port, "/stream") == "".join(f"part {n}\n" for n in range(1000))
        if workers == 1:
            # The manager of several may miss a signal that comes before they have reported to it.
            assert server.ends() == 0
        assert "Traceback" not in server.printed, server.printed


def test_quart(loop_name, tmp_path):
    library("quart")
    library("hypercorn")
    port = programs.free_port()
    words = ["-m", "hypercorn", "-b", "PLACE", "quart_app:app"]
    with start(loop_name, words, tmp_path, port) as server:
        server.wait_port(port)
        assert programs.fetch(port, "/loop") == loop_name
        assert programs.fetch(port, "/stream") == "".join(f"part {n}\n" for n in range(1000))
        client = library("websockets.sync.client")
        with client.connect(f"ws://{HOST}:{port}/feed") as connection:
            for number in range(20):
                connection.send(f"message {number}")
                assert connection.recv(timeout=10) == f"message {number}"
        assert server.ends() == 0
        assert "Traceback" not in server.printed, server.printed
