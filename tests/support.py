"""The words that the behaviour tests are written in.

Owns: making loops by name, protocols that record what happened to them and can be waited on,
connected pairs of transports, and looks at what is left behind.

Rules: nothing here knows what a loop is made of; nothing waits by sleeping unless the operating
system offers nothing to wait on.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import re
import socket
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

LOOPS = ("asyncio", "mioloop")

Context = dict[str, Any]
Outcome = tuple[type[BaseException] | None, str]


def factory_of(loop_name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """The callable that makes a loop of that name."""
    if loop_name == "asyncio":
        return asyncio.SelectorEventLoop
    import mioloop

    return mioloop.new_event_loop


def finish(loop: asyncio.AbstractEventLoop) -> None:
    """End a loop as `asyncio.Runner` does: tasks, async generators, executor, then close it."""
    if loop.is_closed():
        return
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def open_descriptors() -> dict[int, str]:
    """The open descriptors of this process and, where the system tells, what each one is."""
    found = {}
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):
            os.fstat(int(name))
            found[int(name)] = _describe(int(name))
    return found


def _describe(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return "unknown"


def thread_ids() -> set[int]:
    """The threads of this process, native ones too where the system lists them."""
    if os.path.isdir("/proc/self/task"):
        return {int(name) for name in os.listdir("/proc/self/task")}
    return {thread.native_id for thread in threading.enumerate() if thread.native_id is not None}


def wait_until(happened: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Wait for what the system gives no event for, such as the end of a thread."""
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


async def turns(count: int = 1) -> None:
    """Let the loop make that many turns."""
    for _ in range(count):
        await asyncio.sleep(0)


def drop(held: list[Any]) -> None:
    """Empty a list that holds the last references, and collect what that leaves."""
    held.clear()
    gc.collect()


def spin(loop: asyncio.AbstractEventLoop, count: int = 1) -> None:
    """Run a loop that is not running for that many turns."""
    for _ in range(count):
        loop.call_soon(loop.stop)
        loop.run_forever()


def payload(size: int, seed: int = 1) -> bytes:
    """Random bytes, the same for the same seed."""
    return random.Random(seed).randbytes(size)


class Reports:
    """An exception handler that keeps what it is told, the first hundred of it."""

    def __init__(self) -> None:
        self.contexts: list[Context] = []

    def __call__(self, loop: asyncio.AbstractEventLoop, context: Context) -> None:
        if len(self.contexts) < 100:
            self.contexts.append(context)

    def take(self) -> list[Context]:
        """The contexts so far; forgets them."""
        taken, self.contexts = self.contexts, []
        return taken

    def take_one(self) -> Context:
        """The only context so far; forgets it."""
        taken = self.take()
        assert len(taken) == 1, f"expected one report: {taken}"
        return taken[0]


class Counter:
    """A callback that counts its calls, does an action, and can be waited for."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, action: Callable[[], object] = lambda: None
    ) -> None:
        self.loop = loop
        self.action = action
        self.calls = 0
        self.waited: dict[int, asyncio.Future[None]] = {}

    def __call__(self, *arguments: object) -> None:
        self.calls += 1
        self.arguments = arguments
        self.action()
        future = self.waited.pop(self.calls, None)
        if future is not None:
            future.set_result(None)

    async def at(self, calls: int) -> None:
        """Wait until it was called that many times."""
        if self.calls < calls:
            self.waited[calls] = self.loop.create_future()
            await self.waited[calls]


# ---------------------------------------------------------------------------------------------
# What a call raises


def normal(text: str) -> str:
    """A message without what must differ: addresses, descriptors, class names of the loops."""
    text = re.sub(r"0x[0-9a-f]+", "0x…", text)
    text = re.sub(r"\bfd=\d+", "fd=N", text).replace("<_ThreadSafeHandle ", "<Handle ")
    text = re.sub(r"[Dd]escriptor \d+", "descriptor N", text)
    return re.sub(r"<(\w+\.)*_?\w*(Loop|Transport)\b", "<It", text)


def outcome(call: Callable[[], object]) -> Outcome:
    """The exception of a call as (type, message), or (None, "") where it raises nothing."""
    try:
        call()
    except BaseException as error:
        return type(error), normal(str(error))
    return None, ""


async def outcome_of(call: Callable[[], Awaitable[object]]) -> Outcome:
    """As `outcome`, for what must be awaited; making the awaitable counts as well."""
    try:
        await call()
    except Exception as error:
        return type(error), normal(str(error))
    return None, ""


# ---------------------------------------------------------------------------------------------
# Protocols that record


class _Recording:
    """The part that the recording protocols share: events in order, and waiting for them."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.data = bytearray()
        self.error: BaseException | None = None
        self.keep_open_at_eof = False
        self._watchers: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    def note(self, event: str | None = None) -> None:
        """Record an event, and wake those whose condition holds now."""
        if event is not None:
            self.events.append(event)
        for happened, future in list(self._watchers):
            if happened() and not future.done():
                future.set_result(None)

    async def wait(self, happened: Callable[[], bool]) -> None:
        """Wait until the condition holds; it is looked at after every event."""
        if happened():
            return
        watcher = (happened, asyncio.get_running_loop().create_future())
        self._watchers.append(watcher)
        try:
            await watcher[1]
        finally:
            self._watchers.remove(watcher)

    async def wait_event(self, event: str) -> None:
        """Wait until that event was recorded."""
        await self.wait(lambda: event in self.events)

    async def wait_bytes(self, count: int) -> bytes:
        """Wait until that many bytes came in all, and return all that came."""
        await self.wait(lambda: len(self.data) >= count)
        return bytes(self.data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.note("made")

    def eof_received(self) -> bool:
        self.note("eof")
        return self.keep_open_at_eof

    def connection_lost(self, error: BaseException | None) -> None:
        self.error = error
        self.note("lost")

    def pause_writing(self) -> None:
        self.note("pause")

    def resume_writing(self) -> None:
        self.note("resume")


class Recorder(_Recording, asyncio.Protocol):
    """A protocol that keeps all it receives; consecutive `data` events are one."""

    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes and data
        self.data += data
        self.note("data" if self.events[-1] != "data" else None)


class BufferedRecorder(_Recording, asyncio.BufferedProtocol):
    """The same over a buffer of its own, of a given size."""

    def __init__(self, size: int = 4096) -> None:
        super().__init__()
        self.buffer = bytearray(size)
        self.hints: list[int] = []

    def get_buffer(self, sizehint: int) -> bytearray:
        self.hints.append(sizehint)
        return self.buffer

    def buffer_updated(self, count: int) -> None:
        assert 0 < count <= len(self.buffer)
        self.data += self.buffer[:count]
        self.note("data" if self.events[-1] != "data" else None)


class Echo(asyncio.Protocol):
    """Sends back what it receives."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


# ---------------------------------------------------------------------------------------------
# Connected sockets and transports


def socket_pair(kind: str, buffers: int | None = None) -> tuple[socket.socket, socket.socket]:
    """Two connected non-blocking stream sockets; `buffers` bounds what the kernel holds (bytes)."""
    if kind == "unix":
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            if buffers is not None:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
            first = socket.socket()
            if buffers is not None:
                first.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
            first.connect(listener.getsockname())
            pair = (first, listener.accept()[0])
    for end in pair:
        end.setblocking(False)
        if buffers is not None:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
    return pair


def reset(sock: socket.socket) -> None:
    """Close a TCP socket so that its peer gets a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()


def abort(transport: Any) -> None:
    """Abort a transport that may be gone already, which asyncio answers with AttributeError."""
    with contextlib.suppress(AttributeError):
        transport.abort()


@contextlib.asynccontextmanager
async def transport_and_socket(
    protocol: Any, kind: str = "tcp", buffers: int | None = None
) -> AsyncIterator[tuple[Any, socket.socket]]:
    """A transport of the running loop, and the plain socket at its other end."""
    ours, theirs = socket_pair(kind, buffers)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
    try:
        yield transport, theirs
    finally:
        abort(transport)
        theirs.close()
        await turns(3)


@contextlib.asynccontextmanager
async def transport_pair(
    first: Any, second: Any, kind: str = "tcp", buffers: int | None = None
) -> AsyncIterator[tuple[Any, Any]]:
    """Two connected transports of the running loop."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket_pair(kind, buffers)
    one, _ = await loop.create_connection(lambda: first, sock=ours)
    other, _ = await loop.create_connection(lambda: second, sock=theirs)
    try:
        yield one, other
    finally:
        abort(one)
        abort(other)
        await turns(3)


async def read_exactly(sock: socket.socket, count: int) -> bytes:
    """Read that many bytes, or up to the end, from a plain socket."""
    loop = asyncio.get_running_loop()
    data = bytearray()
    while len(data) < count:
        more = await loop.sock_recv(sock, min(65536, count - len(data)))
        if not more:
            break
        data += more
    return bytes(data)


async def read_to_end(sock: socket.socket) -> bytes:
    """Read a plain socket until its peer closes or half-closes."""
    return await read_exactly(sock, sys.maxsize)


def fill(sock: socket.socket) -> int:
    """Write to a non-blocking socket until the kernel takes no more; the number of bytes."""
    total = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            total += sock.send(b"x" * 65536)
    return total


def drain(sock: socket.socket) -> int:
    """Read a non-blocking socket until there is nothing; the number of bytes."""
    total = 0
    with contextlib.suppress(BlockingIOError):
        while data := sock.recv(65536):
            total += len(data)
    return total


@contextlib.contextmanager
def unix_path() -> Iterator[str]:
    """A path for a Unix socket, short enough for every system."""
    with tempfile.TemporaryDirectory(prefix="mio") as folder:
        yield os.path.join(folder, "s")


@contextlib.asynccontextmanager
async def serving(server: Any) -> AsyncIterator[Any]:
    """Close a server at the end and, if the test went well so far, wait for it."""
    try:
        yield server
    finally:
        server.close()
    await server.wait_closed()


def port_of(server: Any) -> int:
    """The port that a TCP server listens on."""
    return int(server.sockets[0].getsockname()[1])


@contextlib.asynccontextmanager
async def connected(*arguments, **keywords):
    """A connection that is closed at the end, and waited for."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_connection(Recorder, *arguments, **keywords)
    yield transport
    transport.close()
    await protocol.wait_event("lost")
