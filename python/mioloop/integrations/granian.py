"""granian's workers on mioloop.

    from granian import Granian
    from mioloop.integrations.granian import LOOP

    Granian("app:application", interface="asgi", loop=LOOP).serve()

Owns the loop's name and its place in granian's registry. `granian --loop` knows only names of its
own, so from the command line it is `python -m mioloop run -m granian --loop asyncio ...`.

Rules: importing this module registers the loop. The name carries the module with it into worker
processes, also into those that begin anew and import nothing by themselves.
"""

from __future__ import annotations

import asyncio

from granian import loops

import mioloop

__all__ = ["LOOP"]


class _Name(str):
    """A loop's name that is unpickled by this module, and so registers it where that happens."""

    __slots__ = ()

    def __reduce__(self) -> tuple[type[_Name], tuple[str]]:
        return _Name, (str(self),)


LOOP = _Name("mioloop")


@loops.register(LOOP)
def _build_loop() -> mioloop.Loop:
    loop = mioloop.new_event_loop()
    asyncio.set_event_loop(loop)
    return loop
