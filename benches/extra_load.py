"""More ways to load a server than sweeps of messages: new connections, and idle ones.

Owns the churn of connections and the memory of idle ones.

Rules: those of `mioloop.bench.load`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from mioloop.bench.calls import expect
from mioloop.bench.load import WARM_UP_SHARE, Connections, Usage, run_for, server_sample
from mioloop.bench.model import LoopFactory

KIB = 1024


def churn(_factory: LoopFactory, parameters: Mapping[str, Any]) -> dict[str, float]:
    """Connect, exchange one message and close, some connections at once.

    The parameters are those of `mioloop.bench.load.echo`. The cost is the server's CPU time per
    connection in microseconds.
    """

    def sweep() -> None:
        connections = Connections(parameters)
        try:
            connections.sweep()
        finally:
            connections.close()

    with Usage(parameters["control"], parameters["timeout"]) as usage:
        run_for(sweep, parameters["seconds"] * WARM_UP_SHARE, 1)
        before, _ = usage.ask()
        started = time.perf_counter()
        sweeps = run_for(sweep, parameters["seconds"], 1)
        wall = time.perf_counter() - started
        after, _ = usage.ask()
    return server_sample(sweeps * parameters["connections"], after - before, wall)


def hold(_factory: LoopFactory, parameters: Mapping[str, Any]) -> dict[str, float]:
    """Open connections, exchange one message on each, and hold them.

    The cost is the server's resident memory per connection in KiB.
    """
    with Usage(parameters["control"], parameters["timeout"]) as usage:
        _, before = usage.ask()
        expect(before > 0, "this system does not tell the memory of a process")
        connections = Connections(parameters)
        try:
            connections.sweep()
            _, after = usage.ask()
        finally:
            connections.close()
    count = parameters["connections"]
    return {"count": count, "cost": (after - before) / count / KIB, "rate": 0}
