"""One end of a TLS connection by itself: `start_tls()` over a transport that is only a record.

Owns the words of the tests that compare loops on the same bytes: `Side` is the end under test, and
keeps a log of everything that can be observed of it; `Peer` is the other, a bare `ssl.SSLObject`.
Neither has a socket, so the test decides what arrives when, to the byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ssl
from collections.abc import Callable
from typing import Any

import support

RECEIVED = 256 * 1024


class Below(asyncio.Transport):
    """The transport below: it keeps what is written, and logs what is asked of it."""

    _start_tls_compatible = True

    def __init__(self, loop: asyncio.AbstractEventLoop, log: list[Any]) -> None:
        super().__init__()
        self.loop = loop
        self.log = log
        self.written = bytearray()
        self.protocol: Any = None
        self.lost = False
        self.is_full = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert len(data) > 0
        # What a transport is given after its end goes nowhere.
        if not self.lost:
            self.written += data

    def pause_reading(self) -> None:
        self.log.append("pause below")

    def resume_reading(self) -> None:
        self.log.append("resume below")

    def is_closing(self) -> bool:
        return self.lost

    def close(self) -> None:
        self.lose(None)

    def abort(self) -> None:
        self.lose(None)

    def _force_close(self, error: BaseException | None) -> None:
        self.lose(error)

    def lose(self, error: BaseException | None) -> None:
        """Report the end once, as every transport does: in a turn of its own."""
        if not self.lost:
            self.lost = True
            self.log.append(("lost below", type(error)))
            self.loop.call_soon(self.protocol.connection_lost, error)

    def deliver(self, data: bytes) -> None:
        """Give the protocol what was received, by whichever interface it has."""
        if not isinstance(self.protocol, asyncio.BufferedProtocol):
            self.protocol.data_received(data)
            return
        buffer = self.protocol.get_buffer(-1)
        assert len(data) <= len(buffer)
        buffer[: len(data)] = data
        self.protocol.buffer_updated(len(data))


class Application(asyncio.Protocol):
    """A protocol that logs each call."""

    def __init__(self, log: list[Any]) -> None:
        self.log = log

    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes
        self.log.append(("data", data))

    def eof_received(self) -> None:
        self.log.append("eof")

    def connection_lost(self, error: BaseException | None) -> None:
        self.log.append(("lost", type(error), support.normal(str(error))))

    def pause_writing(self) -> None:
        self.log.append("pause")

    def resume_writing(self) -> None:
        self.log.append("resume")


class BufferedApplication(asyncio.BufferedProtocol):
    """The same with a buffer of its own, in which not everything has room."""

    def __init__(self, log: list[Any]) -> None:
        self.log = log
        self.buffer = memoryview(bytearray(3000))
        for name in ("eof_received", "connection_lost", "pause_writing", "resume_writing"):
            setattr(self, name, getattr(Application(log), name))

    def get_buffer(self, sizehint: int) -> memoryview:
        # The hint is what the engine left; it takes the start of a record when it is asked.
        assert sizehint >= 0
        self.log.append("get_buffer")
        return self.buffer

    def buffer_updated(self, count: int) -> None:
        self.log.append(("data", bytes(self.buffer[:count])))


class Peer:
    """The other end: what it wants to send waits in `outgoing`."""

    def __init__(self, context: ssl.SSLContext, server_side: bool) -> None:
        self.incoming, self.bio = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = None if server_side else "localhost"
        self.tls = context.wrap_bio(
            self.incoming, self.bio, server_side=server_side, server_hostname=name
        )
        self.outgoing = bytearray()
        self.received = bytearray()
        self.is_wrapped = self.is_over = False
        self.step()

    def step(self, action: Callable[[], object] | None = None) -> None:
        """Go on as far as what has arrived allows, then do something."""
        try:
            if not self.is_wrapped:
                self.tls.do_handshake()
                self.is_wrapped = True
            while data := self.tls.read(65536):
                self.received += data
            self.is_over = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            self.is_over = True
        if action is not None and self.is_wrapped:
            with contextlib.suppress(ssl.SSLError):
                action()
        self.outgoing += self.bio.read()


class Side:
    """The end under test, and its peer."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        contexts: tuple[ssl.SSLContext, ssl.SSLContext],
        server_side: bool,
        buffered: bool,
        inside: bool,
    ) -> None:
        self.loop = loop
        self.inside = inside
        self.log: list[Any] = []
        self.transport: Any = None
        loop.set_exception_handler(self.report)
        mine, theirs = contexts if server_side else contexts[::-1]
        self.peer = Peer(theirs, not server_side)
        self.below = Below(loop, self.log)
        self.application = (BufferedApplication if buffered else Application)(self.log)
        name = None if server_side else "localhost"
        self.task = loop.create_task(
            loop.start_tls(
                self.below, self.application, mine, server_side=server_side, server_hostname=name
            )
        )
        self.turns()

    def report(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.log.append(("report", context["message"], type(context.get("exception"))))

    def turns(self) -> None:
        support.spin(self.loop, 8)
        if self.task is not None and self.task.done():
            error = self.task.exception()
            self.log.append(("upgraded", type(error), support.normal(str(error))))
            self.transport = self.task.result() if error is None else None
            self.task = None

    def do(self, action: Callable[[], object]) -> None:
        """Do something to it, in a callback of the loop or while that does not run."""

        def guarded() -> None:
            try:
                action()
            except Exception as error:
                self.log.append(("raised", type(error), support.normal(str(error))))

        if self.inside:
            self.loop.call_soon(guarded)
        else:
            guarded()
        self.turns()
        self.exchange()

    def exchange(self) -> None:
        """Bring the peer what was sent, and note what can be asked of the transport."""
        if self.below.written:
            self.peer.incoming.write(self.below.written)
            self.below.written.clear()
        self.peer.step()
        self.log.append(("peer has", len(self.peer.received), self.peer.is_over))
        if self.transport is not None:
            self.log.append((self.transport.is_closing(), self.transport.is_reading()))

    def deliver(self, count: int) -> None:
        """Let that many bytes of the peer's arrive, no more at once than a transport receives."""
        for size in [*[RECEIVED] * (count // RECEIVED), count % RECEIVED]:
            data = bytes(self.peer.outgoing[:size])
            del self.peer.outgoing[:size]
            if data and not self.below.lost:
                self.do(functools.partial(self.below.deliver, data))

    def finish(self) -> None:
        """End whatever is still there."""
        if self.task is not None:
            self.task.cancel()
            self.task = None
        self.below.lose(None)
        self.turns()
