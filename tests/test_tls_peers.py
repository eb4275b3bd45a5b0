"""TLS with a peer that is not Python: new keys, new hand-shakes, and peers that just go.

The peer is the `openssl` command, which sends what Python's `ssl` has no call for.
"""

import asyncio
import contextlib
import signal
import ssl
import subprocess

import pytest

import support
from tls_connections import HOST


class OpenSSL:
    """The `openssl` command with its output by the line, and the messages of the protocol in it."""

    def __init__(self, loop, *command):
        self.loop = loop
        pipes = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
        command = ["openssl", *command, "-msg"]
        self.process = subprocess.Popen(command, stderr=subprocess.STDOUT, **pipes)

    async def tell(self, line):
        """Give it a line: a command if that is a single letter, else data."""
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    async def wait(self, *words):
        """Wait for a line with all the words."""
        while line := await self.loop.run_in_executor(None, self.process.stdout.readline):
            if all(word in line for word in words):
                return line
        raise AssertionError(f"it ended without {words}")

    def end(self):
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()


@contextlib.asynccontextmanager
async def spoken_to(loop, certificate, *options):
    """(our server's protocol, the client), after a line of the client's."""
    protocol = support.Recorder()
    server = await loop.create_server(lambda: protocol, HOST, 0, ssl=certificate.server_context())
    async with support.serving(server):
        address = f"{HOST}:{support.port_of(server)}"
        peer = OpenSSL(loop, "s_client", "-connect", address, *options)
        try:
            await protocol.wait_event("made")
            await peer.tell(b"hello")
            await protocol.wait_bytes(6)
            yield protocol, peer
            protocol.transport.abort()
            await protocol.wait_event("lost")
        finally:
            peer.end()


@contextlib.asynccontextmanager
async def speaking_to(loop, certificate, *options):
    """(our client's protocol, the server), after a line of the client's."""
    keys = ("-cert", certificate.certificate, "-key", certificate.key)
    peer = OpenSSL(loop, "s_server", "-accept", f"{HOST}:0", *keys, *options)
    try:
        port = int((await peer.wait(b"ACCEPT")).rpartition(b":")[2])
        context = certificate.client_context()
        _, protocol = await loop.create_connection(
            support.Recorder, HOST, port, ssl=context, server_hostname="localhost"
        )
        protocol.transport.write(b"hello\n")
        await peer.wait(b"hello")
        yield protocol, peer
        protocol.transport.abort()
        await protocol.wait_event("lost")
    finally:
        peer.end()


async def test_new_keys_of_a_client(loop, certificate):
    """It asks for ours too, which go before our next data."""
    async with spoken_to(loop, certificate, "-tls1_3") as (protocol, peer):
        await peer.tell(b"K")
        await peer.wait(b"KEYUPDATE")
        await peer.tell(b"again")
        await protocol.wait_bytes(12)
        protocol.transport.write(b"an answer\n")
        await peer.wait(b"<<<", b"KeyUpdate")
        await peer.wait(b"an answer")
        assert protocol.data == b"hello\nagain\n"


@pytest.mark.parametrize("command", [b"K", b"k"])
async def test_new_keys_of_a_server(loop, certificate, command):
    async with speaking_to(loop, certificate, "-tls1_3") as (protocol, peer):
        await peer.tell(command)
        await peer.wait(b">>>", b"KeyUpdate")
        await peer.tell(b"again")
        await protocol.wait_bytes(6)
        protocol.transport.write(b"an answer\n")
        if command == b"K":
            await peer.wait(b"<<<", b"KeyUpdate")
        await peer.wait(b"an answer")
        assert protocol.data == b"again\n"


async def test_another_hand_shake_of_a_server(loop, certificate):
    """Renegotiation, as TLS 1.2 has it: the connection goes on."""
    async with speaking_to(loop, certificate, "-tls1_2") as (protocol, peer):
        await peer.tell(b"r")
        await peer.wait(b">>>", b"HelloRequest")
        await peer.wait(b"<<<", b"ClientHello")
        await peer.wait(b">>>", b"Finished")
        await peer.tell(b"again")
        await protocol.wait_bytes(6)
        protocol.transport.write(b"an answer\n")
        await peer.wait(b"an answer")


async def test_another_hand_shake_of_a_client(loop, certificate):
    """It is refused, and the client goes."""
    async with spoken_to(loop, certificate, "-tls1_2") as (protocol, peer):
        await peer.tell(b"R")
        await peer.wait(b"no_renegotiation")
        await protocol.wait_event("lost")
        assert protocol.data == b"hello\n"
        assert isinstance(protocol.error, ssl.SSLError)


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
async def test_a_peer_that_dies(loop, certificate, version):
    """The stream ends without the farewell of TLS."""
    async with spoken_to(loop, certificate, version) as (protocol, peer):
        peer.process.send_signal(signal.SIGKILL)
        await protocol.wait_event("lost")
        assert protocol.events == ["made", "data", "eof", "lost"]
        assert protocol.error is None


async def test_a_peer_that_dies_while_we_close(loop, certificate):
    """It cannot take what is left, nor answer the farewell."""
    async with spoken_to(loop, certificate) as (protocol, peer):
        peer.process.send_signal(signal.SIGSTOP)
        while "pause" not in protocol.events:
            protocol.transport.write(bytes(100_000))
            await support.turns()
        protocol.transport.close()
        await support.turns(3)
        assert "lost" not in protocol.events
        peer.process.send_signal(signal.SIGKILL)
        await protocol.wait_event("lost")
        assert isinstance(protocol.error, (ConnectionResetError, BrokenPipeError))


async def test_a_peer_that_dies_while_we_do_not_read(loop, certificate):
    """Nobody reads what it sent, but its end is heard of when reading goes on."""
    async with spoken_to(loop, certificate) as (protocol, peer):
        protocol.transport.pause_reading()
        await peer.tell(b"unheard")
        peer.process.send_signal(signal.SIGKILL)
        await support.turns(3)
        protocol.transport.resume_reading()
        await protocol.wait_event("lost")
        assert protocol.data in (b"hello\n", b"hello\nunheard\n")


async def test_an_upgrade_while_plaintext_waits(loop, certificate, kind):
    """What was written before the upgrade arrives before it, as it was written."""
    ours, theirs = support.socket_pair(kind, buffers=4096)
    client, server = support.Recorder(), support.Recorder()
    await loop.create_connection(lambda: client, sock=ours)
    await loop.create_connection(lambda: server, sock=theirs)
    size = 60_000
    client.transport.write(b"p" * size)
    context = certificate.client_context()
    assert client.transport.get_write_buffer_size() > 0
    upgrade = asyncio.ensure_future(
        loop.start_tls(client.transport, client, context, server_hostname="localhost")
    )
    # The greeting of TLS follows: a record with a message of the hand-shake.
    await server.wait_bytes(size + 2)
    assert server.data[: size + 2] == b"p" * size + b"\x16\x03"
    upgrade.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await upgrade
    server.transport.abort()
    await server.wait_event("lost")
