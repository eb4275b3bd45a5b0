"""The loop class: the engine in Rust under asyncio's own `BaseEventLoop`.

`_core.Loop` stands first in the method order and is the machine: ready queue, timers, poller,
transports. `BaseEventLoop` is the rest: `create_server`, happy eyeballs, `start_tls`, executors and
so on, as the running Python has them. This module is the seam between the two, and owns nothing
else.

Rules: nothing here is called more often than once per connection. What is wanted of asyncio's
selector loops, the siblings of this class, is borrowed by name. Every private name of CPython that
is used here is listed in `tests/seam.py`. Nothing in asyncio is ever changed.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import io
import os
import selectors
import socket
import ssl
import sys
import warnings
import weakref
from asyncio import constants
from asyncio.log import logger
from collections.abc import Callable
from contextvars import Context
from typing import Any

from mioloop import _core
from mioloop._connect import Connections
from mioloop._metrics import Measured, note_closed, note_open
from mioloop._processes import Processes
from mioloop._signals import SignalHandlers

_Selector: Any = asyncio.SelectorEventLoop
# Newer releases set the position of a file that was to be sent also when nothing was.
_ALWAYS_SEEKS = (
    "total_sent" not in inspect.signature(_Selector._sock_sendfile_update_filepos).parameters
)


def _base_attributes() -> tuple[str, ...]:
    """What `BaseEventLoop.__init__` of the running Python stores, but for what lives in Rust."""
    base = asyncio.BaseEventLoop()
    base.close()
    return tuple(name for name in vars(base) if not hasattr(_core.Loop, name))


class Loop(_core.Loop, SignalHandlers, Connections, Processes, Measured, asyncio.BaseEventLoop):
    """An asyncio event loop with its engine in Rust.

    Has the whole interface of `asyncio.AbstractEventLoop`; behaves as `asyncio.SelectorEventLoop`,
    but for the differences that the documentation lists.

    Raises:
        OSError: the system gives no descriptor for the poller.
    """

    # Without an instance dictionary, which stays unmade, each look-up of `loop.call_soon` and its
    # like costs a tenth. What users store on a loop goes to the dictionary as ever.
    __slots__ = (
        *_base_attributes(),
        "_is_plain",
        "_listeners",
        "_previous_wakeup_fd",
        "_selector",
        "_signal_handlers",
        "_signal_sockets",
        "_transports",
        "_unix_server_sockets",
    )

    def __init__(self) -> None:
        asyncio.BaseEventLoop.__init__(self)
        self._is_plain = type(self) is Loop
        self._signal_handlers = {}
        self._signal_sockets = None
        self._previous_wakeup_fd = -1
        self._listeners: dict[int, _core.Listener] = {}
        # Borrowed transports register here; asyncio's Unix servers there.
        self._transports: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        self._set_other_transports(self._transports.data)  # type: ignore[attr-defined]
        self._unix_server_sockets: dict[socket.socket, int] = {}
        # The reprs of borrowed transports ask it what is polled.
        self._selector: _SelectorView | None = _SelectorView(self)
        note_open(self)

    def __del__(self, _names: dict[str, Any] = globals()) -> None:  # noqa: B008
        # At the very end of the interpreter this module has no names any more, by which to close.
        if _names.get("note_closed") is not None:
            super().__del__()

    def close(self) -> None:
        """Close the loop: what is queued is dropped, signal handlers are removed.

        Matches `asyncio.loop.close`. Closing a closed loop does nothing.

        Raises:
            RuntimeError: the loop is running.
        """
        if self.is_running():
            raise RuntimeError("Cannot close a running event loop")
        if self.is_closed():
            return
        note_closed(self)
        if not sys.is_finalizing():
            self._remove_all_signal_handlers()
        elif self._signal_handlers:
            warnings.warn(
                f"Closing the loop {self!r} on interpreter shutdown stage, "
                "skipping signal handlers removal",
                ResourceWarning,
                source=self,
                stacklevel=2,
            )
            self._signal_handlers.clear()
        super().close()
        self._listeners.clear()
        self._selector = None
        self._close_core()

    if sys.version_info >= (3, 12) and sys.version_info < (3, 13):

        async def shutdown_default_executor(
            self,
            timeout: float | None = None,  # noqa: ASYNC109  (asyncio's own argument)
        ) -> None:
            """End the default executor; wait `timeout` seconds for its threads, None: for ever.

            Early releases of Python 3.12 wait for ever, and block the loop meanwhile, whatever
            they are told. This is what later Pythons do.
            """
            self._executor_shutdown_called = True
            executor = self._default_executor  # type: ignore[attr-defined]
            if executor is None:
                return
            waiting = concurrent.futures.ThreadPoolExecutor(1)
            ended = asyncio.wrap_future(waiting.submit(executor.shutdown), loop=self)
            try:
                await asyncio.wait_for(ended, timeout)
            except TimeoutError:
                warnings.warn(
                    "The executor did not finishing joining "  # asyncio's words
                    f"its threads within {timeout} seconds.",
                    RuntimeWarning,
                    stacklevel=2,
                )
                executor.shutdown(wait=False)
                waiting.shutdown(wait=False)
            else:
                waiting.shutdown()

    # --- names ---------------------------------------------------------------------------------

    async def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        *,
        family: int = 0,
        type: int = 0,  # noqa: A002  (asyncio's own name)
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        """Resolve a host and a port; addresses in figures need no other thread.

        Matches `asyncio.loop.getaddrinfo`.
        """
        found = self._literal_address(host, port, family, type, proto, flags)
        if found is None:
            found = await super().getaddrinfo(
                host, port, family=family, type=type, proto=proto, flags=flags
            )
        return found

    async def getnameinfo(self, sockaddr: tuple[Any, ...], flags: int = 0) -> tuple[str, str]:
        """Find the names of an address; for figures alone, no other thread is asked.

        Matches `asyncio.loop.getnameinfo`.
        """
        found = self._literal_name(sockaddr, flags)
        return await super().getnameinfo(sockaddr, flags) if found is None else found

    # --- transports -------------------------------------------------------------------------

    def _make_socket_transport(
        self,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[Any] | None = None,
        *,
        extra: dict[str, Any] | None = None,
        server: Any = None,
        context: Context | None = None,
    ) -> _core.StreamTransport:
        self._ensure_fd_no_transport(sock)
        return _core.StreamTransport(self, sock, protocol, waiter, extra, server, context)

    def _make_ssl_transport(
        self,
        rawsock: socket.socket,
        protocol: asyncio.BaseProtocol,
        sslcontext: ssl.SSLContext | None,
        waiter: asyncio.Future[Any] | None = None,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        extra: dict[str, Any] | None = None,
        server: Any = None,
        ssl_handshake_timeout: float | None = constants.SSL_HANDSHAKE_TIMEOUT,
        ssl_shutdown_timeout: float | None = constants.SSL_SHUTDOWN_TIMEOUT,
        context: Context | None = None,
    ) -> Any:
        self._ensure_fd_no_transport(rawsock)
        transport = _core.TlsTransport(
            self,
            protocol,
            sslcontext,
            waiter,
            server_side,
            server_hostname,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )
        below: Any = transport
        _core.StreamTransport(self, rawsock, below, None, extra, server, context)
        return transport

    async def start_tls(
        self,
        transport: Any,
        protocol: asyncio.BaseProtocol,
        sslcontext: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> Any:
        """Upgrade a connection to TLS; matches `asyncio.loop.start_tls`.

        Returns:
            The transport that `protocol` should use from now on; None: the connection has ended.

        Raises:
            TypeError: the context or the transport is of the wrong kind.
            ssl.SSLError, OSError: the hand-shake failed.
        """
        if not isinstance(sslcontext, ssl.SSLContext):
            raise TypeError(
                f"sslcontext is expected to be an instance of ssl.SSLContext, got {sslcontext!r}"
            )
        if not getattr(transport, "_start_tls_compatible", False):
            raise TypeError(f"transport {transport!r} is not supported by start_tls()")
        waiter: asyncio.Future[Any] | None = self.create_future()
        upgraded = _core.TlsTransport(
            self,
            protocol,
            sslcontext,
            waiter,
            server_side,
            server_hostname,
            call_connection_made=False,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )
        # Nothing may come before the new transport knows the one below it.
        transport.pause_reading()
        if server_side and isinstance(protocol, asyncio.StreamReaderProtocol):
            # An eager client's greeting has come with the last of its plaintext.
            reader = protocol._stream_reader  # type: ignore[attr-defined]
            early = getattr(reader, "_buffer", None)
            if early:
                upgraded._receive_early(early)
                early.clear()
        transport.set_protocol(upgraded)
        begin = self.call_soon(upgraded.connection_made, transport)
        resume = self.call_soon(transport.resume_reading)
        try:
            await waiter  # type: ignore[misc]
        except BaseException:
            transport.close()
            begin.cancel()
            resume.cancel()
            # The exception holds this frame, and the future would hold the exception.
            waiter = None
            raise
        return upgraded if upgraded._transport is not None else None

    def _make_datagram_transport(
        self,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        address: Any = None,
        waiter: asyncio.Future[Any] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> _core.DatagramTransport:
        self._ensure_fd_no_transport(sock)
        return _core.DatagramTransport(self, sock, protocol, address, waiter, extra)

    def _make_read_pipe_transport(
        self,
        pipe: Any,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[Any] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> _core.ReadPipeTransport:
        return _core.ReadPipeTransport(self, pipe, protocol, waiter, extra)

    def _make_write_pipe_transport(
        self,
        pipe: Any,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[Any] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> _core.WritePipeTransport:
        return _core.WritePipeTransport(self, pipe, protocol, waiter, extra)

    def _start_serving(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        sock: socket.socket,
        sslcontext: ssl.SSLContext | None = None,
        server: Any = None,
        backlog: int = 100,
        ssl_handshake_timeout: float | None = constants.SSL_HANDSHAKE_TIMEOUT,
        ssl_shutdown_timeout: float | None = constants.SSL_SHUTDOWN_TIMEOUT,
        context: Context | None = None,
    ) -> None:
        tls = (sslcontext, ssl_handshake_timeout, ssl_shutdown_timeout) if sslcontext else None
        listener = _core.Listener(self, sock, protocol_factory, server, backlog, tls, context)
        listener.start()
        self._listeners[sock.fileno()] = listener

    def _stop_serving(self, sock: socket.socket) -> None:
        inode = self._unix_server_sockets.pop(sock, None)
        path = "" if inode is None else sock.getsockname()
        listener = self._listeners.pop(sock.fileno(), None)
        if listener is not None:
            listener.stop()
        sock.close()
        if inode is None:
            return
        try:
            _core.remove_socket_file(path, inode)
        except OSError as exc:
            logger.error("Unable to clean up listening UNIX socket %r: %r", path, exc)

    def _ensure_fd_no_transport(self, fd: Any) -> None:
        number = fd
        if not isinstance(number, int):
            try:
                number = int(number.fileno())
            except (AttributeError, TypeError, ValueError):
                # This code matches selectors._fileobj_to_fd function.
                raise ValueError(f"Invalid file object: {fd!r}") from None
        transport = self._transport_of(number)
        if transport is None:
            transport = self._transports.get(number)
        if transport is not None and not transport.is_closing():
            raise RuntimeError(f"File descriptor {fd!r} is used by transport {transport!r}")

    async def _sendfile_native(
        self, transp: _core.StreamTransport, file: Any, offset: int, count: int | None
    ) -> int:
        is_reading = transp.is_reading()
        transp.pause_reading()
        await transp._make_empty_waiter()
        try:
            self._check_sendfile_params(  # type: ignore[attr-defined]
                transp._sock, file, offset, count
            )
            return await self._sock_sendfile_native(transp, file, offset, count)
        finally:
            transp._reset_empty_waiter()
            if is_reading:
                transp.resume_reading()

    async def _sock_sendfile_native(
        self, sock: socket.socket | _core.StreamTransport, file: Any, offset: int, count: int | None
    ) -> int:
        try:
            fileno = file.fileno()
            size = os.fstat(fileno).st_size
        except (AttributeError, io.UnsupportedOperation, OSError):
            raise asyncio.SendfileNotAvailableError("not a regular file") from None
        if not count and not size:
            return 0
        most = min(count, sys.maxsize) if count else None
        return await _core.send_file(self, sock, fileno, offset, most, _ALWAYS_SEEKS)

    # --- borrowed from asyncio's selector loops, by name ------------------------------------

    create_unix_connection = _Selector.create_unix_connection
    create_unix_server = _Selector.create_unix_server

    # What asyncio's own `sock_*` coroutines need, which serve unusual sockets and debug mode.
    _sock_recv = _Selector._sock_recv
    _sock_recv_into = _Selector._sock_recv_into
    _sock_recvfrom = _Selector._sock_recvfrom
    _sock_recvfrom_into = _Selector._sock_recvfrom_into
    _sock_sendall = _Selector._sock_sendall
    _sock_sendto = _Selector._sock_sendto
    _sock_connect = _Selector._sock_connect
    _sock_connect_cb = _Selector._sock_connect_cb
    _sock_accept = _Selector._sock_accept
    _sock_read_done = _Selector._sock_read_done
    _sock_write_done = _Selector._sock_write_done


class _SelectorView:
    """What borrowed transports ask of a selector: whether a descriptor is watched."""

    def __init__(self, loop: Loop) -> None:
        # Weak: an open loop that is dropped dies without the garbage collector.
        self._loop = weakref.ref(loop)

    def get_key(self, fd: int) -> selectors.SelectorKey:
        loop = self._loop()
        is_read, is_written = loop._watched(fd) if loop is not None else (False, False)
        if not is_read and not is_written:
            raise KeyError(fd)
        events = is_read * selectors.EVENT_READ | is_written * selectors.EVENT_WRITE
        return selectors.SelectorKey(fd, fd, events, None)

    def select(self, *_arguments: object) -> Any:
        """Refuse what brings a turn of its own over asyncio's private queues.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(
            "what replaces a loop's turn, as nest_asyncio does, needs asyncio's loop"
        )
