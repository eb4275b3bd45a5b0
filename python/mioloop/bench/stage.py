"""The processes that one group of workloads needs, for all loops, for one round.

Owns who is started, where it is pinned, and what is ended after a failure.

Rules: all processes are ready before the first sample is taken, so that no start disturbs it. New
processes in every round average out what differs from one process to the next. After a failure the
processes of that loop are not trusted any more: the next workload gets new ones.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from mioloop.bench.children import Child, Children
from mioloop.bench.machine import Processors
from mioloop.bench.model import Contender, Workload, WorkloadError

START_TIMEOUT = 20.0
# A child stops itself after its time-out and says where it was. The parent waits a little longer.
GRACE = 2.0


class _Process:
    """A child, and what it announced when it was ready."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self._announced: dict[str, Any] | None = None

    def wait_ready(self) -> dict[str, Any]:
        if self._announced is None:
            self._announced = self.child.wait_answer(START_TIMEOUT)
        return self._announced


class Stage:
    """Servers and clients of the loops, for workloads with the same `stage_key`."""

    def __init__(self, children: Children, processors: Processors, workload: Workload) -> None:
        """Make an empty stage.

        Args:
            children: starts and ends the processes.
            processors: where they run.
            workload: any workload of the group.
        """
        self._children = children
        self._processors = processors
        self._workload = workload
        # By role, and the name of the contender. A load generator serves all contenders.
        self._processes: dict[tuple[str, str], _Process] = {}

    def prepare(self, contenders: Iterable[Contender]) -> None:
        """Start all processes and wait for them. What fails here fails again in `sample`."""
        for contender in contenders:
            with contextlib.suppress(WorkloadError):
                self._start(contender)
        for process in self._processes.values():
            with contextlib.suppress(WorkloadError):
                process.wait_ready()

    def sample(
        self, workload: Workload, contender: Contender, seconds: float, timeout: float
    ) -> dict[str, Any]:
        """Take one sample.

        Args:
            workload: a workload of this group.
            contender: what to measure.
            seconds: how long to measure.
            timeout: seconds until the sample counts as hung.

        Returns:
            The fields of a sample.

        Raises:
            WorkloadError: it could not be done. The processes are ended.
        """
        try:
            self._start(contender)
            client = self._processes[self._client_key(contender)]
            client.wait_ready()
            server = self._processes.get(("server", contender.name))
            addresses = server.wait_ready() if server else {}
            parameters = {
                **workload.parameters,
                **addresses,
                "seconds": seconds,
                "timeout": timeout,
            }
            return client.child.ask(parameters, timeout + GRACE)
        except BaseException as error:
            complaint = self._abandon(contender)
            if isinstance(error, WorkloadError) and complaint and complaint not in str(error):
                raise WorkloadError(f"{error} (server: {complaint})") from None
            raise

    def _start(self, contender: Contender) -> None:
        """Start what is missing, without waiting for it."""
        workload = self._workload
        key = ("server", contender.name)
        if workload.server and key not in self._processes:
            if contender.program:
                arguments = [*contender.program, *(workload.program_arguments or ())]
                config: dict[str, Any] = {"role": "program", "arguments": arguments}
            else:
                config = {"role": "server", "target": workload.server, "loop": contender.spec}
            self._start_process(key, config)
        key = self._client_key(contender)
        if key not in self._processes:
            loop = contender.spec if workload.client_on_loop else ""
            config = {"role": "client", "target": workload.client, "loop": loop}
            self._start_process(key, config)

    def _start_process(self, key: tuple[str, str], config: dict[str, Any]) -> None:
        config["cpus"] = self._cpus_of(key[0])
        self._processes[key] = _Process(self._children.start(config))

    def _cpus_of(self, role: str) -> list[int]:
        processors = self._processors
        if self._workload.placement == "both":
            return sorted({*processors.server, *processors.load})
        is_loaded = role == "server" or not self._workload.server
        if is_loaded or self._workload.placement == "together":
            return list(processors.server)
        return list(processors.load)

    def _client_key(self, contender: Contender) -> tuple[str, str]:
        return ("client", contender.name if self._workload.client_on_loop else "")

    def _abandon(self, contender: Contender) -> str:
        """End the processes of a contender and return the last complaint of its server."""
        complaint = ""
        for key in (("server", contender.name), self._client_key(contender)):
            process = self._processes.pop(key, None)
            if process is not None:
                if key[0] == "server":
                    complaint = process.child.complaint()
                self._children.end(process.child)
        return complaint

    def __enter__(self) -> Self:
        """Use as a context."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End all processes of this stage."""
        for process in self._processes.values():
            self._children.end(process.child)
        self._processes.clear()
