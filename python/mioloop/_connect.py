"""Client connections: `create_connection` for the plain case, a host and a port and little else.

Owns nothing. asyncio's own method makes a socket object, looks at each argument several times and
registers the socket twice; for short connections that is most of the cost. Rust connects here, and
the transport takes the descriptor as it is.

Rules: what is not plain (TLS, sockets of one's own, local addresses, happy eyeballs, debug mode,
subclasses of the loop, which may have methods of their own for a part of it) is asyncio's own
method, with the same arguments. Errors and their texts are asyncio's.
"""

from __future__ import annotations

import asyncio
import socket
import types
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from mioloop import _core

_Protocol = TypeVar("_Protocol", bound=asyncio.BaseProtocol)
_Socket = socket.socket


class Connections:
    """The part of a loop that connects; mixed into `mioloop.Loop`."""

    __slots__ = ()

    if TYPE_CHECKING:
        _connect: Callable[..., _core.Connecting | None]
        _add_writer: Callable[..., Any]
        _remove_writer: Callable[..., bool]
        _debug: bool
        # Whether its class is ours, and no heir of it.
        _is_plain: bool
        create_future: Callable[[], asyncio.Future[Any]]
        getaddrinfo: Callable[..., Any]
        sock_connect: Callable[..., Any]

    async def create_connection(
        self,
        protocol_factory: Callable[[], _Protocol],
        host: Any = None,
        port: Any = None,
        *,
        ssl: Any = None,
        family: int = 0,
        proto: int = 0,
        flags: int = 0,
        sock: socket.socket | None = None,
        local_addr: Any = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        happy_eyeballs_delay: float | None = None,
        interleave: int | None = None,
        **more: Any,
    ) -> tuple[Any, _Protocol]:
        """Connect to a host and a port, or take a connected socket.

        Matches `asyncio.loop.create_connection`, arguments and errors included.
        """
        is_plain = (
            self._is_plain
            and host is not None
            and ssl is None
            and sock is None
            and local_addr is None
            and server_hostname is None
            and ssl_handshake_timeout is None
            and ssl_shutdown_timeout is None
            and happy_eyeballs_delay is None
            and interleave is None
            and not (proto or flags or more or self._debug)
            # A program that puts something of its own there wants to see connections.
            and socket.socket is _Socket
            and type(self.sock_connect) is types.BuiltinMethodType
        )
        connecting = None
        if is_plain:
            connecting = self._connect(host, port, family)
            if connecting is not None:
                await self._wait_connected(connecting)
            elif type(host) is str and type(port) is int and _is_name(host) and 0 <= port <= 65535:
                connecting = await self._connect_by_name(host, port, family)
        if connecting is None:
            return await super().create_connection(  # type: ignore[misc,no-any-return]
                protocol_factory,
                host,
                port,
                ssl=ssl,
                family=family,
                proto=proto,
                flags=flags,
                sock=sock,
                local_addr=local_addr,
                server_hostname=server_hostname,
                ssl_handshake_timeout=ssl_handshake_timeout,
                ssl_shutdown_timeout=ssl_shutdown_timeout,
                happy_eyeballs_delay=happy_eyeballs_delay,
                interleave=interleave,
                **more,
            )
        waiter = self.create_future()
        transport, protocol = connecting.make_transport(self, protocol_factory, waiter)
        try:
            await waiter
        except BaseException:
            transport.close()
            raise
        return transport, protocol

    async def _connect_by_name(self, host: str, port: int, family: int) -> _core.Connecting | None:
        """Try the addresses of a name, one after the other; None if one of them is not plain."""
        if getattr(self.getaddrinfo, "__func__", None) is not type(self).getaddrinfo:
            return None
        infos = await self.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        # Addresses with a scope are not plain.
        if not infos or any(any(info[4][2:]) for info in infos):
            return None
        errors: list[OSError] = []
        try:
            for kind, _, _, _, address in infos:
                try:
                    connecting = self._connect(*address[:2], kind)
                    if connecting is not None:
                        await self._wait_connected(connecting)
                except OSError as exc:
                    errors.append(exc)
                else:
                    return connecting
            texts = [str(exc) for exc in errors]
            if len(set(texts)) == 1:
                raise errors[0]
            raise OSError(f"Multiple exceptions: {', '.join(texts)}")
        finally:
            # A traceback that held them would make a cycle.
            errors.clear()

    async def _wait_connected(self, connecting: _core.Connecting) -> None:
        """Wait until it is connected, a turn at least; what is given up or fails is closed."""
        try:
            if connecting.is_connected():
                await _next_turn()
                return
            fd = connecting.fileno()
            writable = self.create_future()
            self._add_writer(fd, _set_unless_done, writable)
            try:
                await writable
            finally:
                self._remove_writer(fd)
            connecting.settle()
        except BaseException:
            connecting.close()
            raise


def _is_name(host: str) -> bool:
    """Tell whether it may be a name; for what cannot be one, asyncio's method has the error."""
    return host != "" and "\0" not in host


@types.coroutine
def _next_turn() -> Generator[None]:
    yield


def _set_unless_done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
