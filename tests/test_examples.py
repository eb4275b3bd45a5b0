"""Every program in `examples/` runs, without a warning, and says what its text promises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "examples"

OUTPUT = {
    "compare_loops.py": r"asyncio +\d+ ns per callback\nmioloop +\d+ ns per callback\n",
    "echo_server.py": r"hello over TCP\nthe loop is mioloop\n",
    "run_it.py": r"mioloop\.run: 90\nasyncio\.Runner: 90\n",
}


def test_every_example_is_tested() -> None:
    assert {path.name for path in FOLDER.glob("*.py")} == set(OUTPUT)


@pytest.mark.parametrize("name", OUTPUT)
def test_example(name: str) -> None:
    command = [sys.executable, "-W", "error", "-m", "mioloop", "run"]
    done = subprocess.run(
        [*command, str(FOLDER / name)], capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(OUTPUT[name], done.stdout), done.stdout


def test_the_echo_server_runs_on_asyncio_as_well() -> None:
    done = subprocess.run(
        [sys.executable, str(FOLDER / "echo_server.py")],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("hello over TCP\nthe loop is asyncio\n", "")
