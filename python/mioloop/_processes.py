"""Subprocesses of a loop: asyncio's own transport over native pipes, and exits by pidfd.

Owns, for every child that has not exited, its pidfd. Starting a process is `subprocess.Popen`'s
business, talking to it the pipe transports'.

Rules: a child is waited for by its own pidfd, in the loop that started it and without a thread, so
that any thread can run such a loop, several can at once, and SIGCHLD stays the program's. Where the
system gives no pidfd, asyncio's waiting threads do it. A child watcher that the program chose
(before Python 3.14) is used as asyncio uses it. Reaping a child and telling its transport is one
step, so that no signal is sent to a process that got its number.
"""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio import unix_events
from asyncio.log import logger
from typing import TYPE_CHECKING, Any

_events: Any = unix_events
_Selector: Any = asyncio.SelectorEventLoop
_AsyncioTransport: Any = _events._UnixSubprocessTransport

if sys.version_info >= (3, 14):
    _ThreadedWatcher: Any = _events._ThreadedChildWatcher

    def _has_chosen_watcher() -> bool:
        """There is nothing to choose any more."""
        return False

else:
    _ThreadedWatcher = _events.ThreadedChildWatcher
    _DefaultWatcher: Any = (
        _events.PidfdChildWatcher if sys.version_info >= (3, 12) else _ThreadedWatcher
    )
    _get_of_default: Any = _events._UnixDefaultEventLoopPolicy.get_child_watcher
    _get_of_none: Any = asyncio.AbstractEventLoopPolicy.get_child_watcher

    def _has_chosen_watcher() -> bool:
        """Whether the program has set a child watcher that is not of asyncio's default kind."""
        policy: Any = asyncio.get_event_loop_policy()
        method = type(policy).get_child_watcher
        if method is _get_of_default:
            # Asking by that method makes a watcher, and warns from Python 3.12 on.
            return policy._watcher is not None and type(policy._watcher) is not _DefaultWatcher
        return method is not _get_of_none


class SubprocessTransport(_AsyncioTransport):  # type: ignore[misc]  # asyncio's class has no stub
    """asyncio's own; leaves no pipe open when it is closed, or fails, while it connects them."""

    _is_connecting = False

    def close(self) -> None:
        """Close the pipes, and kill the child if it runs; as in the newest asyncio."""
        if self._loop is not None and self._loop.is_closed():
            # They cannot be told any more, and close when they are dropped.
            self._pipes.clear()
        super().close()

    def abandon(self) -> None:
        """Kill the child, and close what it was connected with."""
        self.close()
        if not self._is_connecting:
            # It will not, or not succeed: the task may have been cancelled before it began.
            self._close_pipes()

    async def _connect_pipes(self, waiter: asyncio.Future[None]) -> None:
        self._is_connecting = True
        await super()._connect_pipes(waiter)
        is_connected = self._pending_calls is None
        if self._closed or not is_connected:
            self._close_pipes()

    def _close_pipes(self) -> None:
        process = self._proc
        for number, pipe in enumerate((process.stdin, process.stdout, process.stderr)):
            protocol = self._pipes.get(number)
            if protocol is not None:
                protocol.pipe.close()
            elif pipe is not None:
                pipe.close()


class Exit:
    """The exit of one child, waited for in the loop that runs."""

    __slots__ = ("_fd", "_loop", "_transport", "_waiter")

    def __init__(self, loop: Any, transport: Any) -> None:
        self._fd = -1
        self._loop, self._transport = loop, transport
        self._waiter: asyncio.Future[None] | None = None
        pid = transport.get_pid()
        try:
            self._fd = os.pidfd_open(pid)
            loop._add_reader(self._fd, self._happened)
        except (AttributeError, OSError):
            # The system has no pidfd, refuses it, or has no descriptor left.
            self._forget()
            loop._waiting_threads().add_child_handler(pid, self._publish)

    async def wait(self) -> None:
        """Wait until the child has exited and its transport knows."""
        if self._transport is not None:
            self._waiter = self._loop.create_future()
            await self._waiter

    def _happened(self) -> None:
        self._loop._remove_reader(self._fd)
        self._forget()
        pid = self._transport.get_pid()
        try:
            _, status = os.waitpid(pid, 0)
        except ChildProcessError:
            # Its `Popen` was asked and knows; or somebody else waited, such as a SIGCHLD handler.
            returncode = self._transport.get_extra_info("subprocess").returncode
            if returncode is None:
                returncode = 255
                text = "child process pid %d exit status already read:  will report returncode 255"
                logger.warning(text, pid)
        else:
            returncode = os.waitstatus_to_exitcode(status)
        self._publish(pid, returncode)

    def _publish(self, _: int, returncode: int) -> None:
        transport, self._transport = self._transport, None
        transport._process_exited(returncode)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _forget(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    # The loop was closed, and forgot it.
    __del__ = _forget


class Processes:
    """The part of a loop that starts processes; mixed into `mioloop.Loop`."""

    if TYPE_CHECKING:

        def create_future(self) -> asyncio.Future[Any]: ...

    _watcher: Any = None

    # For a watcher that the program chose.
    _child_watcher_callback = _Selector._child_watcher_callback

    async def _make_subprocess_transport(
        self,
        protocol: asyncio.SubprocessProtocol,
        args: Any,
        shell: bool,
        stdin: Any,
        stdout: Any,
        stderr: Any,
        bufsize: int,
        extra: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        streams = (stdin, stdout, stderr, bufsize)
        if _has_chosen_watcher():
            return await _Selector._make_subprocess_transport(
                self, protocol, args, shell, *streams, extra=extra, **kwargs
            )
        waiter = self.create_future()
        transport = SubprocessTransport(
            self, protocol, args, shell, *streams, waiter=waiter, extra=extra, **kwargs
        )
        exit_ = Exit(self, transport)
        try:
            await waiter
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:
            transport.abandon()
            await exit_.wait()
            raise
        return transport

    def _waiting_threads(self) -> Any:
        """asyncio's child watcher that has a thread for each child."""
        if self._watcher is None:
            self._watcher = _ThreadedWatcher()
        return self._watcher
