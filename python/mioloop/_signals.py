"""Signal handlers of a loop: `add_signal_handler` and `remove_signal_handler`.

Owns the handlers by signal and, while there are any, a socket pair: Python's C handler writes the
number of each signal into it (`signal.set_wakeup_fd`), which wakes the loop.

Rules: a wake-up descriptor that somebody had set before gets the same bytes, and is set again when
our last handler goes. Texts and errors are those of `asyncio.unix_events`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
from asyncio import coroutines, events
from asyncio.log import logger
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVarTuple

_MOST_SIGNALS_AT_ONCE = 4096

_Args = TypeVarTuple("_Args")


def _no_python_handler(_signum: int, _frame: object) -> None:
    """Stand in as Python's handler: the wake-up descriptor tells the loop."""


class SignalHandlers:
    """The part of a loop that handles signals; mixed into `mioloop.Loop`."""

    if TYPE_CHECKING:

        def _check_closed(self) -> None: ...
        def _add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> Any: ...
        def _remove_reader(self, fd: Any) -> bool: ...
        def _add_callback_signalsafe(self, handle: asyncio.Handle) -> None: ...

    _signal_handlers: dict[int, asyncio.Handle]
    _signal_sockets: tuple[socket.socket, socket.socket] | None
    _previous_wakeup_fd: int

    _check_signal = asyncio.SelectorEventLoop._check_signal  # type: ignore[attr-defined]

    def add_signal_handler(
        self, sig: int, callback: Callable[[*_Args], object], *args: *_Args
    ) -> None:
        """Call `callback(*args)` in the loop whenever the signal arrives.

        Matches `asyncio.loop.add_signal_handler`.

        Args:
            sig: the number of the signal.
            callback: a plain function.
            args: its arguments.

        Raises:
            ValueError: there is no such signal.
            RuntimeError: the signal cannot be caught, or this is not the main thread.
            TypeError: `callback` is a coroutine or a coroutine function, or `sig` is no int.
        """
        is_function = getattr(coroutines, "_iscoroutinefunction", asyncio.iscoroutinefunction)
        if coroutines.iscoroutine(callback) or is_function(callback):  # type: ignore[redundant-expr]
            raise TypeError("coroutines cannot be used with add_signal_handler()")
        self._check_signal(sig)
        self._check_closed()
        self._open_signal_sockets()
        handle = events.Handle(callback, args, self, None)  # type: ignore[arg-type]
        self._signal_handlers[sig] = handle
        try:
            signal.signal(sig, _no_python_handler)
            signal.siginterrupt(sig, False)
        except OSError as exc:
            del self._signal_handlers[sig]
            self._close_unused_signal_sockets()
            if exc.errno == errno.EINVAL:
                raise RuntimeError(f"sig {sig} cannot be caught") from exc
            raise

    def remove_signal_handler(self, sig: int) -> bool:
        """Set the signal's default action again.

        Matches `asyncio.loop.remove_signal_handler`.

        Args:
            sig: the number of the signal.

        Returns:
            Whether there was a handler.

        Raises:
            ValueError: there is no such signal.
            RuntimeError: the signal cannot be caught.
        """
        self._check_signal(sig)
        if self._signal_handlers.pop(sig, None) is None:
            return False
        default = signal.default_int_handler if sig == signal.SIGINT else signal.SIG_DFL
        try:
            signal.signal(sig, default)
        except OSError as exc:
            if exc.errno == errno.EINVAL:
                raise RuntimeError(f"sig {sig} cannot be caught") from exc
            raise
        finally:
            self._close_unused_signal_sockets()
        return True

    def _open_signal_sockets(self) -> None:
        if self._signal_sockets is not None:
            return
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        try:
            # Fails outside the main thread, before anything is changed.
            self._previous_wakeup_fd = signal.set_wakeup_fd(writer.fileno())
        except (ValueError, OSError) as exc:
            reader.close()
            writer.close()
            raise RuntimeError(str(exc)) from exc
        self._signal_sockets = reader, writer
        self._add_reader(reader.fileno(), self._read_signals)

    def _close_unused_signal_sockets(self) -> None:
        if self._signal_handlers or self._signal_sockets is None:
            return
        reader, writer = self._signal_sockets
        self._signal_sockets = None
        self._remove_reader(reader.fileno())
        try:
            current = signal.set_wakeup_fd(self._previous_wakeup_fd)
            if current != writer.fileno():
                # Somebody set another one after us: that one stays.
                signal.set_wakeup_fd(current)
        except (ValueError, OSError) as exc:
            logger.info("set_wakeup_fd(%s) failed: %s", self._previous_wakeup_fd, exc)
        self._previous_wakeup_fd = -1
        reader.close()
        writer.close()

    def _read_signals(self) -> None:
        if self._signal_sockets is None:
            return
        try:
            numbers = self._signal_sockets[0].recv(_MOST_SIGNALS_AT_ONCE)
        except (BlockingIOError, InterruptedError):
            return
        if self._previous_wakeup_fd != -1:
            # Whoever set it may have closed it, or not read it for long: that is theirs to mend.
            with contextlib.suppress(OSError):
                os.write(self._previous_wakeup_fd, numbers)
        for number in numbers:
            self._handle_signal(number)

    def _handle_signal(self, sig: int) -> None:
        handle = self._signal_handlers.get(sig)
        if handle is None:
            return
        if handle.cancelled():
            self.remove_signal_handler(sig)
        else:
            self._add_callback_signalsafe(handle)

    def _remove_all_signal_handlers(self) -> None:
        for sig in list(self._signal_handlers):
            self.remove_signal_handler(sig)
