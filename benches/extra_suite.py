"""The workloads of the full-size benchmark: the command's and many more.

Owns their names, sizes and connection counts.

Rules: those of `mioloop.bench.suite`. A workload that the floor can serve says with which
arguments.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from extra_servers import LINE, LINES, REQUEST

from mioloop.bench import suite
from mioloop.bench.model import Workload
from mioloop.bench.suite import call, echo

SIZES = {"64B": 64, "1KiB": 1024, "4KiB": 4096, "16KiB": 16384, "64KiB": 65536}
CONNECTIONS = (1, 100, 1000)
# Bytes under way at once: more does not fit into the buffers of loopback sockets everywhere.
UNDER_WAY = 32 << 20
MANY_IDLE = 2000
# Descriptors: some systems allow a process no more than 1024 of them.
FEW_AT_ONCE = 10


def _echoes(
    name: str,
    server: str,
    what: str,
    sizes: Iterable[str],
    program_arguments: tuple[str, ...] = ("echo",),
) -> Iterator[Workload]:
    for label in sizes:
        for connections in CONNECTIONS:
            if SIZES[label] * connections <= UNDER_WAY:
                yield echo(
                    f"{name}.{label}.c{connections}",
                    server,
                    f"{what}, {label}, {connections} connections",
                    size=SIZES[label],
                    connections=connections,
                    program_arguments=program_arguments,
                )


def _writes(name: str, server: str, what: str) -> Iterator[Workload]:
    size, reply = REQUEST, LINES * len(LINE)
    for connections in CONNECTIONS[:2]:
        yield echo(
            f"{name}.c{connections}",
            server,
            f"{what}, {connections} connections",
            size=size,
            connections=connections,
            reply=reply,
            operation="request",
            program_arguments=("reply", str(size), str(reply)),
        )


def _hand_shakes() -> Iterator[Workload]:
    for kind in ("full", "resumed"):
        yield echo(
            f"tls.hand_shake.{kind}",
            "extra_tls:serve_tls",
            f"TLS connect ({kind} hand-shake), one message, close",
            size=64,
            connections=FEW_AT_ONCE,
            client=f"extra_tls:{kind}",
            operation="connection",
            program_arguments=None,
        )


def _idle(name: str, server: str, what: str) -> Workload:
    workload = echo(
        name,
        server,
        f"memory of an idle connection, {what}",
        size=64,
        connections=MANY_IDLE,
        client="extra_load:hold",
        operation="connection",
    )
    return dataclasses.replace(workload, unit="KiB")


CALLS = (
    call("callbacks.context", "callback", "extra_calls:call_soon_context",
         "call_soon with three arguments and a context"),
    call("callbacks.cancel", "callback", "extra_calls:call_soon_cancel", "call_soon and cancel"),
    call("timers.periodic", "nap", "extra_calls:timers_periodic", "500 coroutines that sleep 1 ms"),
    call("tasks.run_until_complete", "call", "extra_calls:run_until_complete",
         "run_until_complete of a short coroutine"),
    call("tasks.group", "task", "extra_calls:tasks_group", "TaskGroup of 4,000 coroutines"),
    call("tasks.timeout", "block", "extra_calls:tasks_timeout", "timeout() around sleep(0)"),
    call("tasks.wait_for", "call", "extra_calls:tasks_wait_for", "wait_for of a future"),
    call("queues.events", "turn", "extra_calls:events_handover", "two tasks and two Events"),
    call("readers.ping_pong", "turn", "extra_calls:readers_ping_pong",
         "add_reader on both ends of a socket pair"),
    call("threads.round_trip", "call", "extra_calls:threads_round_trip",
         "call_soon_threadsafe and wait, one at a time", placement="both"),
    call("threads.executor", "call", "extra_calls:threads_executor",
         "run_in_executor, 20 at a time", placement="both"),
    Workload(
        name="timers.lateness",
        summary="how late a timer of 1.5 ms fires on an idle loop",
        client="extra_calls:measure_lateness",
        operation="timer",
        unit="us late",
    ),
)  # fmt: skip

SERVERS = (
    *_echoes("tcp.protocol", "serve_protocol", "TCP echo by Protocol", SIZES),
    *_echoes("tcp.buffered", "extra_servers:serve_buffered", "TCP echo by BufferedProtocol",
             ("1KiB", "64KiB")),
    *_echoes("tcp.streams", "serve_streams", "TCP echo by streams", ("64B", "4KiB", "64KiB")),
    *_echoes("unix.protocol", "extra_servers:serve_unix_protocol", "Unix socket echo by Protocol",
             ("64B", "4KiB"), ("unix",)),
    *_echoes("unix.streams", "extra_servers:serve_unix_streams", "Unix socket echo by streams",
             ("4KiB",), ("unix",)),
    *_writes("tcp.writes10", "extra_servers:serve_ten_writes", "ten writes in one callback"),
    *_writes("tcp.writelines10", "extra_servers:serve_ten_lines", "one writelines of ten"),
    echo(
        "tcp.churn",
        "serve_protocol",
        "connect, one message, close",
        size=64,
        connections=FEW_AT_ONCE,
        client="extra_load:churn",
        operation="connection",
    ),
    Workload(
        name="udp.flood",
        summary="64-byte datagrams from a sender that never waits",
        client="extra_load:flood",
        operation="datagram",
        server="extra_servers:serve_sink",
        client_on_loop=False,
        parameters={"size": 64},
    ),
    *_hand_shakes(),
    _idle("memory.protocol", "extra_servers:serve_idle_protocol", "Protocol"),
    _idle("memory.streams", "extra_servers:serve_idle_streams", "streams"),
)  # fmt: skip

WORKLOADS = (*suite.WORKLOADS, *CALLS, *SERVERS)
