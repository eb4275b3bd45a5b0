"""The words that the tests of asyncio's streams are written in.

Owns a stream over one end of a socket pair, and waiting until what was sent at the other end has
been delivered.
"""

import asyncio
import contextlib
import fcntl
import struct
import termios

import support

StreamReader = asyncio.StreamReader
StreamReaderProtocol = asyncio.StreamReaderProtocol


def unread(fd):
    """How many bytes wait in the kernel."""
    return struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0" * 4))[0]


async def until(happened):
    """Make turns until the condition holds: for what only the kernel and the transport know."""
    while not happened():  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(0)


class Connection:
    """A stream over one end of a socket pair; the test holds the other end."""

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls, kind="unix", limit=2**16, reader=StreamReader, protocol=StreamReaderProtocol
    ):
        self = cls()
        loop = asyncio.get_running_loop()
        self.reader = reader(limit=limit, loop=loop)
        self.protocol = protocol(self.reader, loop=loop)
        async with support.transport_and_socket(self.protocol, kind) as (transport, peer):
            self.transport, self.peer = transport, peer
            self.writer = asyncio.StreamWriter(transport, self.protocol, self.reader, loop)
            self.fd = transport.get_extra_info("socket").fileno()
            yield self

    async def settle(self, *, ended=False):
        """Wait until all that was sent is delivered, or reading is paused for good."""

        def is_delivered():
            return unread(self.fd) == 0 and (not ended or self.reader._eof)

        for _ in range(2):
            await until(lambda: not self.transport.is_reading() or is_delivered())
            await support.turns(4)

    async def send(self, data):
        self.peer.sendall(data)
        await self.settle()
