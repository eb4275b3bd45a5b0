"""The event loop policy whose loops are mioloop's, for programs that select their loop globally.

Owns `EventLoopPolicy`, `install` and `install_silently`. Importable only while the running Python
has policies, which CPython deprecates from 3.14 on and removes in 3.16.

Rules: the policy differs from the running Python's own in the loop that it makes and in nothing
else. Importing this module does not warn: the deprecated public names are not touched.
"""

from __future__ import annotations

import asyncio
import sys
import warnings

from mioloop import _as_uvloop
from mioloop._loop import Loop

if sys.version_info >= (3, 14):
    from asyncio.unix_events import _DefaultEventLoopPolicy as _DefaultPolicy
else:
    from asyncio import DefaultEventLoopPolicy as _DefaultPolicy

__all__ = ["EventLoopPolicy", "install"]


class EventLoopPolicy(_DefaultPolicy):
    """asyncio's default policy, with mioloop's loop. Matches `asyncio.DefaultEventLoopPolicy`."""

    def new_event_loop(self) -> Loop:
        """Make a loop that is open and not running.

        Matches `asyncio.AbstractEventLoopPolicy.new_event_loop`.

        Returns:
            The loop. The caller closes it.

        Raises:
            OSError: the system gives no descriptor for the poller.
        """
        return Loop()


def install(*, as_uvloop: bool = False) -> None:
    """Make mioloop the loop of every `asyncio.run()` and `asyncio.new_event_loop()` from now on.

    Short for `asyncio.set_event_loop_policy(mioloop.EventLoopPolicy())`. From Python 3.14 on,
    asyncio answers that call with a DeprecationWarning, whoever makes it; `mioloop.run()` and
    `loop_factory=mioloop.new_event_loop` do not warn.

    Args:
        as_uvloop: also answer `import uvloop` with mioloop, in this process, for servers that know
            no other loop by name.

    Raises:
        RuntimeError: `as_uvloop`, and uvloop itself has been imported before.
    """
    if as_uvloop:
        _as_uvloop.answer_imports()
    asyncio.set_event_loop_policy(EventLoopPolicy())


def install_silently(*, as_uvloop: bool = False) -> None:
    """As `install`, where the user chose mioloop without writing Python.

    The warning is kept for programs that set a policy themselves.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        install(as_uvloop=as_uvloop)
