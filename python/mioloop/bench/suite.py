"""The workloads of `python -m mioloop bench`.

Owns their names, which people type after `--only` and which stand in the JSON file.

Rules: a name is `group.what.variant`. Workloads that share processes stand next to each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mioloop.bench.model import Placement, Workload

SIZES = {"64B": 64, "4KiB": 4096, "64KiB": 65536}
# Messages under way at once. Large ones are fewer, so that they fit into the sockets' buffers.
CONNECTIONS = 64
LARGE = 65536
LARGE_CONNECTIONS = 16


def call(
    name: str,
    operation: str,
    function: str,
    summary: str,
    placement: Placement = "apart",
) -> Workload:
    """Describe an in-process workload: `function` is `module:function`, or a name in `calls`."""
    target = function if ":" in function else f"mioloop.bench.calls:{function}"
    return Workload(
        name=name,
        summary=summary,
        client="mioloop.bench.calls:measure",
        operation=operation,
        parameters={"call": target},
        placement=placement,
    )


def echo(
    name: str,
    server: str,
    summary: str,
    *,
    size: int,
    connections: int,
    reply: int = 0,
    client: str = "mioloop.bench.load:echo",
    operation: str = "message",
    program_arguments: tuple[str, ...] | None = ("echo",),
) -> Workload:
    """Describe a server workload under the load generator: see `load` for the parameters."""
    parameters: dict[str, Any] = {"size": size, "connections": connections, "reply": reply}
    return Workload(
        name=name,
        summary=summary,
        client=client,
        operation=operation,
        server=server if ":" in server else f"mioloop.bench.servers:{server}",
        client_on_loop=False,
        parameters=parameters,
        # Alone, a connection would measure how long an idle processor takes to wake up.
        placement="together" if connections == 1 else "apart",
        program_arguments=program_arguments,
    )


def echo_sizes(name: str, server: str, what: str) -> Sequence[Workload]:
    """Describe an echo server at the three sizes."""
    return [
        echo(
            f"{name}.{label}",
            server,
            f"TCP echo server by {what}, messages of {label}",
            size=size,
            connections=LARGE_CONNECTIONS if size >= LARGE else CONNECTIONS,
        )
        for label, size in SIZES.items()
    ]


WORKLOADS: tuple[Workload, ...] = (
    call("callbacks.chain", "callback", "call_soon_chain", "each call_soon schedules the next"),
    call("callbacks.burst", "callback", "call_soon_burst", "30,000 call_soon at once"),
    call("timers.fire", "timer", "call_later_fire", "20,000 call_later within 5 ms"),
    call("timers.cancel", "timer", "call_later_cancel", "call_later and cancel: a time-out"),
    call("tasks.gather", "task", "tasks_gather", "gather of 5,000 coroutines"),
    call("tasks.sleep0", "step", "tasks_sleep0", "100 tasks that yield with sleep(0)"),
    call("queues.handover", "item", "queue_handover", "producer and consumer over a Queue(10)"),
    call(
        "threads.call_soon",
        "callback",
        "call_soon_threadsafe",
        "call_soon_threadsafe from another thread",
        placement="both",
    ),
    *echo_sizes("tcp.protocol", "serve_protocol", "Protocol"),
    *echo_sizes("tcp.streams", "serve_streams", "StreamReader and StreamWriter"),
    Workload(
        name="http.aiohttp",
        summary="aiohttp server fetched by an aiohttp client, 100 at once, both on the loop",
        client="mioloop.bench.web:fetch",
        operation="request",
        server="mioloop.bench.web:serve",
        needs=("aiohttp",),
    ),
)
