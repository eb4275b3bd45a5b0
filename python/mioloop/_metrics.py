"""What a loop has done so far: `loop.metrics()`.

Owns the list of the process's open loops. The counters themselves are in Rust.

Rules: a loop is listed by a weak reference. A loop costs one entry of a set; nothing here is called
again until it is closed.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from mioloop._loop import Loop


class Metrics(NamedTuple):
    """What a loop has done since it was made, and what it has now. It does not change any more.

    Times are in seconds, sizes in bytes. The first four and the two of bytes only ever grow: the
    difference of two snapshots is what happened in between.
    """

    turns: int
    """Iterations of the loop."""
    callbacks: int
    """Handles and timers that were run, cancelled ones too, and events of transports."""
    polling: float
    """Seconds asleep, waiting for an event or a timer. One sleep counts in ticks of the kernel's
    clock, the sum of many is right. Polls that do not wait are not timed."""
    running: float
    """Seconds at work: the rest of the time that the loop was running."""
    deepest: int
    """The most callbacks that were ready at the beginning of one turn."""
    timers: int
    """Timers that wait for their time and are not cancelled."""
    descriptors: int
    """Descriptors registered: transports, listeners, readers, writers, signals, `sock_*` calls."""
    transports: int
    """Transports over sockets and pipes whose `connection_lost` was not called yet."""
    bytes_read: int
    """Bytes that transports and `sock_*` calls received; of TLS, what the socket carries."""
    bytes_written: int
    """Bytes that the kernel took from transports, `sock_*` calls and sendfile."""
    threads: int
    """Threads of the default executor."""


class Measured:
    """The part of a loop that tells what it has done; mixed into `mioloop.Loop`."""

    if TYPE_CHECKING:
        _default_executor: Any

        def _measured(
            self,
        ) -> tuple[int, int, float, float, int, int, int, int, int, int]: ...

    def metrics(self) -> Metrics:
        """Tell what the loop has done so far. From any thread, at any time, also when it is closed.

        Returns:
            A snapshot of counters that are always on; `mioloop.Metrics` says what they mean.
        """
        # asyncio's executor and ours have them under the same name.
        threads = tuple(getattr(self._default_executor, "_threads", ()))
        alive = sum(thread.is_alive() for thread in threads)
        return Metrics(*self._measured(), alive)


_open: set[weakref.ref[Loop]] = set()

closing: list[Callable[[Metrics], object]] = []
"""Called with what a loop has done when it is about to be closed."""


def note_open(loop: Loop) -> None:
    """List a new loop."""
    _open.add(weakref.ref(loop, _open.discard))


def note_closed(loop: Loop) -> None:
    """Take a loop off the list, and tell whoever wants to know."""
    _open.discard(weakref.ref(loop))
    for tell in closing:
        tell(loop.metrics())


def open_loops() -> list[Loop]:
    """All loops of this process that are not closed."""
    loops = (reference() for reference in _open.copy())
    return [loop for loop in loops if loop is not None]
