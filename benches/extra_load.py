"""More ways to load a server than sweeps of messages: new connections, idle ones, and floods.

Owns the churn of connections, the memory of idle ones, and the sender of floods.

Rules: those of `mioloop.bench.load`.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from mioloop.bench.calls import expect
from mioloop.bench.load import WARM_UP_SHARE, Connections, Usage, run_for, server_sample
from mioloop.bench.model import LoopFactory, WorkloadError

KIB = 1024
# Linux makes so many datagrams of what one call sends: a sender in Python outruns every receiver.
UDP_SEGMENT = 103
SEGMENTS = 64
CALLS_IN_A_ROW = 50
LEAST_ROWS = 20
# A receiver that loses and works less has waited for the sender, whose rate is all that is seen.
LEAST_LOSS = 0.02
LEAST_BUSY = 0.8


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

    return measure_connections(sweep, parameters)


def measure_connections(
    sweep: Callable[[], object], parameters: Mapping[str, Any]
) -> dict[str, float]:
    """Measure a step that makes and closes all the connections."""
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


def flood(_factory: LoopFactory, parameters: Mapping[str, Any]) -> dict[str, float]:
    """Send datagrams as fast as can be, more than the server can take.

    The cost is the server's CPU time per received datagram in microseconds, the rate is that of
    received ones. A server that the sender cannot keep busy fails the workload.
    """
    content = bytes(range(1, parameters["size"] + 1))
    with (
        Usage(parameters["control"], parameters["timeout"]) as usage,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
    ):
        sock.connect(tuple(parameters["address"]))
        count = 1
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, len(content))
            count = SEGMENTS
        block = content * count

        def send() -> None:
            for _ in range(CALLS_IN_A_ROW):
                sock.send(block)

        run_for(send, parameters["seconds"] * WARM_UP_SHARE, 1)
        before = usage.ask_all()
        started = time.perf_counter()
        sent = run_for(send, parameters["seconds"], LEAST_ROWS) * CALLS_IN_A_ROW * count
        wall = time.perf_counter() - started
        after = usage.ask_all()
    expect(after["last"] == sum(content), "something else was received")
    received = after["received"] - before["received"]
    sample = server_sample(int(received), after["cpu"] - before["cpu"], wall)
    if received > sent * (1 - LEAST_LOSS) and sample["busy"] < LEAST_BUSY:
        raise WorkloadError(f"the sender is too slow: the server worked {sample['busy']:.0%}")
    return sample
