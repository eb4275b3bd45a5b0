"""TLS: a server, and new connections to it one after the other.

Owns the certificate, the server, and the client's side of a hand-shake. One operation is a
connection: hand-shake, one message, its echo, the end.

Rules: those of `mioloop.bench.servers` and `mioloop.bench.load`.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from extra_load import measure_connections

from mioloop.bench.calls import expect
from mioloop.bench.load import connect
from mioloop.bench.model import LoopFactory
from mioloop.bench.servers import BACKLOG, Announce, Echo, listen_tcp, serve

CHUNK = 1 << 16


def make_context() -> ssl.SSLContext:
    """Make the server's context, with a certificate of its own: an elliptic key, as most have."""
    openssl = shutil.which("openssl")
    expect(openssl is not None, "the openssl command, which makes the certificate, is not here")
    # The benchmark gives its children a directory for temporary files and removes it.
    folder = Path(tempfile.mkdtemp())
    certificate, key = str(folder / "certificate"), str(folder / "key")
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "7"]
    command = [str(openssl), "req", "-x509", *kind, "-subj", "/CN=localhost"]
    command += ["-out", certificate, "-keyout", key]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def serve_tls(factory: LoopFactory, announce: Announce) -> None:
    context = make_context()

    async def start(sock: socket.socket) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        return await loop.create_server(Echo, sock=sock, ssl=context, backlog=BACKLOG)

    serve(factory, announce, listen_tcp(), start)


class Caller:
    """One connection of the client, step by step, so that many can take each step together."""

    def __init__(self, parameters: Mapping[str, Any], context: ssl.SSLContext) -> None:
        self.message = b"m" * parameters["size"]
        self.sock = connect(parameters["address"], parameters["timeout"])
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.session: ssl.SSLSession | None = None
        self.context = context

    def greet(self, session: ssl.SSLSession | None) -> None:
        self.tls = self.context.wrap_bio(self.incoming, self.outgoing, session=session)
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        self.send()

    def ask(self) -> None:
        """End the hand-shake and send the message."""
        self.wait(self.tls.do_handshake)
        self.tls.write(self.message)
        self.send()

    def leave(self) -> None:
        """Check the answer and close."""
        expect(self.wait(lambda: self.tls.read(CHUNK)) == self.message, "wrong bytes came back")
        self.session = self.tls.session
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        self.send()
        self.sock.close()

    def send(self) -> None:
        if data := self.outgoing.read():
            self.sock.sendall(data)

    def wait(self, step: Callable[[], Any]) -> Any:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self.send()
                data = self.sock.recv(CHUNK)
                expect(bool(data), "the server closed the connection")
                self.incoming.write(data)


def _shake_hands(parameters: Mapping[str, Any], resumes: bool) -> dict[str, float]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    sessions: list[ssl.SSLSession | None] = [None] * parameters["connections"]

    def sweep() -> None:
        callers: list[Caller] = []
        try:
            for session in sessions:
                callers.append(Caller(parameters, context))
                callers[-1].greet(session)
            for caller in callers:
                caller.ask()
            for caller, session in zip(callers, sessions, strict=True):
                caller.leave()
                expect(caller.tls.session_reused is (session is not None), "no such hand-shake")
        finally:
            for caller in callers:
                caller.sock.close()
        if resumes:
            sessions[:] = [caller.session for caller in callers]

    return measure_connections(sweep, parameters)


def full(_factory: LoopFactory, parameters: Mapping[str, Any]) -> dict[str, float]:
    """Load a TLS server with new connections that know nothing of it.

    The parameters are those of `mioloop.bench.load.echo`. The cost is the server's CPU time per
    connection in microseconds.
    """
    return _shake_hands(parameters, resumes=False)


def resumed(_factory: LoopFactory, parameters: Mapping[str, Any]) -> dict[str, float]:
    """The same with connections that resume the session of the one before, but the first ones."""
    return _shake_hands(parameters, resumes=True)
