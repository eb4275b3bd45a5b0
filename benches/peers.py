"""Loops that are made of two packages, for the option `--loops`.

Rules: nothing is imported before a loop is asked for; what is missing is named by the ImportError.
"""

from __future__ import annotations

import asyncio


def uvloop_with_aiofastnet() -> asyncio.AbstractEventLoop:
    """uvloop with the transports, and so the TLS, of aiofastnet."""
    import aiofastnet
    import uvloop

    loop: asyncio.AbstractEventLoop = aiofastnet.loop_factory(uvloop.new_event_loop)()
    return loop
