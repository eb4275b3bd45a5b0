"""The words of the benchmark: contender, workload, sample.

Owns the plain data that the other modules pass to each other.

Rules: no behaviour that touches a process, a file or a loop. A cost is always "lower is better".
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

# What a client function gets (the factory of the loop under test, the parameters) and gives (the
# fields of a sample). A load generator ignores the factory: it uses no event loop at all.
Client = Callable[[LoopFactory, Mapping[str, Any]], dict[str, float]]

# Where the two processes of a workload run: on different processors; on the same one, where a
# single connection would otherwise measure the wake-up of an idle processor; or on any of the two.
Placement = Literal["apart", "together", "both"]


class WorkloadError(Exception):
    """A loop could not do a workload. The text says why, in one line."""


@dataclass(frozen=True)
class Contender:
    """One column of the table: an event loop, or a server program that bounds what loops can do."""

    name: str
    # `module:factory`. Empty for a program.
    spec: str = ""
    # The command line of a program, which gets the arguments that a workload has for it.
    program: tuple[str, ...] = ()


@dataclass(frozen=True)
class Workload:
    """One row of the table.

    `client` is what is asked for samples, `server` what it talks to, if anything: both are
    `module:function`. The client runs on the loop under test, or is a plain load generator.
    """

    name: str
    summary: str
    client: str
    # What one operation is: "callback", "message", ...
    operation: str
    server: str = ""
    client_on_loop: bool = True
    parameters: Mapping[str, Any] = field(default_factory=dict)
    placement: Placement = "apart"
    # What a cost is counted in.
    unit: str = "us"
    # Modules without which the workload is left out.
    needs: tuple[str, ...] = ()
    # Arguments for a program among the contenders. None: programs have nothing to do here.
    program_arguments: tuple[str, ...] | None = None

    @property
    def stage_key(self) -> tuple[object, ...]:
        """Workloads with the same key can share their processes."""
        return (
            self.client,
            self.server,
            self.placement,
            self.client_on_loop,
            self.program_arguments if self.server else None,
        )

    def suits(self, contender: Contender) -> bool:
        """Whether the contender takes part."""
        return not contender.program or self.program_arguments is not None


@dataclass(frozen=True)
class Sample:
    """What one measurement gave."""

    round: int
    # Operations that were measured.
    count: float
    # Per operation, in the unit of the workload: CPU time of the process under test, mostly.
    cost: float
    # Operations per second of wall time; 0 where that says nothing.
    rate: float
    # Share of the wall time in which the server was on a processor; 0 where there is no server.
    busy: float = 0.0


def resolve(target: str) -> Any:
    """Import what `module:name.name` names.

    Args:
        target: a module and the path of an attribute in it, `new_event_loop` where it is left out.

    Returns:
        The attribute.

    Raises:
        ImportError: there is no such module.
        AttributeError: the module has no such attribute.
    """
    module, _, path = target.partition(":")
    found: Any = importlib.import_module(module)
    for name in (path or "new_event_loop").split("."):
        found = getattr(found, name)
    return found
