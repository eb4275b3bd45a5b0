"""The programs of `examples/tutorial/`: the same output by `python` and on mioloop."""

from __future__ import annotations

import contextlib
import functools
import http.server
import importlib.util
import subprocess
import sys
import threading
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "examples" / "tutorial"

OUTPUT = {
    "as_they_complete.py": "quick\nmiddling\nslow\n",
    "async_generators.py": (
        "[0, 1, 4, 9, 16]\n{0: True, 1: False, 2: True, 3: False}\n[2, 1, 0]\n"
        "open first\nopen second\nfirst second\nclose second\nclose first\nleft early\n"
    ),
    "blocking_in_a_thread.py": (
        "the blocking function is done\n" * 2 + "the loop ticked meanwhile: True\n"
    ),
    "echo.py": "[['ONE', 'TWO'], ['THREE']]\n",
    "groups_and_timeouts.py": (
        "['task 0', 'task 1', 'task 2']\nthe long one was cancelled\none of them failed\n"
        "the late one was cancelled\ntoo late\n"
    ),
    "process_pool.py": "25 primes below 100\n168 primes below 1000\n669 primes below 5000\n",
    "producer_consumer.py": "consumed [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]\n",
    "two_commands.py": "count ['0', '1', '2'] 0\nfail ['failing'] 3\n",
}


def run(name: str, how: list[str], *arguments: str) -> str:
    """Run one, and demand that it ends well and in silence."""
    done = subprocess.run(
        [sys.executable, *how, str(FOLDER / name), *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def test_every_program_is_tested() -> None:
    assert {path.name for path in FOLDER.glob("*.py")} == {*OUTPUT, "fetch_urls.py"}


@pytest.mark.parametrize("how", [[], ["-m", "mioloop", "run"]], ids=["python", "mioloop"])
@pytest.mark.parametrize("name", OUTPUT)
def test_program(name: str, how: list[str]) -> None:
    assert run(name, how) == OUTPUT[name]


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves the folder of the programs and keeps no log."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.skipif(importlib.util.find_spec("aiohttp") is None, reason="aiohttp is not installed")
@pytest.mark.parametrize("how", [[], ["-m", "mioloop", "run"]], ids=["python", "mioloop"])
def test_fetching(how: list[str]) -> None:
    handler = functools.partial(Quiet, directory=str(FOLDER))
    names = [*sorted(OUTPUT), "missing.py"]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        stack.callback(thread.join)
        stack.callback(server.shutdown)
        base = f"http://127.0.0.1:{server.server_port}/"
        lines = run("fetch_urls.py", how, *(base + name for name in names)).splitlines()
    assert [line.split()[0] for line in lines] == ["200"] * len(OUTPUT) + ["404"]
    assert [line.split()[-1] for line in lines] == [base + name for name in names]
    assert [int(line.split()[1]) for line in lines[:-1]] == [
        len((FOLDER / name).read_text()) for name in names[:-1]
    ]
