# ruff: noqa: PYI021  (the extension has no Python source: its documentation for users is here)
"""The transports of `mioloop._core`.

There is no such module at run time: `_core` has these names, and its stub takes them from here.
The rules are those of that stub.
"""

import asyncio
import socket
from asyncio.constants import _SendfileMode
from collections.abc import Callable, Iterable
from contextvars import Context
from typing import Any, ClassVar, NoReturn, Self, TypeVar, final

from mioloop._core import Loop

_Protocol = TypeVar("_Protocol", bound=asyncio.BaseProtocol)

@final
class Connecting:
    """A socket on its way to its address, which it owns; `create_connection()` waits for it."""

    def is_connected(self) -> bool:
        """Tell whether the connection stands."""

    def fileno(self) -> int:
        """Give the descriptor, to be watched for writing; -1 once a transport has it."""

    def settle(self) -> None:
        """Look how it ended, once the descriptor is writable.

        Raises:
            OSError: it failed; asyncio's text.
        """

    def make_transport(
        self,
        core: Any,
        protocol_factory: Callable[[], _Protocol],
        waiter: asyncio.Future[Any],
    ) -> tuple[StreamTransport, _Protocol]:
        """Hand the socket to a new transport, which calls the protocol from the next turn on.

        Raises:
            RuntimeError: a transport has it, or it was closed; or the loop is closed.
        """

    def close(self) -> None:
        """Close the socket, unless a transport has it."""

@final
class DatagramTransport:
    """The transport of datagrams. Matches `asyncio.DatagramTransport`.

    `isinstance(transport, asyncio.DatagramTransport)` holds. Made by `create_datagram_endpoint()`;
    the constructor is for `mioloop.Loop`. It takes a non-blocking socket, which it will close, and
    calls the protocol from the next turn on, in copies of the current context; `waiter` is done
    when the protocol has its transport.

    Raises:
        OSError: the socket is closed.
        RuntimeError: the loop is closed.
    """

    max_size: ClassVar[int]

    def __new__(
        cls,
        core: Loop,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        address: Any = None,
        waiter: asyncio.Future[Any] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> Self: ...
    @property
    def _loop(self) -> Loop: ...
    @property
    def _protocol_paused(self) -> bool: ...
    @property
    def _sock(self) -> socket.socket | None: ...
    @property
    def _sock_fd(self) -> int: ...
    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Give information about the transport. Matches `BaseTransport.get_extra_info`.

        Args:
            name: `socket` (a `TransportSocket`), `sockname` or `peername`; after the end too.
            default: the answer for other names.
        """

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Have another protocol told from now on. Matches `BaseTransport.set_protocol`."""

    def get_protocol(self) -> asyncio.BaseProtocol | None:
        """Give the protocol; None after the end. Matches `BaseTransport.get_protocol`."""

    def is_closing(self) -> bool:
        """Tell whether it is closing or closed. Matches `BaseTransport.is_closing`."""

    def is_reading(self) -> bool:
        """Tell whether it receives. Matches `ReadTransport.is_reading`."""

    def pause_reading(self) -> None:
        """Stop to receive; may be called again. Matches `ReadTransport.pause_reading`."""

    def resume_reading(self) -> None:
        """Go on receiving; may be called again. Matches `ReadTransport.resume_reading`."""

    def sendto(self, data: bytes | bytearray | memoryview[Any], addr: Any = None) -> None:
        """Send a datagram without waiting, in order. Matches `DatagramTransport.sendto`.

        What is sent in one turn leaves together at its end, or at once when it is much. Errors of
        the system go to `error_received()`; an address that is none ends the transport.

        Args:
            data: bytes-like. It may be changed after the call. Empty, it is sent from Python 3.13
                on.
            addr: where to; None for the remote address of the endpoint. A connected socket sends
                to its peer in any case.

        Raises:
            TypeError: `data` is not bytes-like.
            ValueError: `addr` is not the remote address of the endpoint.
        """

    def get_write_buffer_size(self) -> int:
        """Count the bytes that wait to be sent; from Python 3.13 on 8 more for each datagram."""

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Give the low and the high-water mark in bytes."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the water marks. Matches `WriteTransport.set_write_buffer_limits`.

        Args:
            high: above so many waiting bytes the protocol is asked to pause.
            low: at so many, or fewer, it is asked to resume.

        Raises:
            ValueError: not `high >= low >= 0`.
        """

    def close(self) -> None:
        """Close once everything is sent. Matches `BaseTransport.close`."""

    def abort(self) -> None:
        """Close at once. Matches `WriteTransport.abort`."""

    def _force_close(self, exc: BaseException | None) -> None: ...
    def write(self, data: Any) -> NoReturn:
        """Raise NotImplementedError, as the datagram transports of asyncio do."""

    def writelines(self, list_of_data: Any) -> NoReturn:
        """Raise NotImplementedError, as `write()`."""

    def write_eof(self) -> NoReturn:
        """Raise NotImplementedError, as `write()`."""

    def can_write_eof(self) -> NoReturn:
        """Raise NotImplementedError, as `write()`."""

@final
class StreamTransport:
    """The transport of a TCP or Unix connection. Matches `asyncio.Transport`.

    `isinstance(transport, asyncio.Transport)` holds. Made by `create_connection()` and the like;
    the constructor is for `mioloop.Loop`. It takes a connected, non-blocking socket, which it will
    close, and calls the protocol from the next turn on, in copies of the current context or in the
    given one; `waiter` is done when the protocol has its connection.

    Raises:
        OSError: the socket is closed.
        RuntimeError: the loop is closed.
    """

    _sendfile_compatible: ClassVar[_SendfileMode]
    _start_tls_compatible: ClassVar[bool]

    def __new__(
        cls,
        core: Loop,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[Any] | None = None,
        extra: dict[str, Any] | None = None,
        server: Any = None,
        context: Context | None = None,
    ) -> Self: ...
    @property
    def _loop(self) -> Loop: ...
    @property
    def _protocol_paused(self) -> bool: ...
    @property
    def _sock(self) -> socket.socket | None: ...
    @property
    def _sock_fd(self) -> int: ...
    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Give information about the connection. Matches `BaseTransport.get_extra_info`.

        Args:
            name: `socket` (a `TransportSocket`), `sockname` or `peername`; after the end too.
            default: the answer for other names.
        """

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Have another protocol told from now on. Matches `BaseTransport.set_protocol`."""

    def get_protocol(self) -> asyncio.BaseProtocol | None:
        """Give the protocol; None after the end. Matches `BaseTransport.get_protocol`."""

    def is_closing(self) -> bool:
        """Tell whether it is closing or closed. Matches `BaseTransport.is_closing`."""

    def is_reading(self) -> bool:
        """Tell whether it receives. Matches `ReadTransport.is_reading`."""

    def pause_reading(self) -> None:
        """Stop to receive; may be called again. Matches `ReadTransport.pause_reading`."""

    def resume_reading(self) -> None:
        """Go on receiving; may be called again. Matches `ReadTransport.resume_reading`."""

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Send without waiting, in order. Matches `WriteTransport.write`.

        What is written in one turn leaves together at its end, or at once when it is much. After
        the connection was lost it is dropped.

        Args:
            data: bytes-like. It may be changed after the call.

        Raises:
            RuntimeError: after `write_eof()`, or while `loop.sendfile()` is sending.
            TypeError: `data` is not bytes-like.
        """

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        """Send the parts as if they were one; errors as of `write()`. Matches its namesake."""

    def write_eof(self) -> None:
        """End the sending direction once everything is sent. Matches `WriteTransport.write_eof`."""

    def can_write_eof(self) -> bool:
        """Tell whether there is `write_eof()`: True. Matches `WriteTransport.can_write_eof`."""

    def get_write_buffer_size(self) -> int:
        """Tell how many bytes wait to be sent. Matches `WriteTransport.get_write_buffer_size`."""

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Give both water marks in bytes. Matches `WriteTransport.get_write_buffer_limits`.

        Returns:
            The low one, the high one.
        """

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the water marks. Matches `WriteTransport.set_write_buffer_limits`.

        Args:
            high: bytes; with more, the protocol's `pause_writing()` is called. By default four
                times `low`, or 64 KiB.
            low: bytes; at or below, `resume_writing()` is called. By default a quarter of `high`.

        Raises:
            ValueError: not `high` >= `low` >= 0.
        """

    def close(self) -> None:
        """Close once everything is sent. Matches `BaseTransport.close`.

        The protocol's `connection_lost(None)` follows in a later turn; so for `abort()`.
        """

    def abort(self) -> None:
        """Close at once, without sending what waits. Matches `WriteTransport.abort`."""

    def _force_close(self, exc: BaseException | None) -> None: ...
    def _make_empty_waiter(self) -> asyncio.Future[None]: ...
    def _reset_empty_waiter(self) -> None: ...
