"""The process that runs one test module: ``python -m tests.conformance.child JOB FD``.

Reads what to do from the file JOB (JSON, see `Job`), and writes what happens as
JSON lines to the descriptor FD:

    {"event": "plan", "run": [...], "excluded": {...}, "duplicates": {...}, "stale": [...]}
    {"event": "start", "test": NAME, "log": BYTES}   (how much has been printed so far)
    {"event": "stop", "test": NAME, "status": STATUS, "detail": TEXT, "seconds": S}
    {"event": "fixture", "test": NAME, "status": STATUS, "detail": TEXT}
    {"event": "done"}

Rules: no event is lost when the process dies (each is one write, unbuffered); a
process forked by a test writes nothing; this module decides nothing about what an
outcome means, but for one thing: a test that passes and leaves something behind
has failed (see `Leftovers`).
"""

from __future__ import annotations

import asyncio
import faulthandler
import importlib
import json
import os
import resource
import sys
import threading
import time
import traceback
import types
import unittest
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .inject import Injection
from .selection import load


@dataclass
class Job:
    """What one child process has to run."""

    package: str
    module: str
    loop: str
    rules: str
    only: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    run_excluded: bool = False

    @classmethod
    def read(cls, path: str) -> Job:
        """Read the job that the parent has written."""
        return cls(**json.loads(Path(path).read_text()))


class Events:
    """The way back to the parent process."""

    def __init__(self, fd: int) -> None:
        os.set_inheritable(fd, False)
        self._fd = fd
        self._pid = os.getpid()

    def send(self, event: str, **details: object) -> None:
        """Write one event; does nothing in a process forked by a test."""
        if os.getpid() == self._pid:
            line = memoryview(json.dumps({"event": event, **details}).encode() + b"\n")
            while line:
                line = line[os.write(self._fd, line) :]


class Leftovers:
    """What a test does to its process beside its own outcome.

    As in CPython's runner with --fail-env-changed these count: threads or child
    processes that are still there, exceptions that could not be raised (in
    destructors, in C code), exceptions that ended a thread; and a loop that is still
    said to run.
    """

    def __init__(self) -> None:
        self._found: list[str] = []
        self._print_unraisable = sys.unraisablehook
        self._print_thread = threading.excepthook
        sys.unraisablehook = self._on_unraisable
        threading.excepthook = self._on_thread

    def take(self) -> list[str]:
        """Return what was found since the last call."""
        found, self._found = self._found, []
        support: Any = sys.modules.get("test.support")
        if getattr(support, "environment_altered", False):
            support.environment_altered = False
            found.append("threads or child processes were left behind")
        if asyncio._get_running_loop() is not None:
            # Left as it is, it would fail all tests that follow.
            asyncio._set_running_loop(None)
            found.append("the running event loop was left set")
        return found

    def _on_unraisable(self, unraisable: Any) -> None:
        # The object is not kept: a hook that does so brings it back to life.
        text = f"unraisable exception: {unraisable.err_msg or 'ignored'}: "
        self._found.append(text + repr(unraisable.exc_value))
        self._print_unraisable(unraisable)

    def _on_thread(self, args: Any) -> None:
        self._found.append(f"exception in thread {args.thread!r}: {args.exc_value!r}")
        self._print_thread(args)


class Result(unittest.TestResult):
    """Turns unittest's calls into one event per test.

    A test's status is the worst of what is said about it, because sub-tests and
    clean-ups may each add something.
    """

    _WORSE = ("pass", "skip", "fail")

    def __init__(self, events: Events, injection: Injection, package: str) -> None:
        super().__init__()
        self._events = events
        self._injection = injection
        self._package = package
        self._status = "pass"
        self._details: list[str] = []
        self._is_in_test = False
        self._started = 0.0
        self._leftovers = Leftovers()

    def startTest(self, test: Any) -> None:  # noqa: N802 - unittest's name
        super().startTest(test)
        self._status, self._details = "pass", []
        self._is_in_test = True
        log = printed_bytes()
        self._events.send("start", test=relative_name(test, self._package), log=log)
        self._started = time.monotonic()

    def stopTest(self, test: Any) -> None:  # noqa: N802 - unittest's name
        seconds = time.monotonic() - self._started
        for leftover in self._leftovers.take():
            self._note(test, "fail", leftover)
        self._is_in_test = False
        self._injection.set_policy()
        self._events.send(
            "stop",
            test=relative_name(test, self._package),
            status=self._status,
            detail="\n".join(self._details),
            seconds=round(seconds, 4),
        )
        super().stopTest(test)

    def addError(self, test: Any, err: Any) -> None:  # noqa: N802 - unittest's name
        self._note(test, "fail", format_error(err))

    def addFailure(self, test: Any, err: Any) -> None:  # noqa: N802 - unittest's name
        self._note(test, "fail", format_error(err))

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:  # noqa: N802
        if err is not None:
            self._note(test, "fail", f"{subtest}\n{format_error(err)}")

    def addSkip(self, test: Any, reason: str) -> None:  # noqa: N802 - unittest's name
        # A skipped sub-test does not make its test a skipped one.
        if not isinstance(test, unittest.case._SubTest):  # type: ignore[attr-defined]
            self._note(test, "skip", reason)

    def addUnexpectedSuccess(self, test: Any) -> None:  # noqa: N802 - unittest's name
        self._note(test, "fail", "unexpected success of a test marked as expectedFailure")

    def _note(self, test: Any, status: str, detail: str) -> None:
        if not self._is_in_test:
            name = relative_name(test, self._package)
            self._events.send("fixture", test=name, status=status, detail=detail)
            return
        self._status = max(self._status, status, key=self._WORSE.index)
        self._details.append(detail)


def relative_name(test: Any, package: str) -> str:
    """Return a test's name as ``module.Class.test``."""
    return str(test.id()).removeprefix(package + ".")


def printed_bytes() -> int:
    """Return the length of the file that standard error goes to."""
    sys.stdout.flush()
    try:
        return os.fstat(2).st_size
    except OSError:
        return 0


def format_error(err: Any) -> str:
    """Return the traceback of a `sys.exc_info()` triple."""
    return "".join(traceback.format_exception(*err)).rstrip()


def flatten(suite: Any) -> list[Any]:
    """Return the test cases of nested suites, in order."""
    if isinstance(suite, unittest.TestSuite):
        return [test for part in suite for test in flatten(part)]
    return [suite]


def import_or_none(name: str) -> types.ModuleType | None:
    """Import a module that need not exist."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return None


def run(job: Job, events: Events) -> None:
    """Import the test module, give it the loop, and run what the job asks for."""
    injection = Injection(job.loop)
    injection.set_policy()
    rules = load(Path(job.rules))
    try:
        module = importlib.import_module(f"{job.package}.{job.module}")
    except unittest.SkipTest as skip:
        excluded = {job.module: reason} if (reason := rules.reason("excluded", job.module)) else {}
        events.send("plan", run=[], excluded=excluded, duplicates={}, stale=[])
        if not excluded:
            events.send("fixture", test=f"{job.module}", status="skip", detail=str(skip))
        return
    injection.adapt(module, import_or_none(f"{job.package}.utils"))
    tests = {
        relative_name(test, job.package): test
        for test in flatten(unittest.defaultTestLoader.loadTestsFromModule(module))
    }
    selected, excluded, duplicates = [], {}, {}
    for name, test in tests.items():
        if job.only and not any(name == only or name.startswith(only + ".") for only in job.only):
            continue
        if reason := rules.reason("duplicates", name):
            duplicates[name] = reason
        elif (reason := rules.reason("excluded", name)) and not job.run_excluded:
            excluded[name] = reason
        elif job.run_excluded and not reason:
            continue
        elif name not in job.done:
            selected.append(test)
    events.send(
        "plan",
        run=[relative_name(test, job.package) for test in selected],
        excluded=excluded,
        duplicates=duplicates,
        stale=rules.stale(job.module, tests),
    )
    result = Result(events, injection, job.package)
    unittest.TestSuite(selected).run(result)


def main() -> None:
    """Do the job named on the command line."""
    job = Job.read(sys.argv[1])
    events = Events(int(sys.argv[2]))
    # Tests write files into the current directory, and a crash would write a core.
    os.chdir(Path(sys.argv[1]).parent)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable()
    warnings.simplefilter("default")
    try:
        run(job, events)
    except BaseException:
        detail = traceback.format_exc()
        events.send("fixture", test=f"{job.module}.<import>", status="fail", detail=detail)
    events.send("done")


if __name__ == "__main__":
    main()
