# ruff: noqa: PYI021  (the extension has no Python source: its documentation for users is here)
"""The pipe transports of `mioloop._core`.

There is no such module at run time: `_core` has these names, and its stub takes them from here.
The rules are those of that stub.
"""

import asyncio
from collections.abc import Iterable
from typing import Any, Self, final

from mioloop._core import Loop

@final
class ReadPipeTransport:
    """The transport that reads a pipe, socket or terminal. Matches `asyncio.ReadTransport`.

    `isinstance(transport, asyncio.ReadTransport)` holds. Made by `connect_read_pipe()`; the
    constructor is for `mioloop.Loop`. It takes an object with `fileno()` and `close()`, makes it
    non-blocking, calls the protocol from the next turn on, and closes the object at the end;
    `waiter` is done when the protocol has its connection.

    Raises:
        OSError: the descriptor is closed.
        RuntimeError: the loop is closed.
        ValueError: it is a regular file or the like.
    """

    def __new__(
        cls,
        core: Loop,
        pipe: Any,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[Any] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> Self: ...
    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Give information about the pipe. Matches `BaseTransport.get_extra_info`.

        Args:
            name: `pipe` (the object that it was made of); after the end too.
            default: the answer for other names.
        """

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Have another protocol told from now on. Matches `BaseTransport.set_protocol`."""

    def get_protocol(self) -> asyncio.BaseProtocol | None:
        """Give the protocol; None after the end. Matches `BaseTransport.get_protocol`."""

    def is_closing(self) -> bool:
        """Tell whether it is closing or closed. Matches `BaseTransport.is_closing`."""

    def is_reading(self) -> bool:
        """Tell whether it reads. Matches `ReadTransport.is_reading`."""

    def pause_reading(self) -> None:
        """Stop to read; may be called again. Matches `ReadTransport.pause_reading`."""

    def resume_reading(self) -> None:
        """Go on reading; may be called again. Matches `ReadTransport.resume_reading`."""

    def close(self) -> None:
        """Close; `connection_lost(None)` follows in a later turn. Matches `BaseTransport.close`."""

@final
class WritePipeTransport:
    """The transport that writes a pipe, socket or terminal. Matches `asyncio.WriteTransport`.

    `isinstance(transport, asyncio.Transport)` holds, as in asyncio. Made by `connect_write_pipe()`;
    all that is said of `ReadPipeTransport` holds. It closes too when nobody reads any more.
    """

    def __new__(
        cls,
        core: Loop,
        pipe: Any,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[Any] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> Self: ...
    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Give information about the pipe. Matches `BaseTransport.get_extra_info`.

        Args:
            name: `pipe` (the object that it was made of); after the end too.
            default: the answer for other names.
        """

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Have another protocol told from now on. Matches `BaseTransport.set_protocol`."""

    def get_protocol(self) -> asyncio.BaseProtocol | None:
        """Give the protocol; None after the end. Matches `BaseTransport.get_protocol`."""

    def is_closing(self) -> bool:
        """Tell whether it is closing or closed. Matches `BaseTransport.is_closing`."""

    def is_reading(self) -> bool:
        """Raise NotImplementedError, as asyncio's; so do the next two."""

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Write without waiting, in order; at once, as far as there is room.

        Matches `WriteTransport.write`. After the end it is dropped.

        Args:
            data: bytes-like. It may be changed after the call.

        Raises:
            AssertionError: `data` is not bytes-like.
        """

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        """Write the parts as if they were one. Matches `WriteTransport.writelines`.

        Raises:
            TypeError: a part is not bytes-like.
        """

    def write_eof(self) -> None:
        """Close once everything is written. Matches `WriteTransport.write_eof`."""

    def can_write_eof(self) -> bool:
        """Tell whether there is `write_eof()`: True. Matches `WriteTransport.can_write_eof`."""

    def get_write_buffer_size(self) -> int:
        """Tell how many bytes wait to be written. Matches its namesake of `WriteTransport`."""

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Give both water marks in bytes, the low one first. Matches its namesake."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the water marks, as those of `StreamTransport`. Matches its namesake."""

    def close(self) -> None:
        """Close once everything is written. Matches `BaseTransport.close`.

        The protocol's `connection_lost(None)` follows in a later turn; so for `abort()`.
        """

    def abort(self) -> None:
        """Close at once, without writing what waits. Matches `WriteTransport.abort`."""
