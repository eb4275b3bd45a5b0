"""Servers and programs in processes of their own, for tests that talk to them.

Owns: the processes it starts, each the leader of a session, with its output in a file; free ports;
and what a missing library or server means: a skip on a user's machine, a failure where
`MIOLOOP_ECOSYSTEM=all` says that everything is installed.

Rules: a process is waited for by asking what it serves, and ended with the test that started it.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import http.client
import importlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

HOST = "127.0.0.1"
APPS = Path(__file__).parent / "apps"
ALL_IS_INSTALLED = os.environ.get("MIOLOOP_ECOSYSTEM") == "all"
STARTS_WITHIN = 90.0
ENDS_WITHIN = 20.0
KILLED_AFTER = 3.0


def missing(what: str) -> NoReturn:
    """End the test for want of something: by a skip, or by a failure where all must be there."""
    if ALL_IS_INSTALLED:
        pytest.fail(f"{what} is not installed, and MIOLOOP_ECOSYSTEM=all says it is", pytrace=False)
    pytest.skip(f"{what} is not installed")


def library(name: str) -> Any:
    """A module of another project."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or name.partition(".")[0] != error.name.partition(".")[0]:
            raise
        missing(name)


def source_of(name: str) -> Path:
    """The source archive of a project, where `pip download` put it."""
    folder = Path(os.environ.get("MIOLOOP_ECOSYSTEM_SOURCES", "."))
    for archive in sorted(folder.glob(f"{name}-*.tar.gz")):
        return archive
    missing(f"the source archive of {name}, in the folder MIOLOOP_ECOSYSTEM_SOURCES,")


def command(name: str, *places: str) -> str:
    """The path of a command: on PATH, beside Python, among a server's usual places."""
    beside = os.path.join(os.path.dirname(sys.executable), name)
    found = [path for place in places for path in sorted(glob.glob(place), reverse=True)]
    for path in (beside, shutil.which(name), shutil.which(name, path="/usr/sbin:/sbin"), *found):
        if path and os.access(path, os.X_OK):
            return path
    missing(name)


@functools.cache
def _taken() -> set[int]:
    return set()


def free_port() -> int:
    """A port of the loopback address that nothing listens on, another one each time.

    Not one of those that the system gives to clients, which could take it before its server does.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as sock:
            sock.bind((HOST, port))
            if port not in _taken():
                _taken().add(port)
                return port


def is_listening(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
        return True
    return False


class Program:
    """A process and all that it starts."""

    def __init__(
        self, arguments: list[str], output: Path, last: int = signal.SIGTERM, **settings: Any
    ) -> None:
        self.arguments = arguments
        self.last = last
        self.output = output
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **settings,
            )

    @property
    def printed(self) -> str:
        """What it printed so far, on both streams."""
        return self.output.read_text(errors="replace")

    def wait_for(self, happened: Callable[[], object], what: str) -> None:
        """Wait until something holds, and fail with the output when it does not come."""
        deadline = time.monotonic() + STARTS_WITHIN
        while not happened():
            if self.process.poll() is not None:
                pytest.fail(f"{self.arguments} ended, not {what}:\n{self.printed}", pytrace=False)
            if time.monotonic() > deadline:
                pytest.fail(f"{self.arguments}: not {what}:\n{self.printed}", pytrace=False)
            time.sleep(0.02)

    def wait_port(self, port: int) -> None:
        """Wait until it listens there."""
        self.wait_for(lambda: is_listening(port), f"listening on {port}")

    def ends(self, number: int = signal.SIGTERM) -> int:
        """Send it a signal, and give the status that it ends with."""
        self.process.send_signal(number)
        try:
            return self.process.wait(ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{self.arguments} does not end:\n{self.printed}", pytrace=False)

    def kill(self) -> None:
        """End it, and whatever it started that is still there."""
        if self.process.poll() is None:
            self.process.send_signal(self.last)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(KILLED_AFTER)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextlib.contextmanager
def running(arguments: list[str], folder: Path, **settings: Any) -> Iterator[Program]:
    """Run a program as long as the block lasts, its output in that folder."""
    name = f"{os.path.basename(arguments[0])}-{free_port()}.log"
    program = Program(arguments, folder / name, **settings)
    try:
        yield program
    finally:
        program.kill()


def environment(**variables: str) -> dict[str, str]:
    """The environment of a program that finds the applications of `apps/`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MIOLOOP")}
    return {**kept, "PYTHONPATH": os.fspath(APPS), "PYTHONUNBUFFERED": "1", **variables}


def fetch(port: int, path: str) -> str:
    """The body of an answer with status 200."""
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read().decode()
    finally:
        connection.close()
    assert answer.status == 200, body
    return body
