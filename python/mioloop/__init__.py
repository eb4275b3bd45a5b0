"""mioloop: asyncio's event loop with its engine replaced by Rust.

Owns the public names of the package, and nothing else: the loop is in `mioloop._loop`, the policy
in `mioloop._policy`, the commands behind `python -m mioloop` in modules of their own.

Rules: importing this module never warns, never changes asyncio and never selects a loop. What
touches event loop policies, which asyncio is giving up, is imported when it is asked for, and so is
what few programs use.

PYTEST_DONT_REWRITE: pytest would else warn that a package which brings a plugin is there already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from mioloop._core import build_info
from mioloop._loop import Loop
from mioloop._metrics import Metrics

if TYPE_CHECKING:
    from mioloop._policy import EventLoopPolicy, install
    from mioloop._stalls import Stall, watch_stalls

__all__ = [
    "Loop",
    "Metrics",
    "Stall",
    "__version__",
    "new_event_loop",
    "run",
    "watch_stalls",
]

_POLICY_NAMES = ("EventLoopPolicy", "install")
_STALL_NAMES = ("Stall", "watch_stalls")
if hasattr(asyncio, "set_event_loop_policy"):
    __all__ += ["EventLoopPolicy", "install"]

__version__: str = build_info()["version"]

_Result = TypeVar("_Result")


def new_event_loop() -> Loop:
    """Make a loop that is open and not running.

    This is what `asyncio.Runner(loop_factory=...)` wants, and `asyncio.run(..., loop_factory=...)`
    of Python 3.12 and later. Matches `asyncio.new_event_loop`.

    Returns:
        The loop. The caller closes it.

    Raises:
        OSError: the system gives no descriptor for the poller.
    """
    return Loop()


def run(
    main: Coroutine[Any, Any, _Result],
    *,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = new_event_loop,
    debug: bool | None = None,
) -> _Result:
    """Run a coroutine to its end on a new mioloop loop, and close the loop.

    Matches `asyncio.run` with `loop_factory=mioloop.new_event_loop`, on every supported Python.

    Args:
        main: the coroutine to run. From Python 3.14 on, any awaitable.
        loop_factory: makes the loop: this module's, unless a caller knows better.
        debug: True or False sets the loop's debug mode; None leaves it to `PYTHONASYNCIODEBUG`
            and to Python's development mode.

    Returns:
        What the coroutine returns.

    Raises:
        RuntimeError: a loop is running in this thread.
        ValueError: `main` is not a coroutine (Python 3.14 and later raise TypeError).
        BaseException: whatever the coroutine raises.
    """
    if _is_loop_running():
        raise RuntimeError("asyncio.run() cannot be called from a running event loop")
    with asyncio.Runner(debug=debug, loop_factory=loop_factory) as runner:
        return runner.run(main)


def _is_loop_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def __getattr__(name: str) -> object:
    if name in _STALL_NAMES:
        from mioloop import _stalls

        return getattr(_stalls, name)
    if name not in _POLICY_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if not hasattr(asyncio, "set_event_loop_policy"):
        raise AttributeError(
            f"module {__name__!r} has no attribute {name!r}: "
            "this Python has no event loop policies; "
            "use mioloop.run(), or loop_factory=mioloop.new_event_loop"
        )
    from mioloop import _policy

    return getattr(_policy, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
