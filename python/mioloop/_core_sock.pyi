# ruff: noqa: PYI021  (the extension has no Python source: its documentation for users is here)
"""What the socket calls of `mioloop._core` return.

There is no such module at run time: `_core` has these names, and its stub takes them from here.
The rules are those of that stub.
"""

import socket
from collections.abc import Coroutine, Generator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, final, overload

from mioloop._core import Loop
from mioloop._core_transports import StreamTransport

_Result_co = TypeVar("_Result_co", covariant=True)

def send_file(
    core: Loop,
    target: socket.socket | StreamTransport,
    file: int,
    offset: int,
    count: int | None,
    always_seeks: bool,
) -> Coroutine[Any, Any, int]:
    """Send from a file to a socket or transport, in the kernel; for `mioloop.Loop`.

    Args:
        core: the loop.
        target: what to send to. The outbox of a transport must be empty and stay so.
        file: the descriptor of a file.
        offset: where to begin in it (bytes).
        count: how many bytes; None: to its end.
        always_seeks: set the file's position also when nothing was sent.

    Returns:
        A coroutine, whose result is the number of bytes that were sent.

    Raises:
        OverflowError: an offset beyond all files.
    """

@final
class SocketOperation(Coroutine[Any, Any, _Result_co], Generic[_Result_co]):
    """A system call on a socket that is not made yet, or that waits.

    Made by the loop's `sock_*` methods. asyncio takes it for the coroutine that it stands for.
    """

    @property
    def __name__(self) -> str: ...
    @property
    def __qualname__(self) -> str: ...
    def __await__(self) -> Generator[Any, None, _Result_co]: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> Any: ...
    def send(self, value: None, /) -> Any:
        """Go on. Matches `coroutine.send`.

        Args:
            value: None.

        Returns:
            A future to wait for.

        Raises:
            StopIteration: it is done; with the result.
            OSError: the system call failed.
            RuntimeError: it was awaited before.
        """

    @overload
    def throw(
        self,
        typ: type[BaseException],
        val: BaseException | object = None,
        tb: TracebackType | None = None,
    ) -> Any: ...
    @overload
    def throw(
        self, typ: BaseException, val: None = None, tb: TracebackType | None = None
    ) -> Any: ...
    def close(self) -> None:
        """End it. Matches `coroutine.close`."""
