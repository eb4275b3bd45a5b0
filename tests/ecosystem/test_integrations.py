"""Each line of `docs/integrations.md`, run as it stands: the program is on mioloop then."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import programs

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "integrations.md"

PLACE = {
    "uvicorn --loop mioloop:new_event_loop": "--port",
    "gunicorn -k mioloop.integrations.gunicorn.AsgiWorker": "-b",
    "gunicorn -k mioloop.integrations.gunicorn.UvicornWorker": "-b",
    "gunicorn -k mioloop.integrations.gunicorn.AiohttpWorker": "-b",
    "python -m mioloop run --as-uvloop -m gunicorn -k asgi --asgi-loop uvloop": "-b",
    "python -m mioloop run -m hypercorn": "-b",
    "python -m mioloop run -m granian --interface asgi --loop asyncio": "--port",
    "python -m mioloop run --as-uvloop -m sanic": "--port",
    "python -m mioloop run -m daphne": "--port",
}
"""Each line, without the application, and the option that says where it serves."""

APPLICATIONS = {"AiohttpWorker": "aiohttp_app:application", "sanic": "sanic_app:app"}
NEEDS = {"aiohttp_app": "aiohttp", "UvicornWorker": "uvicorn_worker"}


def documented(kind):
    """The lines of the document's blocks of one kind."""
    blocks = re.findall(rf"```{kind}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_every_line_is_tested():
    elsewhere = {
        "python -m mioloop run script.py",
        "python -m mioloop run --as-uvloop script.py",
        "python -m mioloop run -m package.module",
        "python -m mioloop run -m IPython",
        "python -m mioloop run -m jupyter lab",
        "pytest --mioloop",
    }
    assert set(documented("sh")) == {with_application(line) for line in PLACE} | elsewhere


def with_application(line):
    """A line as it is documented."""
    last = re.findall(r"\w+", line)[-1]
    return f"{line} {APPLICATIONS.get(last, 'app:application')}"


def words_of(line, *more):
    """A line of the document as a command, with the Python of this test."""
    for word in re.findall(r"\w+", line):
        if word in NEEDS:
            programs.library(NEEDS[word])
    first, *rest = shlex.split(line)
    if first == "python":
        programs.library(rest[rest.index("-m", 2) + 1])
        return [sys.executable, *rest, *more]
    return [sys.executable, programs.command(first), *rest, *more]


@pytest.mark.parametrize("line", PLACE)
def test_server(line, tmp_path):
    port = programs.free_port()
    place = f"{programs.HOST}:{port}" if PLACE[line] == "-b" else str(port)
    words = words_of(with_application(line), PLACE[line], place)
    with programs.running(words, tmp_path, env=programs.environment(), cwd=tmp_path) as server:
        server.wait_port(port)
        assert programs.fetch(port, "/loop") == "mioloop"
        if "sanic" not in line:
            # Sanic's manager may miss a signal that comes before its workers have reported to it.
            # uvicorn, when it has ended well, ends once more by the signal that ended it.
            assert server.ends() in ((0, -signal.SIGTERM) if line.startswith("uvicorn") else (0,))


PLAIN = {
    "daphne": ["app:application", "--port"],
    "granian": ["--interface", "asgi", "app:application", "--port"],
    "gunicorn": ["-k", "asgi", "app:application", "-b"],
    "hypercorn": ["app:application", "-b"],
    "sanic": ["sanic_app:app", "--port"],
    "uvicorn": ["app:application", "--port"],
}


@pytest.mark.parametrize("name", PLAIN)
def test_check_tells_the_truth(name, tmp_path):
    """What a server takes by itself is what `python -m mioloop check` says."""
    programs.library(name)
    words = [sys.executable, "-m", "mioloop", "check", "--json"]
    checked = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)
    port = programs.free_port()
    place = f"{programs.HOST}:{port}" if PLAIN[name][-1] == "-b" else str(port)
    words = [sys.executable, "-m", name, *PLAIN[name], place]
    with programs.running(words, tmp_path, env=programs.environment(), cwd=tmp_path) as server:
        server.wait_port(port)
        assert programs.fetch(port, "/loop") == checked[name]["takes"]


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_granian_from_python(method, tmp_path):
    programs.library("granian")
    port = programs.free_port()
    words = [sys.executable, str(programs.APPS / "granian_app.py"), str(port), method]
    with programs.running(words, tmp_path, env=programs.environment()) as server:
        server.wait_port(port)
        assert programs.fetch(port, "/loop") == "mioloop"
        assert server.ends() == 0


def test_aiohttp_from_python(tmp_path):
    programs.library("aiohttp")
    assert "web.run_app(application, loop=mioloop.new_event_loop())" in documented("python")
    port = programs.free_port()
    words = [sys.executable, str(programs.APPS / "aiohttp_app.py"), str(port)]
    with programs.running(words, tmp_path, env=programs.environment()) as server:
        server.wait_port(port)
        assert programs.fetch(port, "/loop") == "mioloop"
        assert server.ends() == 0


def python(code, *before):
    """What a piece of Python prints."""
    done = subprocess.run(
        [sys.executable, *before, "-c", code],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env=programs.environment(),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


IN_PYTHON = {
    'anyio.run(main, backend_options={"loop_factory": mioloop.new_event_loop})': """
import anyio
async def main(): print(app.loop_name())
LINE
""",
    "io_loop = tornado.platform.asyncio.AsyncIOLoop(asyncio_loop=mioloop.new_event_loop())": """
import tornado.platform.asyncio
LINE
async def main(): print(app.loop_name())
io_loop.run_sync(main)
io_loop.close()
""",
    "asyncioreactor.install(mioloop.new_event_loop())": """
from twisted.internet import asyncioreactor
LINE
from twisted.internet import reactor
def look(): print(app.loop_name()); reactor.stop()
reactor.callLater(0.01, look)
reactor.run()
""",
    "mioloop.run(main())": """
async def main(): print(app.loop_name())
LINE
""",
}


@pytest.mark.parametrize("line", IN_PYTHON)
def test_in_python(line):
    assert line in documented("python")
    for name in re.findall(r"^(?:import|from) (\w+)", IN_PYTHON[line], re.MULTILINE):
        programs.library(name)
    assert python("import app, mioloop\n" + IN_PYTHON[line].replace("LINE", line)) == "mioloop\n"


def test_ipython():
    programs.library("IPython")
    done = subprocess.run(
        [sys.executable, "-m", "mioloop", "run", "-m", "IPython", "--simple-prompt", "--no-banner"],
        input="import app\nawait app.name()\n",
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env=programs.environment(),
    )
    assert "'mioloop'" in done.stdout, done.stdout + done.stderr


def test_jupyter_kernel(tmp_path):
    """What `jupyter lab` does: it starts kernels as processes, and runs cells in them."""
    programs.library("ipykernel")
    programs.library("jupyter_client")
    code = """
import os
from jupyter_client import KernelManager
manager = KernelManager(kernel_name="python3", transport="ipc")
manager.start_kernel()
client = manager.client()
client.start_channels()
client.wait_for_ready(timeout=30)
def show(message):
    if message["msg_type"] in ("execute_result", "error", "stream"):
        print(message["content"], flush=True)
client.execute_interactive("import app\\nawait app.name()", output_hook=show, timeout=30)
client.stop_channels()
manager.shutdown_kernel()
"""
    words = [sys.executable, "-m", "mioloop", "run", "-c", code]
    environment = programs.environment(IPYTHONDIR=str(tmp_path), JUPYTER_DATA_DIR=str(tmp_path))
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env=environment,
        cwd=tmp_path,
    )
    assert "'mioloop'" in done.stdout, done.stdout + done.stderr
