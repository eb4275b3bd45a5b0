"""One child process: started, followed event by event, and never waited for in vain.

Owns the temporary directory of a child, its process group, and the pipe on which it
reports.

Rules: `run_child` always returns, and leaves no process of the child's group alive.
A child that is silent for `timeout` seconds is made to print the stacks of its
threads (SIGABRT, which faulthandler answers), then killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .child import Job

ROOT = Path(__file__).resolve().parents[2]

# How often a child's death is looked for, in seconds: a process that a test has
# left behind may hold the pipe open, so that its end cannot be waited for.
_POLL_SECONDS = 0.1
_STACKS_SECONDS = 5.0
_LOG_LINES = 120

_running: set[int] = set()
_is_stopping = threading.Event()


class StoppedError(Exception):
    """The whole run has been interrupted."""


@dataclass
class Outcome:
    """What became of one test, as the child saw it (or its death showed)."""

    name: str
    status: str  # pass, skip, fail, hang or crash
    detail: str = ""
    seconds: float = 0.0


@dataclass
class ChildReport:
    """All that one child process has reported."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    fixtures: list[Outcome] = field(default_factory=list)
    planned: list[str] = field(default_factory=list)
    excluded: dict[str, str] = field(default_factory=dict)
    duplicates: dict[str, str] = field(default_factory=dict)
    stale: list[str] = field(default_factory=list)
    is_done: bool = False
    death: Outcome | None = None  # set when the process did not end by itself, with 0

    def missing(self) -> list[str]:
        """Return the planned tests of which nothing was reported."""
        return [name for name in self.planned if name not in self.outcomes]


class _Follower:
    """Turns the child's lines into a report."""

    def __init__(self, log: Path, on_outcome: Callable[[Outcome], None] | None) -> None:
        self.report = ChildReport()
        self.current: str | None = None
        self._log = log
        self._log_start = 0
        self._on_outcome = on_outcome
        self._rest = b""

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._handle(json.loads(line))

    def _handle(self, event: dict[str, object]) -> None:
        kind = event.pop("event")
        if kind == "plan":
            report = self.report
            report.planned = list(event["run"])  # type: ignore[call-overload]
            report.excluded = dict(event["excluded"])  # type: ignore[call-overload]
            report.duplicates = dict(event["duplicates"])  # type: ignore[call-overload]
            report.stale = list(event["stale"])  # type: ignore[call-overload]
        elif kind == "start":
            self.current = str(event["test"])
            self._log_start = int(event["log"])  # type: ignore[call-overload]
        elif kind == "done":
            self.report.is_done = True
        else:
            outcome = Outcome(name=str(event.pop("test")), **event)  # type: ignore[arg-type]
            if kind == "fixture":
                self.report.fixtures.append(outcome)
            else:
                self.report.outcomes[outcome.name] = outcome
                self.current = None
            if self._on_outcome is not None:
                self._on_outcome(outcome)

    def log_tail(self) -> str:
        """Return the end of what the child has printed since the current test began."""
        with self._log.open("rb") as file:
            file.seek(self._log_start)
            lines = file.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-_LOG_LINES:])

    def die(self, status: str, how: str) -> None:
        """Record an end that was not the child's own."""
        detail = f"{how}\n{self.log_tail()}".rstrip()
        if self.current is not None:
            outcome = Outcome(self.current, status, detail)
            self.report.outcomes[self.current] = outcome
            if self._on_outcome is not None:
                self._on_outcome(outcome)
        self.report.death = Outcome(self.current or "", status, detail)


def run_child(
    job: Job,
    timeout: float,
    on_outcome: Callable[[Outcome], None] | None = None,
) -> ChildReport:
    """Run one job in a fresh process.

    `timeout` is the number of seconds that the child may be silent: one test, the
    import, and the interpreter's exit may each take as long.  Raises StoppedError once
    `stop_all` was called.
    """
    if _is_stopping.is_set():
        raise StoppedError
    with tempfile.TemporaryDirectory(
        prefix="conformance-", ignore_cleanup_errors=True
    ) as directory:
        job_file = Path(directory, "job.json")
        job_file.write_text(json.dumps(asdict(job)))
        log = Path(directory, "child.log")
        follower = _Follower(log, on_outcome)
        reader, writer = os.pipe()
        with log.open("wb") as log_file:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.conformance.child", str(job_file), str(writer)],
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                pass_fds=(writer,),
                start_new_session=True,
            )
        os.close(writer)
        _running.add(process.pid)
        try:
            is_hung = not _follow(process.pid, reader, follower, timeout)
        finally:
            os.close(reader)
            _kill_group(process.pid)
            _running.discard(process.pid)
            code = process.wait()
        if _is_stopping.is_set():
            raise StoppedError
        if is_hung:
            where = "at exit" if follower.report.is_done else "silent"
            follower.die("hang", f"{where} for {timeout:g} s")
        elif code != 0 or not follower.report.is_done:
            follower.die("crash", f"the process died: {_describe(code)}")
        return follower.report


def stop_all() -> None:
    """End every child that runs, and let no other begin; from any thread."""
    _is_stopping.set()
    for pid in list(_running):
        _kill_group(pid)


def _follow(pid: int, reader: int, follower: _Follower, timeout: float) -> bool:
    """Read events until the child has exited; False when it had to be stopped."""
    deadline = time.monotonic() + timeout
    is_aborted = False
    is_open = True
    while True:
        if is_open and select.select([reader], [], [], _POLL_SECONDS)[0]:
            if data := os.read(reader, 1 << 16):
                follower.feed(data)
                if not is_aborted:
                    deadline = time.monotonic() + timeout
                continue
            is_open = False
        elif not is_open:
            time.sleep(_POLL_SECONDS)
        if _has_exited(pid):
            return not is_aborted
        if time.monotonic() >= deadline:
            if is_aborted:
                return False
            is_aborted = True
            os.kill(pid, signal.SIGABRT)
            deadline = time.monotonic() + _STACKS_SECONDS


def _has_exited(pid: int) -> bool:
    # WNOWAIT keeps the process as a zombie, so that its number stays taken until its
    # group has been killed.
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _describe(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
