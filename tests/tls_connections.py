"""TLS connections of the running loop, for the tests of what happens on them.

Rules: those of `support`.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import support

HOST = "127.0.0.1"


@contextlib.asynccontextmanager
async def connected(
    loop: Any,
    contexts: Any,
    server: Any = support.Recorder,
    client: Any = support.Recorder,
    **keywords: Any,
) -> AsyncIterator[tuple[Any, Any]]:
    """(the server's protocol, the client's), after the hand-shake."""
    theirs = server()
    listening = await loop.create_server(lambda: theirs, HOST, 0, ssl=contexts[0], **keywords)
    async with support.serving(listening):
        ours = await connect(loop, contexts, listening, client)
        await theirs.wait_event("made")
        try:
            yield theirs, ours
        finally:
            for protocol in (ours, theirs):
                protocol.transport.abort()
                await protocol.wait_event("lost")


async def connect(
    loop: Any, contexts: Any, server: Any, factory: Any = support.Recorder, **keywords: Any
) -> Any:
    """The protocol of a client of that server."""
    _, protocol = await loop.create_connection(
        factory,
        HOST,
        support.port_of(server),
        ssl=contexts[1],
        server_hostname="localhost",
        **keywords,
    )
    return protocol


async def exchange(one: Any, other: Any) -> None:
    """A message each way."""
    for sender, receiver in ((one, other), (other, one)):
        before = len(receiver.data)
        sender.transport.write(b"message")
        await receiver.wait_bytes(before + 7)
        assert receiver.data[before:] == b"message"
