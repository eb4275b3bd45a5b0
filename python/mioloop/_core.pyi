# ruff: noqa: PYI021  (the extension has no Python source: its documentation for users is here)
"""What the extension module `mioloop._core` offers: the engine of `mioloop.Loop`.

Owns the types and the documentation of the Rust classes. Rules: names, arguments and errors are
asyncio's; names with an underscore are for `mioloop._loop` and for asyncio's own code, which calls
them on every loop. Checked against the built module by `stubtest`.
"""

import asyncio
import socket
import ssl
import sys
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any, Self, TypeAlias, TypeVar, TypeVarTuple, final

from _typeshed import FileDescriptorLike
from typing_extensions import Buffer, disjoint_base

from mioloop._core_pipes import ReadPipeTransport, WritePipeTransport
from mioloop._core_sock import SocketOperation, send_file
from mioloop._core_tls import TlsTransport
from mioloop._core_transports import Connecting, DatagramTransport, StreamTransport

_Result = TypeVar("_Result")
_Args = TypeVarTuple("_Args")
_Call: TypeAlias = Callable[..., object]

__all__ = [
    "Connecting",
    "DatagramTransport",
    "Handle",
    "Listener",
    "Loop",
    "ReadPipeTransport",
    "SocketOperation",
    "StreamTransport",
    "TimerHandle",
    "TlsTransport",
    "WritePipeTransport",
    "build_info",
    "remove_socket_file",
    "send_file",
]

def build_info() -> dict[str, str]:
    """Tell how this module was built, for bug reports.

    Returns:
        `version`, `profile`, `target`, `rustc`, `pyo3`, `mio` and `poller`.
    """

def remove_socket_file(path: str, inode: int) -> None:
    """Remove the file of a Unix socket, unless the path is another one's by now.

    Args:
        path: where the socket listened.
        inode: the number that its file had.

    Raises:
        OSError: it can be neither looked at nor removed; that there is none is no error.
    """

@disjoint_base
class Loop:
    """The engine of an event loop, and the first base class of `mioloop.Loop`.

    Arguments are for the other base classes and not looked at.

    Raises:
        OSError: the system gives no descriptor for the poller.
    """

    # State that asyncio's inherited code reads and writes too.
    _closed: bool
    _debug: bool
    _stopping: bool
    _task_factory: Callable[..., asyncio.Future[Any]] | None
    _thread_id: int | None

    def __new__(cls, *_args: object, **_keywords: object) -> Self: ...
    def run_forever(self) -> None:
        """Run until `stop()` is called. Matches `asyncio.loop.run_forever`.

        Raises:
            RuntimeError: the loop is closed or running, or another one runs in this thread.
            BaseException: SystemExit or KeyboardInterrupt, when a callback raises it. What was
                scheduled stays scheduled.
        """

    def stop(self) -> None:
        """Stop at the end of the current turn, or of the next run's first. Matches `loop.stop`."""

    def is_running(self) -> bool:
        """Tell whether the loop is running. Matches `asyncio.loop.is_running`."""

    def is_closed(self) -> bool:
        """Tell whether the loop is closed. Matches `asyncio.loop.is_closed`."""

    def get_debug(self) -> bool:
        """Tell whether debug mode is on. Matches `asyncio.loop.get_debug`."""

    def time(self) -> float:
        """Read the loop's clock, in seconds: `time.monotonic()`. Matches `asyncio.loop.time`."""

    def _measured(
        self,
    ) -> tuple[int, int, float, float, int, int, int, int, int, int]:
        """Give the fields of `mioloop.Metrics`, but for the threads."""

    def _turn_under_way(self) -> int | None:
        """Give the number of the turn under way; None while the loop waits or does not run."""

    def call_soon(
        self, callback: Callable[[*_Args], object], *args: *_Args, context: Context | None = None
    ) -> asyncio.Handle:
        """Schedule a callback for the next turn. Matches `asyncio.loop.call_soon`.

        Args:
            callback: a plain function.
            args: its positional arguments.
            context: what it runs in; by default a copy of the current context.

        Returns:
            What cancels the call.

        Raises:
            RuntimeError: the loop is closed; in debug mode also: it runs in another thread.
            TypeError: in debug mode: `callback` is a coroutine (function) or cannot be called.
        """

    def call_soon_threadsafe(
        self, callback: Callable[[*_Args], object], *args: *_Args, context: Context | None = None
    ) -> asyncio.Handle:
        """Schedule a callback from any thread, or from a signal handler; wakes the loop.

        Matches `asyncio.loop.call_soon_threadsafe`. Arguments, result and errors are those of
        `call_soon()`, but that no thread is refused. The handle is for the loop's own thread.
        """

    def call_later(
        self,
        delay: float,
        callback: Callable[[*_Args], object],
        *args: *_Args,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Schedule a callback after some time; never early. Matches `asyncio.loop.call_later`.

        Args:
            delay: seconds from now. Zero and less: in the next turn.
            callback: a plain function.
            args: its positional arguments.
            context: what it runs in; by default a copy of the current context.

        Returns:
            What cancels the call, and knows the time.

        Raises:
            RuntimeError: the loop is closed; in debug mode also: it runs in another thread.
            TypeError: `delay` is not a number; in debug mode also: `callback` is a coroutine
                (function) or cannot be called.
        """

    def call_at(
        self,
        when: float,
        callback: Callable[[*_Args], object],
        *args: *_Args,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Schedule a callback for a point in time; never early. Matches `asyncio.loop.call_at`.

        Args:
            when: seconds on the clock of `time()`. Times past: in the next turn.
            callback: a plain function. It and all the rest are as for `call_later()`.
            args: its positional arguments.
            context: what it runs in.
        """

    def create_future(self) -> asyncio.Future[Any]:
        """Make a future of this loop. Matches `asyncio.loop.create_future`."""

    if sys.version_info >= (3, 13):
        def create_task(
            self,
            coro: Generator[Any, None, _Result] | Coroutine[Any, Any, _Result],
            *,
            name: object = None,
            context: Context | None = None,
            eager_start: bool | None = None,
        ) -> asyncio.Task[_Result]:
            """Schedule a coroutine, by the task factory if there is one; gives its task.

            Matches `asyncio.loop.create_task` of the running Python, with its keywords.

            Args:
                coro: the coroutine to run.
                name: the task's name.
                context: what it runs in; by default a copy of the current context.
                eager_start: whether it runs to its first suspension at once; from Python 3.14 on,
                    and, with a task factory that takes it, from 3.13.3 on.

            Raises:
                RuntimeError: the loop is closed.
                TypeError: `coro` is not a coroutine, or this Python has no such keyword.
            """
    else:
        def create_task(
            self,
            coro: Generator[Any, None, _Result] | Coroutine[Any, Any, _Result],
            *,
            name: object = None,
            context: Context | None = None,
        ) -> asyncio.Task[_Result]: ...

    def add_reader(
        self, fd: FileDescriptorLike, callback: Callable[[*_Args], Any], *args: *_Args
    ) -> None:
        """Call back in every turn in which a descriptor can be read, until `remove_reader()`.

        Matches `asyncio.loop.add_reader`. A reader that the descriptor has is replaced.

        Args:
            fd: a descriptor, or an object with `fileno()`.
            callback: a plain function.
            args: its positional arguments.

        Raises:
            OSError: the system cannot wait for it: PermissionError for a regular file.
            RuntimeError: the loop is closed, or a transport uses the descriptor.
            ValueError: `fd` is neither a descriptor nor an object that has one.
        """

    def add_writer(
        self, fd: FileDescriptorLike, callback: Callable[[*_Args], Any], *args: *_Args
    ) -> None:
        """Call back in every turn in which a descriptor can be written, until `remove_writer()`.

        Matches `asyncio.loop.add_writer`. Arguments and errors are those of `add_reader()`.
        """

    def run_in_executor(
        self, executor: Any, func: Callable[[*_Args], _Result], *args: *_Args
    ) -> asyncio.Future[_Result]:
        """Call a function in another thread. Matches `asyncio.loop.run_in_executor`.

        Args:
            executor: None: the default executor, which starts threads as they are needed.
            func: a plain function.
            args: its positional arguments.

        Returns:
            The future of the result. A call that is cancelled before it begins is not made.

        Raises:
            RuntimeError: the loop is closed, or its default executor was shut down.
            TypeError: in debug mode: `func` is a coroutine (function) or cannot be called.
        """

    def remove_reader(self, fd: FileDescriptorLike) -> bool:
        """Stop what `add_reader()` began. Matches `asyncio.loop.remove_reader`.

        Args:
            fd: a descriptor, or an object with `fileno()`.

        Returns:
            Whether there was a reader.

        Raises:
            RuntimeError: a transport uses the descriptor.
            ValueError: `fd` is neither a descriptor nor an object that has one.
        """

    def remove_writer(self, fd: FileDescriptorLike) -> bool:
        """Stop what `add_writer()` began; as `remove_reader()`. Matches `loop.remove_writer`."""

    # The coroutines of `asyncio.loop` under these names. Sockets that are not exactly of the class
    # `socket.socket`, and all in debug mode, get asyncio's own.
    def sock_recv(self, sock: socket.socket, n: int) -> Coroutine[Any, Any, bytes]:
        """Receive at most `n` bytes. Matches `asyncio.loop.sock_recv`."""

    def sock_recv_into(self, sock: socket.socket, buf: Buffer) -> Coroutine[Any, Any, int]:
        """Receive into a buffer; the result is how much. Matches `loop.sock_recv_into`."""

    def sock_recvfrom(
        self, sock: socket.socket, bufsize: int
    ) -> Coroutine[Any, Any, tuple[bytes, Any]]:
        """Receive at most `bufsize` bytes, and their sender's address. As `loop.sock_recvfrom`."""

    def sock_recvfrom_into(
        self, sock: socket.socket, buf: Buffer, nbytes: int = 0
    ) -> Coroutine[Any, Any, tuple[int, Any]]:
        """Receive into a buffer; how much, and from whom. Matches `loop.sock_recvfrom_into`."""

    def sock_sendall(self, sock: socket.socket, data: Buffer) -> Coroutine[Any, Any, None]:
        """Send everything. Matches `asyncio.loop.sock_sendall`."""

    def sock_sendto(
        self, sock: socket.socket, data: Buffer, address: Any
    ) -> Coroutine[Any, Any, int]:
        """Send a datagram to an address; the result is how much. Matches `loop.sock_sendto`."""

    def sock_connect(self, sock: socket.socket, address: Any) -> Coroutine[Any, Any, None]:
        """Connect to an address. Matches `asyncio.loop.sock_connect`."""

    def sock_accept(self, sock: socket.socket) -> Coroutine[Any, Any, tuple[socket.socket, Any]]:
        """Accept a connection: its socket, and the peer's address. Matches `loop.sock_accept`."""

    def _add_callback(self, handle: asyncio.Handle) -> None: ...
    def _add_callback_signalsafe(self, handle: asyncio.Handle) -> None: ...
    def _add_reader(
        self, fd: FileDescriptorLike, callback: _Call, *args: Any, context: Context | None = None
    ) -> asyncio.Handle: ...
    def _add_writer(
        self, fd: FileDescriptorLike, callback: _Call, *args: Any, context: Context | None = None
    ) -> asyncio.Handle: ...
    def _close_core(self) -> None: ...
    def _poller_fileno(self) -> int: ...
    def _remove_reader(self, fd: FileDescriptorLike) -> bool: ...
    def _remove_writer(self, fd: FileDescriptorLike) -> bool: ...
    def _connect(self, *query: Any) -> Connecting | None: ...
    def _literal_address(self, *query: Any) -> list[Any] | None: ...
    def _literal_name(self, *query: Any) -> tuple[str, str] | None: ...
    def _set_other_transports(self, transports: dict[int, Any]) -> None: ...
    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None: ...
    def _transport_of(self, fd: int) -> StreamTransport | None: ...
    def _watched(self, fd: int) -> tuple[bool, bool]: ...
    def _write_to_self(self) -> None: ...

@final
class Handle:
    """A callback that `call_soon()` scheduled. Matches `asyncio.Handle`.

    `isinstance(handle, asyncio.Handle)` holds. In debug mode the loop gives out asyncio's own.
    """

    @property
    def _args(self) -> tuple[Any, ...] | None: ...
    @property
    def _callback(self) -> _Call | None: ...
    @property
    def _cancelled(self) -> bool: ...
    def cancel(self) -> None:
        """Cancel the callback: it will not run. Does nothing when it has. Matches its namesake."""

    def cancelled(self) -> bool:
        """Tell whether the callback was cancelled. Matches `asyncio.Handle.cancelled`."""

    def get_context(self) -> Context:
        """Give the context that the callback runs in. Matches `asyncio.Handle.get_context`."""

@final
class TimerHandle:
    """A callback that `call_later()` or `call_at()` scheduled. Matches `asyncio.TimerHandle`.

    All that is said of `Handle` holds. Timer handles compare by their time.
    """

    @property
    def _args(self) -> tuple[Any, ...] | None: ...
    @property
    def _callback(self) -> _Call | None: ...
    @property
    def _cancelled(self) -> bool: ...
    @property
    def _when(self) -> float: ...
    def cancel(self) -> None:
        """Cancel the callback: it will not run. Does nothing when it has. Matches its namesake."""

    def cancelled(self) -> bool:
        """Tell whether the callback was cancelled. Matches `asyncio.TimerHandle.cancelled`."""

    def get_context(self) -> Context:
        """Give the context that the callback runs in. Matches `asyncio.Handle.get_context`."""

    def when(self) -> float:
        """Give the callback's time, in seconds of `loop.time()`. Matches its namesake."""

    def __hash__(self) -> int: ...
    def __lt__(self, other: TimerHandle, /) -> bool: ...
    def __le__(self, other: TimerHandle, /) -> bool: ...
    def __gt__(self, other: TimerHandle, /) -> bool: ...
    def __ge__(self, other: TimerHandle, /) -> bool: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...

@final
class Listener:
    """Accepts the connections of a listening socket, which stays its server's.

    Made by `mioloop.Loop` for `create_server()` and the like. At most `backlog` connections, and
    one, are accepted in a turn. `tls`: their context, the time-outs of hand-shake and farewell.
    """

    def __new__(
        cls,
        core: Loop,
        sock: socket.socket,
        factory: Callable[[], asyncio.BaseProtocol],
        server: Any,
        backlog: int,
        tls: tuple[ssl.SSLContext, float | None, float | None] | None = None,
        context: Context | None = None,
    ) -> Self: ...
    def start(self) -> None:
        """Start to accept. Raises OSError if the system cannot wait for the socket."""

    def stop(self) -> None:
        """Stop to accept; may be called again."""

    def _resume(self) -> None: ...
