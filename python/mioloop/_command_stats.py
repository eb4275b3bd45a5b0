"""What `python -m mioloop run --stats` prints: what the loops of the process have done.

Owns what closed loops had done, and the text; prints it to standard error at exit and on SIGUSR1.

Rules: it is written to the descriptor itself, since a signal may come while the program prints.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal

from mioloop import _metrics
from mioloop._metrics import Metrics

_UNITS = {
    "turns": "",
    "callbacks": "",
    "polling": " s",
    "running": " s",
    "deepest": "",
    "timers": "",
    "descriptors": "",
    "transports": "",
    "bytes_read": " B",
    "bytes_written": " B",
    "threads": "",
}
"""The fields of `Metrics`, in order."""
_STDERR = 2

_closed: list[Metrics] = []


def begin() -> None:
    """Have the statistics printed at exit, and whenever SIGUSR1 arrives. In the main thread."""
    _metrics.closing.append(_closed.append)
    atexit.register(_show)
    signal.signal(signal.SIGUSR1, lambda _signum, _frame: _show())


def text() -> str:
    """Give the statistics of all loops, added up, a line each."""
    measured = _closed + [loop.metrics() for loop in _metrics.open_loops()]
    count = len(measured)
    lines = [f"mioloop: process {os.getpid()}, {count} loop{'s' * (count != 1)}"]
    if not measured:
        return lines[0] + "\n"
    for (name, unit), values in zip(_UNITS.items(), zip(*measured, strict=True), strict=True):
        value = max(values) if name == "deepest" else sum(values)
        figure = f"{value:,.3f}" if isinstance(value, float) else f"{value:,}"
        lines.append(f"  {name.replace('_', ' '):<14}{figure:>20}{unit}")
    return "\n".join(lines) + "\n"


def _show() -> None:
    with contextlib.suppress(OSError):
        os.write(_STDERR, text().encode())
