"""Check wheels as their users get them: `python check_wheels.py FOLDER PYTHON...`.

Each Python installs from that folder, in an empty environment, and by the tags alone, as pip does
it everywhere. What it then finds must be a release build that runs a program. Only the standard
library is needed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

LARGEST = 2_000_000
"""Bytes of a wheel."""

PROGRAM = """
import asyncio

async def answer(reader, writer):
    writer.write(await reader.readline())
    await writer.drain()
    writer.close()

async def main():
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello\\n")
        print((await reader.read()).decode(), type(asyncio.get_running_loop()).__module__)
        writer.close()
        await writer.wait_closed()

asyncio.run(main())
"""
PRINTS = "hello\n mioloop._loop\n"


def output(*command: str) -> str:
    """What a command prints; it has to end well."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def check_python(folder: Path, python: str) -> str:
    """Install for one Python, try it, and say what it is."""
    with tempfile.TemporaryDirectory() as place:
        output(python, "-m", "venv", place)
        ours = f"{place}/bin/python"
        pip = ["-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        output(ours, *pip, "--no-index", "--only-binary=:all:", f"--find-links={folder}", "mioloop")
        facts = json.loads(output(ours, "-m", "mioloop", "info", "--json"))
        assert facts["build profile"] == "release", facts
        printed = output(ours, "-m", "mioloop", "run", "-c", PROGRAM)
        assert printed == PRINTS, printed
    return f"{facts['python']}, {facts['implementation']}, {facts['build target']}"


def check_sizes(folder: Path) -> list[str]:
    """Refuse a wheel that is too large."""
    sizes = {path.name: path.stat().st_size for path in sorted(folder.glob("*.whl"))}
    assert sizes, f"{folder}: no wheels"
    assert max(sizes.values()) < LARGEST, sizes
    return [f"{name}: {size / 1e6:.2f} MB" for name, size in sizes.items()]


def main() -> None:
    """Check all, and print a line for each."""
    folder, *pythons = sys.argv[1:]
    for python in pythons:
        print("works:", check_python(Path(folder), python), flush=True)
    print(*check_sizes(Path(folder)), sep="\n")


if __name__ == "__main__":
    main()
