"""The load generator: a plain process with blocking sockets and no event loop.

Owns the connections to the server under test and the measured window.

What a virtual machine does to such measurements decides the shape. A round trip on one connection
mostly measures how long an idle processor takes to wake up. So the load comes in sweeps: one
message on every connection, then all the answers. While the sweep goes out the server has more to
do than it can, whatever language the client is written in, and it falls idle once per sweep and
not once per message. The answers are read from the last connection backwards: the client sleeps
until nearly all of them have come, instead of being woken for each, which the server's `send`
would pay for.

Rules: every byte of every answer is checked. The server's CPU time is asked for, over a connection
of its own, when no message is under way.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from mioloop.bench.machine import avoid_pacing
from mioloop.bench.model import LoopFactory, WorkloadError

WARM_UP_SWEEPS = 5
# Share of the measured time that is spent before it.
WARM_UP_SHARE = 0.2
BUFFER = 1 << 20


class Usage:
    """Asks a server process, over its control connection, what it has used."""

    def __init__(self, address: Any, timeout: float) -> None:
        """Connect. The time-out is in seconds."""
        self._socket = connect(address, timeout)
        self._lines = self._socket.makefile("rb")

    def ask(self) -> tuple[float, float]:
        """Return CPU time in seconds and resident memory in bytes."""
        answer = self.ask_all()
        return answer["cpu"], answer["resident"]

    def ask_all(self) -> dict[str, float]:
        """Return everything that the server tells of itself, by name."""
        self._socket.sendall(b"?")
        answer = json.loads(self._lines.readline() or b"null")
        if answer is None:
            raise WorkloadError("the server closed its control connection")
        return {name: float(value) for name, value in answer.items()}

    def __enter__(self) -> Self:
        """Use as a context."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connection."""
        self._lines.close()
        self._socket.close()


def connect(address: Any, timeout: float) -> socket.socket:
    """Connect to a host and port, or to the path of a Unix socket. The time-out is in seconds."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # The system does the timing: a Python time-out would cost a poll per call.
        limit = struct.pack("@ll", int(timeout) + 1, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        if family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            avoid_pacing(sock)
        sock.connect(address if isinstance(address, str) else tuple(address))
    except BaseException:
        sock.close()
        raise
    return sock


def check_answer(sock: socket.socket, answer: bytes, buffer: bytearray) -> None:
    """Receive an answer and check it.

    Args:
        sock: where to receive.
        answer: what must come.
        buffer: of the same length, to receive into.

    Raises:
        WorkloadError: something else came, or nothing more for the time-out of the socket.
    """
    try:
        received = sock.recv_into(buffer, 0, socket.MSG_WAITALL)
    except BlockingIOError:
        raise WorkloadError("the server stopped answering") from None
    if received < len(answer):
        raise WorkloadError(f"the server closed after {received} of {len(answer)} bytes")
    if buffer != answer:
        raise WorkloadError("wrong bytes came back")


class Connections:
    """Connections to an echo server, each with a message and an expected answer of its own."""

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        """Connect all.

        Args:
            parameters: `address`, `connections`, `size` in bytes, `reply` in bytes (0: the message
                itself comes back), `timeout` in seconds.
        """
        size, reply = parameters["size"], parameters.get("reply", 0)
        self._buffer = bytearray(reply or size)
        self._pairs: list[tuple[socket.socket, bytes, bytes]] = []
        try:
            for number in range(parameters["connections"]):
                message = number.to_bytes(8, "big") + bytes(range(256)) * (size // 256 + 1)
                message = message[:size]
                answer = b"y" * reply or message
                sock = connect(parameters["address"], parameters["timeout"])
                self._pairs.append((sock, message, answer))
        except BaseException:
            self.close()
            raise
        self._backwards = self._pairs[::-1]

    def __len__(self) -> int:
        """Count the connections."""
        return len(self._pairs)

    def sweep(self) -> None:
        """Send one message on every connection and check all the answers."""
        for sock, message, _ in self._pairs:
            sock.sendall(message)
        for sock, _, answer in self._backwards:
            check_answer(sock, answer, self._buffer)

    def close(self) -> None:
        """Close all connections."""
        for sock, _, _ in self._pairs:
            sock.close()


def echo(_factory: LoopFactory, parameters: Mapping[str, Any]) -> dict[str, float]:
    """Load an echo server with sweeps.

    Args:
        parameters: those of `Connections`; `control`, the address of the control connection;
            `seconds` to measure for.

    Returns:
        The fields of a sample. The cost is the server's CPU time per message in microseconds.

    Raises:
        WorkloadError: the server closed a connection or sent something else.
        OSError: it cannot be reached, or says nothing for the time-out.
    """
    connections = Connections(parameters)
    try:
        with Usage(parameters["control"], parameters["timeout"]) as usage:
            run_for(connections.sweep, parameters["seconds"] * WARM_UP_SHARE, WARM_UP_SWEEPS)
            before, _ = usage.ask()
            started = time.perf_counter()
            sweeps = run_for(connections.sweep, parameters["seconds"], WARM_UP_SWEEPS)
            wall = time.perf_counter() - started
            after, _ = usage.ask()
    finally:
        connections.close()
    return server_sample(sweeps * len(connections), after - before, wall)


def run_for(step: Callable[[], object], seconds: float, at_least: int) -> int:
    """Call `step` until the seconds are over, and at least so many times. Return how often."""
    deadline = time.perf_counter() + seconds
    steps = 0
    while steps < at_least or time.perf_counter() < deadline:
        step()
        steps += 1
    return steps


def server_sample(count: int, cpu: float, wall: float) -> dict[str, float]:
    """Make the fields of a sample from operations, the server's CPU seconds, and wall seconds."""
    return {"count": count, "cost": cpu / count * 1e6, "rate": count / wall, "busy": cpu / wall}
