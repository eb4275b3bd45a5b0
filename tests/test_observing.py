"""What `python -m mioloop run` tells of a program: `--stats` and `--watch-stalls`."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import mioloop

DOCUMENT = Path(__file__).parents[1] / "docs" / "observability.md"
RUN = [sys.executable, "-W", "error", "-m", "mioloop", "run"]
SLEEP = "import asyncio; asyncio.run(asyncio.sleep(0.01)); print('ok')"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RUN, *arguments], capture_output=True, text=True, timeout=50, check=False
    )


def figures(text: str) -> dict[str, float]:
    found = re.findall(r"^  ([a-z ]+?) +([\d,.]+)(?: [sB])?$", text, re.MULTILINE)
    return {name: float(figure.replace(",", "")) for name, figure in found}


def test_statistics_are_printed_at_exit() -> None:
    done = run("--stats", "-c", SLEEP)
    assert (done.returncode, done.stdout) == (0, "ok\n")
    assert re.match(r"mioloop: process \d+, 1 loop\n", done.stderr)
    found = figures(done.stderr)
    assert len(found) == 11
    assert found["turns"] >= 2
    assert 0.005 < found["polling"] < 10


def test_statistics_are_those_of_all_loops_together() -> None:
    source = f"{SLEEP}\n{SLEEP}\nloop = asyncio.new_event_loop()\nloop.call_later(9, int)"
    done = run("--stats", "-c", source + "\nimport atexit; atexit.register(loop.close)")
    assert ", 3 loops\n" in done.stderr
    assert figures(done.stderr)["timers"] == 1


def test_statistics_without_a_loop_and_after_an_error() -> None:
    done = run("--stats", "-c", "raise SystemExit(3)")
    assert done.returncode == 3
    assert re.fullmatch(r"mioloop: process \d+, 0 loops\n", done.stderr)


def test_a_signal_prints_the_statistics_of_a_loop_that_sleeps() -> None:
    source = """
import asyncio, sys
async def main():
    reading = asyncio.ensure_future(asyncio.to_thread(sys.stdin.readline))
    # After its first step: while a thread starts, it does not count yet.
    await asyncio.sleep(0.001)
    print("ready", flush=True)
    await reading
asyncio.run(main())
"""
    with subprocess.Popen(
        [*RUN, "--stats", "-c", source],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin and process.stdout and process.stderr
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGUSR1)
        lines = [process.stderr.readline() for _ in range(12)]
        assert figures("".join(lines))["threads"] == 1
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.wait(30) == 0
        assert "1 loop\n" in process.stderr.read()


def test_a_stall_is_told_while_it_lasts() -> None:
    source = """
import asyncio, sys
async def stuck_here():
    sys.stdin.readline()
asyncio.run(stuck_here())
"""
    with subprocess.Popen(
        [*RUN, "--watch-stalls", "0.02", "-c", source],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin and process.stderr
        assert process.stderr.readline().startswith("The event loop has been stuck for")
        while "stuck_here" not in process.stderr.readline():
            pass
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.wait(30) == 0
        process.stderr.read()


def test_options_come_in_any_order() -> None:
    done = run("--watch-stalls", "60", "--stats", "--as-uvloop", "-c", SLEEP)
    assert (done.returncode, done.stdout) == (0, "ok\n")


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon", None])
def test_wrong_seconds_are_wrong_usage(seconds: str | None) -> None:
    done = run("--watch-stalls", *([seconds, "-c", SLEEP] if seconds else []))
    assert done.returncode == 2
    assert done.stderr.startswith("usage:")
    assert done.stderr.endswith("error: --watch-stalls takes a number of seconds above zero\n")


def blocks_of_the_document() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", blocks_of_the_document())
def test_the_document_s_programs_run(block: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.match("busy for|stuck for", done.stdout)


def test_the_document_names_every_field() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", DOCUMENT.read_text(), re.MULTILINE)
    assert tuple(rows) == mioloop.Metrics._fields
