"""`pytest --mioloop`: suites of pytest-asyncio, anyio and unittest, unchanged, on mioloop."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import programs

SUITES = {
    "asyncio": """
import pytest, pytest_asyncio, asyncio
from app import loop_name

pytestmark = pytest.mark.asyncio

@pytest_asyncio.fixture
async def served():
    async def serve(reader, writer):
        writer.write((await reader.readline()).upper())
        writer.close()
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield loop_name(), server.sockets[0].getsockname()

@pytest.mark.parametrize("word", ["one", "two"])
async def test_streams(served, word):
    reader, writer = await asyncio.open_connection(*served[1])
    writer.write(word.encode() + b"\\n")
    assert await reader.read() == word.upper().encode() + b"\\n"
    writer.close()
    await writer.wait_closed()
    assert served[0] == loop_name() == "EXPECTED"

@pytest.mark.asyncio(loop_scope="module")
async def test_module_loop():
    assert loop_name() == "EXPECTED"
""",
    "anyio": """
import anyio, pytest
from app import loop_name

pytestmark = pytest.mark.anyio

@pytest.fixture
async def number():
    await anyio.sleep(0.001)
    yield loop_name()

@pytest.fixture
def anyio_backend():
    return "asyncio"

async def test_group(number):
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep, 0.001)
    assert number == loop_name() == "EXPECTED"
""",
    "anyio-own-choice": """
import asyncio, pytest
from app import loop_name

@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": asyncio.SelectorEventLoop}

@pytest.mark.anyio
async def test_kept():
    assert loop_name() == "asyncio"
""",
    "unittest": """
import asyncio, unittest
from app import loop_name, name

class Case(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.name = loop_name()
    async def test_loop(self):
        assert self.name == loop_name() == "EXPECTED"

def test_run():
    assert asyncio.run(name()) == "EXPECTED"
""",
}
NEEDS = {"asyncio": "pytest_asyncio", "anyio": "anyio", "anyio-own-choice": "anyio"}


@pytest.mark.parametrize("how", ["option", "run", "child", "without"])
@pytest.mark.parametrize("suite", SUITES)
def test_suite(suite, how, tmp_path):
    if suite in NEEDS:
        programs.library(NEEDS[suite])
    expected = "mioloop" if how != "without" else "asyncio"
    (tmp_path / "test_it.py").write_text(SUITES[suite].replace("EXPECTED", expected))
    scope = "asyncio_default_fixture_loop_scope = function\n" if suite == "asyncio" else ""
    (tmp_path / "pytest.ini").write_text(f"[pytest]\nfilterwarnings = error\n{scope}")
    environment = programs.environment(**{"MIOLOOP_SELECT": "1"} if how == "child" else {})
    if suite != "asyncio":
        environment["PYTEST_ADDOPTS"] = "-p no:asyncio"
    run = ["-m", "mioloop", "run"] if how == "run" else []
    options = ["--mioloop"] if how == "option" else []
    done = subprocess.run(
        [sys.executable, *run, "-m", "pytest", "-p", "no:cacheprovider", *options],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env=environment,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d passed", done.stdout)
    assert ("\nmioloop: " in done.stdout) == bool(options)


def test_anyio_gets_the_factory_by_name(tmp_path):
    """Not through the policy, which is going."""
    programs.library("anyio")
    (tmp_path / "test_it.py").write_text("""
import mioloop, pytest

@pytest.fixture
def anyio_backend():
    return "asyncio", {"debug": True}

@pytest.mark.anyio
async def test_options(anyio_backend, anyio_backend_options):
    expected = {"debug": True, "loop_factory": mioloop.new_event_loop}
    assert anyio_backend_options == expected
    assert anyio_backend == ("asyncio", expected)
""")
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:asyncio",
        "--mioloop",
    ]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=50, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
