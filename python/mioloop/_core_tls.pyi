# ruff: noqa: PYI021  (the extension has no Python source: its documentation for users is here)
"""The TLS transport of `mioloop._core`.

There is no such module at run time: `_core` has the name, and its stub takes it from here. The
rules are those of that stub.
"""

import asyncio
import ssl
from asyncio.constants import _SendfileMode
from collections.abc import Iterable
from typing import Any, ClassVar, Self, final

from mioloop._core import Loop

@final
class TlsTransport:
    """The transport of a TLS connection, over any other transport. Matches `asyncio.Transport`.

    `isinstance(transport, asyncio.Transport)` holds. Made by `create_connection(ssl=...)`,
    `start_tls()` and the like; the constructor is for `mioloop.Loop`. It is the protocol of the
    transport below it, and begins when that calls its `connection_made()`; `waiter` is done at the
    end of the hand-shake.

    Raises:
        ValueError: a time-out is not positive, or a server has no context.
        ssl.SSLError: the context refuses.
    """

    _sendfile_compatible: ClassVar[_SendfileMode]
    _start_tls_compatible: ClassVar[bool]

    def __new__(
        cls,
        core: Loop,
        protocol: asyncio.BaseProtocol,
        sslcontext: ssl.SSLContext | None,
        waiter: asyncio.Future[Any] | None = None,
        server_side: bool = False,
        server_hostname: str | None = None,
        call_connection_made: bool = True,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> Self: ...
    @property
    def _loop(self) -> Loop: ...
    @property
    def _protocol_paused(self) -> bool: ...
    @property
    def _app_reading_paused(self) -> bool: ...
    @property
    def _ssl_protocol(self) -> Self: ...
    @property
    def _transport(self) -> Any: ...
    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Give information about the connection. Matches `BaseTransport.get_extra_info`.

        Args:
            name: `sslcontext`; after the hand-shake `ssl_object`, `peercert`, `cipher`,
                `compression`; else what the transport below knows.
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

        What is written in one turn is encrypted and leaves at its end, or at once when it is much.
        Before the hand-shake is done it waits; after the end it is dropped.

        Args:
            data: bytes-like. It may be changed after the call.

        Raises:
            TypeError: `data` is not bytes-like.
        """

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        """Send the parts as if they were one; errors as of `write()`. Matches its namesake."""

    def write_eof(self) -> None:
        """Raise NotImplementedError: TLS has no half-closed connections."""

    def can_write_eof(self) -> bool:
        """Give False. Matches `WriteTransport.can_write_eof`."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set when the protocol pauses writing. Matches `WriteTransport.set_write_buffer_limits`.

        Args:
            high: bytes; 512 KiB when missing, or four times `low`.
            low: bytes; a quarter of `high` when missing.

        Raises:
            ValueError: not `high >= low >= 0`.
        """

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Give (low, high) in bytes. Matches `WriteTransport.get_write_buffer_limits`."""

    def get_write_buffer_size(self) -> int:
        """Give the bytes that wait for the transport below. Matches its namesake."""

    def set_read_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set when the transport below pauses reading, while this one is paused.

        Args:
            high: bytes; 256 KiB when missing, or four times `low`.
            low: bytes; a quarter of `high` when missing.

        Raises:
            ValueError: not `high >= low >= 0`.
        """

    def get_read_buffer_limits(self) -> tuple[int, int]:
        """Give (low, high) in bytes."""

    def get_read_buffer_size(self) -> int:
        """Give the bytes that were received and are not decrypted."""

    def close(self) -> None:
        """Send what waits, say farewell, wait for the peer's, and close.

        The protocol's `connection_lost(None)` follows in a later turn; so for `abort()`. Where the
        peer does not answer within `ssl_shutdown_timeout`, it is `connection_lost(TimeoutError)`.
        """

    def abort(self) -> None:
        """Close at once, without a farewell. Matches `WriteTransport.abort`."""

    def connection_made(self, transport: Any) -> None:
        """For the transport below: it is there, and the hand-shake begins."""

    def data_received(self, data: bytes) -> None:
        """For the transport below: it has received this."""

    def eof_received(self) -> bool:
        """For the transport below: the stream has ended. True asks it to stay open."""

    def connection_lost(self, exc: BaseException | None) -> None:
        """For the transport below: it is gone."""

    def pause_writing(self) -> None:
        """For the transport below: it is full."""

    def resume_writing(self) -> None:
        """For the transport below: it has room again."""

    def _force_close(self, exc: BaseException | None) -> None: ...
    def _receive_early(self, data: bytes | bytearray) -> None: ...
    def _read(self) -> None: ...
    def _go_on_reading(self) -> None: ...
    def _handshake_timed_out(self) -> None: ...
    def _shutdown_timed_out(self) -> None: ...
    def _test__append_write_backlog(self, data: bytes) -> None: ...
