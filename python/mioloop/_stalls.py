"""Reports, while it happens, which Python code keeps a loop from its next turn.

Owns the watching thread. It asks each loop which turn it is in; a turn that it meets again and
again for the given time is stuck, and the stack of the loop's thread says where.

Rules: the watched loop pays nothing but the moments in which the watching thread has the
interpreter, a few times in the given span. No loop is kept alive.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
import traceback
from asyncio.log import logger
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from mioloop._loop import Loop
from mioloop._metrics import open_loops

_LOOKS = 4
"""So often the watching thread looks within the given span."""


class Stall(NamedTuple):
    """A loop that is stuck, as `watch_stalls()` reports it."""

    loop: Loop
    """The loop."""
    seconds: float
    """For how long its turn has lasted, at least."""
    stack: traceback.StackSummary
    """Where its thread is, as `traceback.extract_stack()` gives it: the newest call is the last."""


@dataclass
class _Turn:
    number: int
    since: float
    """When it was first seen."""
    patience: float
    """After so many seconds it is reported (again)."""


@contextlib.contextmanager
def watch_stalls(
    seconds: float,
    *,
    loop: Loop | None = None,
    report: Callable[[Stall], object] | None = None,
) -> Iterator[None]:
    """Report loops whose turn lasts longer than it should, while it does; a context manager.

    A turn is what runs between two looks for events: a callback, a step of a task, or many of them
    that were ready together. It is reported when it has lasted that long, and again each time that
    has doubled. Code in C that keeps the interpreter to itself is noticed when it lets go of it.

    Args:
        seconds: how long a turn may last. It is found out at most a quarter later.
        loop: the loop to watch; None: all loops of the process, those to come too.
        report: called with each `Stall`, in the watching thread. By default the stack is logged as
            a warning to asyncio's logger.

    Raises:
        TypeError: `loop` is not a mioloop loop.
        ValueError: `seconds` is not above zero.
    """
    if not seconds > 0:
        raise ValueError(f"seconds must be above zero, got {seconds!r}")
    if loop is not None and not isinstance(loop, Loop):
        raise TypeError(f"a mioloop loop is expected, got {loop!r}")
    over = threading.Event()
    watcher = _Watcher(seconds, report or log_stall)
    loops = open_loops if loop is None else lambda: [loop]
    thread = threading.Thread(
        target=watcher.watch, args=(over, loops), name="mioloop-stalls", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def log_stall(stall: Stall) -> None:
    """Log a stall as a warning."""
    stack = "".join(stall.stack.format())
    logger.warning("The event loop has been stuck for %.3f seconds:\n%s", stall.seconds, stack)


class _Watcher:
    def __init__(self, seconds: float, report: Callable[[Stall], object]) -> None:
        self._seconds = seconds
        self._report = report
        self._turns: dict[int, _Turn] = {}

    def watch(self, over: threading.Event, loops: Callable[[], list[Loop]]) -> None:
        while not over.wait(self._seconds / _LOOKS):
            self._look(loops())

    def _look(self, loops: list[Loop]) -> None:
        now = time.monotonic()
        turns = {}
        for loop in loops:
            number = loop._turn_under_way()  # noqa: SLF001 - our own
            if number is None:
                continue
            turn = self._turns.get(id(loop))
            if turn is None or turn.number != number:
                turn = _Turn(number, now, self._seconds)
            turns[id(loop)] = turn
            if now - turn.since >= turn.patience:
                turn.patience = 2 * (now - turn.since)
                self._tell(loop, now - turn.since)
        self._turns = turns

    def _tell(self, loop: Loop, seconds: float) -> None:
        thread = loop._thread_id or 0  # noqa: SLF001 - our own
        frame = sys._current_frames().get(thread)  # noqa: SLF001 - the name that Python documents
        if frame is None:
            return
        try:
            self._report(Stall(loop, seconds, traceback.extract_stack(frame)))
        except Exception:  # noqa: BLE001 - the user's code; watching goes on
            logger.exception("Exception in the report of a stall")
