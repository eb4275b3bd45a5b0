"""Child processes: started, asked, and always ended.

Owns the processes of a run and the directory that they use for sockets.

Rules: children stand in a session of their own, so that Ctrl-C reaches the parent alone, which then
ends them. Nothing waits without a time-out. What a child says on standard error is kept: it is the
reason when something fails.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from mioloop.bench.model import WorkloadError

# The child sees the modules that the parent sees, wherever the parent found them.
_BOOTSTRAP = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from mioloop.bench.worker import main; main()"
)
# Debugging aids of the surroundings would be measured instead of the loop.
_UNWANTED = (
    "PYTHONASYNCIODEBUG",
    "PYTHONDEVMODE",
    "PYTHONFAULTHANDLER",
    "PYTHONMALLOC",
    "PYTHONTRACEMALLOC",
)
_END_TIMEOUT = 5.0
_REASON_WIDTH = 160


class Child:
    """One child process, which answers with lines of JSON."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start it.

        Args:
            arguments: the command line.
            environment: all of its environment variables.

        Raises:
            OSError: it cannot be started.
        """
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  Closed by `end`.
        self._pending = b""
        try:
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=environment,
                start_new_session=True,
            )
        except BaseException:
            self._errors.close()
            raise

    def ask(self, question: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Send a question and wait for its answer.

        Args:
            question: what to send.
            timeout: seconds to wait at most.

        Returns:
            The answer.

        Raises:
            WorkloadError: the child ended, hangs, or says that it failed.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
        return self.wait_answer(timeout)

    def wait_answer(self, timeout: float) -> dict[str, Any]:
        """Wait for the next line that the child sends: see `ask`."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout
        while b"\n" not in self._pending:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise WorkloadError(f"no answer within {timeout:.0f} s")
            chunk = os.read(self._process.stdout.fileno(), 1 << 16)
            if not chunk:
                raise WorkloadError(self._reason())
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkloadError(str(answer["error"])[:_REASON_WIDTH])
        return answer

    def complaint(self) -> str:
        """Return the last error that the child has written, or an empty string."""
        self._errors.seek(0)
        text = self._errors.read().decode(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        telling = [
            line
            for line in lines
            if "panicked" in line or re.match(r"Timeout |[\w.]*(Error|Exception)(:|$)", line)
        ]
        return (telling or lines or [""])[-1][:_REASON_WIDTH]

    def _reason(self) -> str:
        try:
            status = self._process.wait(_END_TIMEOUT)
        except subprocess.TimeoutExpired:
            return "closed its output"
        complaint = self.complaint()
        if complaint.startswith("Timeout "):
            return f"hangs: {complaint}"
        if status < 0:
            return f"ended by {signal.Signals(-status).name}"
        return complaint or f"ended with status {status}"

    def end(self) -> None:
        """End the process and wait until it is gone. May be called twice."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._errors.close()


class Children:
    """All child processes of a run. Leaving the context ends them."""

    def __init__(self) -> None:
        """Start with none."""
        self._children: list[Child] = []
        self._directory = tempfile.TemporaryDirectory(prefix="mioloop-bench-")
        self._environment = {k: v for k, v in os.environ.items() if k not in _UNWANTED}
        self._environment |= {"TMPDIR": self._directory.name, "PYTHONHASHSEED": "0"}

    def start(self, config: Mapping[str, Any]) -> Child:
        """Start a child with a configuration: see `worker`.

        Raises:
            WorkloadError: it cannot be started.
        """
        code = [sys.executable, "-c", _BOOTSTRAP]
        arguments = [*code, json.dumps(sys.path), json.dumps(config)]
        try:
            child = Child(arguments, self._environment)
        except OSError as error:
            raise WorkloadError(str(error)) from error
        self._children.append(child)
        return child

    def end(self, child: Child) -> None:
        """End one child."""
        child.end()
        if child in self._children:
            self._children.remove(child)

    def __enter__(self) -> Self:
        """Use as a context."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End all children and remove their files."""
        for child in tuple(self._children):
            self.end(child)
        self._directory.cleanup()
