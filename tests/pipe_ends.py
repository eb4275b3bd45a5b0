"""The ends of pipes, sockets and terminals, for the tests of pipe transports.

Owns nothing: who makes a pair closes it, or gives it to transports.
"""

from __future__ import annotations

import asyncio
import os
import pty
import socket
import tty
from typing import Any

import support


def read_end(fd: int) -> Any:
    """A raw file that reads a descriptor."""
    return os.fdopen(fd, "rb", 0)


def write_end(fd: int) -> Any:
    """A raw file that writes to a descriptor."""
    return os.fdopen(fd, "wb", 0)


async def read_from(loop: asyncio.AbstractEventLoop, pipe: Any) -> tuple[Any, support.Recorder]:
    """A transport that reads a pipe object, and its recording protocol."""
    transport, protocol = await loop.connect_read_pipe(support.Recorder, pipe)
    return transport, protocol


async def write_to(loop: asyncio.AbstractEventLoop, pipe: Any) -> tuple[Any, support.Recorder]:
    """The same that writes."""
    transport, protocol = await loop.connect_write_pipe(support.Recorder, pipe)
    return transport, protocol


def pipe_ends(kind: str) -> tuple[Any, Any]:
    """A pair of file objects of a kind: what is written to the second is read from the first."""
    if kind == "pipe":
        first, second = os.pipe()
        return read_end(first), write_end(second)
    if kind == "socket":
        return socket.socketpair()
    first, second = pty.openpty()
    tty.setraw(second)
    return read_end(second), write_end(first)
