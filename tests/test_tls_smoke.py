"""TLS over the loop's transports: hand-shakes, transfers, upgrades, endings, refusals."""

import asyncio
import hashlib
import ssl

import pytest

import support

HOST = "127.0.0.1"


@pytest.fixture
def contexts(certificate):
    """(the server's context, the client's)."""
    return certificate.server_context(), certificate.client_context()


async def start(loop, contexts, factory, **keywords):
    """A TLS server on a port of its own."""
    return await loop.create_server(factory, HOST, 0, ssl=contexts[0], **keywords)


async def connect(loop, contexts, server, factory=support.Recorder):
    """A client of that server."""
    return await loop.create_connection(
        factory, HOST, support.port_of(server), ssl=contexts[1], server_hostname="localhost"
    )


async def test_an_exchange(loop, contexts):
    server = await start(loop, contexts, support.Echo)
    async with support.serving(server):
        transport, protocol = await connect(loop, contexts, server)
        transport.write(b"hello")
        assert await protocol.wait_bytes(5) == b"hello"
        transport.close()
        await protocol.wait_event("lost")
    assert protocol.events[:2] == ["made", "data"]
    assert protocol.error is None


class Viewed(support.BufferedRecorder):
    """Gives out views: of a bytearray, `sslproto` fills a copy when it has more than one record."""

    def get_buffer(self, sizehint):
        return memoryview(super().get_buffer(sizehint))


@pytest.mark.parametrize("protocol", [support.Recorder, Viewed])
async def test_much_data_both_ways(loop, contexts, protocol):
    data = support.payload(3_000_000)
    server = await start(loop, contexts, support.Echo)
    async with support.serving(server):
        transport, client = await connect(loop, contexts, server, protocol)
        place = 0
        for size in [1, 100, 20_000, 300_000] * 20:
            transport.write(data[place : place + size])
            place += size
            if place >= len(data):
                break
        received = await client.wait_bytes(len(data))
        assert hashlib.sha256(received).digest() == hashlib.sha256(data).digest()
        transport.close()
        await client.wait_event("lost")


async def test_many_at_once(loop, contexts):
    server = await start(loop, contexts, support.Echo, backlog=100)

    async def talk(seed):
        data = support.payload(20_000, seed)
        transport, client = await connect(loop, contexts, server)
        transport.write(data)
        assert await client.wait_bytes(len(data)) == data
        transport.close()
        await client.wait_event("lost")

    async with support.serving(server):
        await asyncio.gather(*(talk(seed) for seed in range(20)))


async def test_what_a_transport_tells(loop, contexts):
    contexts[0].set_alpn_protocols(["h2", "http/1.1"])
    contexts[1].set_alpn_protocols(["http/1.1"])
    server = await start(loop, contexts, support.Echo)
    async with support.serving(server):
        transport, protocol = await connect(loop, contexts, server)
        assert transport.get_extra_info("sslcontext") is contexts[1]
        assert isinstance(transport.get_extra_info("ssl_object"), ssl.SSLObject)
        assert transport.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        assert transport.get_extra_info("cipher")[1].startswith("TLS")
        names = transport.get_extra_info("peercert")["subjectAltName"]
        assert ("DNS", "localhost") in names
        assert transport.get_extra_info("peername") == (HOST, support.port_of(server))
        assert transport.get_extra_info("socket") is not None
        assert isinstance(transport, asyncio.Transport)
        transport.close()
        await protocol.wait_event("lost")


async def test_over_unix_sockets(loop, contexts):
    with support.unix_path() as path:
        server = await loop.create_unix_server(support.Echo, path, ssl=contexts[0])
        async with support.serving(server):
            transport, protocol = await loop.create_unix_connection(
                support.Recorder, path, ssl=contexts[1], server_hostname="localhost"
            )
            transport.write(b"hello")
            assert await protocol.wait_bytes(5) == b"hello"
            transport.close()
            await protocol.wait_event("lost")


async def test_streams(loop, contexts):
    async def serve(reader, writer):
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, HOST, 0, ssl=contexts[0]) as server:
        reader, writer = await asyncio.open_connection(
            HOST, support.port_of(server), ssl=contexts[1], server_hostname="localhost"
        )
        for number in range(50):
            writer.write(b"line %d\n" % number)
            assert await reader.readline() == b"LINE %d\n" % number
        writer.close()
        await writer.wait_closed()


async def test_flow_control(loop, contexts):
    protocol, client = support.Recorder(), support.Recorder()
    server = await start(loop, contexts, lambda: protocol)
    async with support.serving(server):
        transport, _ = await connect(loop, contexts, server, lambda: client)
        await protocol.wait_event("made")
        protocol.transport.pause_reading()
        for _ in range(200):
            transport.write(bytes(100_000))
            if "pause" in client.events:
                break
            await support.turns()
        assert "pause" in client.events
        protocol.transport.resume_reading()
        await client.wait_event("resume")
        transport.abort()
        await client.wait_event("lost")
        await protocol.wait_event("lost")


# Upgrades ------------------------------------------------------------------------------------


class Upgrading(support.Recorder):
    """A server that answers STARTTLS, and is then spoken to through TLS."""

    def __init__(self, loop, context):
        super().__init__()
        self.loop = loop
        self.context = context

    def data_received(self, data):
        super().data_received(data)
        if self.data == b"STARTTLS\n":
            self.transport.write(b"go on\n")
            self.upgrading = self.loop.create_task(self.upgrade())

    async def upgrade(self):
        self.transport = await self.loop.start_tls(
            self.transport, self, self.context, server_side=True
        )
        await self.wait_bytes(14)
        self.transport.write(self.data[9:].upper())


async def test_start_tls(loop, contexts, kind):
    ours, theirs = support.socket_pair(kind)
    await loop.create_connection(lambda: Upgrading(loop, contexts[0]), sock=theirs)
    client = support.Recorder()
    plain, _ = await loop.create_connection(lambda: client, sock=ours)
    plain.write(b"STARTTLS\n")
    assert await client.wait_bytes(6) == b"go on\n"
    transport = await loop.start_tls(plain, client, contexts[1], server_hostname="localhost")
    assert transport.get_protocol() is client
    client.data.clear()
    transport.write(b"hello")
    assert await client.wait_bytes(5) == b"HELLO"
    assert transport.get_extra_info("cipher") is not None
    transport.close()
    await client.wait_event("lost")


async def test_start_tls_of_streams(loop, contexts):
    async def serve(reader, writer):
        assert await reader.readline() == b"STARTTLS\n"
        writer.write(b"go on\n")
        await writer.drain()
        await writer.start_tls(contexts[0])
        writer.write((await reader.readline()).upper())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, HOST, 0) as server:
        reader, writer = await asyncio.open_connection(HOST, support.port_of(server))
        writer.write(b"STARTTLS\n")
        assert await reader.readline() == b"go on\n"
        await writer.start_tls(contexts[1], server_hostname="localhost")
        writer.write(b"hello\n")
        assert await reader.readline() == b"HELLO\n"
        writer.close()
        await writer.wait_closed()


# Endings -------------------------------------------------------------------------------------


async def test_close_sends_what_was_written(loop, contexts):
    data = support.payload(1_000_000)
    protocol = support.Recorder()
    server = await start(loop, contexts, lambda: protocol)
    async with support.serving(server):
        transport, client = await connect(loop, contexts, server)
        transport.write(data)
        transport.close()
        await protocol.wait_event("lost")
        assert protocol.data == data
        await client.wait_event("lost")


async def test_a_peer_that_vanishes(loop, contexts):
    """Without the farewell of TLS: the protocol still hears of the end, once."""
    protocol = support.Recorder()
    server = await start(loop, contexts, lambda: protocol)
    async with support.serving(server):
        transport, client = await connect(loop, contexts, server)
        await protocol.wait_event("made")
        transport.abort()
        await client.wait_event("lost")
        await protocol.wait_event("lost")
    assert protocol.events.count("lost") == 1


async def test_aborting_while_the_peer_goes_on_sending(loop, contexts):
    """A peer that never stops must not keep the connection for the time-out of a farewell."""

    class Endless(support.Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            self.send()

        def send(self):
            if "pause" not in self.events or self.events[-1] == "resume":
                self.transport.write(bytes(50_000))
            if "lost" not in self.events:
                loop.call_soon(self.send)

    protocol = Endless()
    server = await start(loop, contexts, lambda: protocol)
    async with support.serving(server):
        transport, client = await connect(loop, contexts, server)
        await client.wait_bytes(100_000)
        transport.abort()
        await client.wait_event("lost")
        await protocol.wait_event("lost")


async def test_writing_after_closing(loop, contexts):
    server = await start(loop, contexts, support.Echo)
    async with support.serving(server):
        transport, client = await connect(loop, contexts, server)
        transport.close()
        transport.write(b"too late")
        await client.wait_event("lost")
        transport.write(b"too late")


async def test_writes_made_while_writing(loop, contexts):
    """The protocol writes from within pause_writing and resume_writing."""

    class Nested(support.Recorder):
        def pause_writing(self):
            super().pause_writing()
            self.write(b"p" * 1000)

        def resume_writing(self):
            super().resume_writing()
            if self.events.count("resume") < 4:
                self.write(b"r" * 5_000_000)

        def write(self, data):
            written.update(data[:1])
            sizes.append(len(data))
            self.transport.write(data)

    protocol, written, sizes = support.Recorder(), set(), []
    server = await start(loop, contexts, lambda: protocol)
    async with support.serving(server):
        transport, client = await connect(loop, contexts, server, Nested)
        await protocol.wait_event("made")
        protocol.transport.pause_reading()
        while "pause" not in client.events:
            client.write(b"w" * 100_000)
            await support.turns()
        protocol.transport.resume_reading()
        await client.wait_event("resume")
        await protocol.wait(lambda: len(protocol.data) >= sum(sizes))
        assert len(protocol.data) == sum(sizes)
        assert set(protocol.data) == written == set(b"wpr")
        transport.close()
        await client.wait_event("lost")
        await protocol.wait_event("lost")


# Refusals ------------------------------------------------------------------------------------


@pytest.fixture
def quiet(caplog):
    """Failed hand-shakes are logged by the server's side, which is not what is tested."""
    caplog.set_level("CRITICAL", "asyncio")


async def test_a_certificate_nobody_trusts(loop, contexts, quiet, reports):
    server = await start(loop, contexts, support.Echo)
    async with support.serving(server):
        stranger = ssl.create_default_context()
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(loop, (None, stranger), server)
        transport, client = await connect(loop, contexts, server)
        transport.write(b"still there")
        await client.wait_bytes(11)
        transport.close()
        await client.wait_event("lost")
    reports.take()


async def test_another_name(loop, contexts, quiet, reports):
    server = await start(loop, contexts, support.Echo)
    async with support.serving(server):
        with pytest.raises(ssl.SSLCertVerificationError):
            await loop.create_connection(
                asyncio.Protocol,
                HOST,
                support.port_of(server),
                ssl=contexts[1],
                server_hostname="elsewhere.example",
            )
    reports.take()


async def test_a_client_that_does_not_speak_tls(loop, contexts, quiet, reports):
    server = await start(loop, contexts, support.Echo)
    async with support.serving(server):
        client = support.Recorder()
        transport, _ = await loop.create_connection(lambda: client, HOST, support.port_of(server))
        transport.write(b"GET / HTTP/1.0\r\n\r\n")
        await client.wait_event("lost")
    reports.take()


async def test_a_server_that_does_not_speak_at_all(loop, contexts):
    silent = support.Recorder()
    server = await loop.create_server(lambda: silent, HOST, 0)
    async with support.serving(server):
        with pytest.raises(ConnectionAbortedError, match="SSL handshake is taking longer than"):
            await loop.create_connection(
                asyncio.Protocol,
                HOST,
                support.port_of(server),
                ssl=contexts[1],
                server_hostname="localhost",
                ssl_handshake_timeout=0.05,
            )
        await silent.wait_event("lost")


async def test_a_hand_shake_that_is_cancelled(loop, contexts):
    silent = support.Recorder()
    server = await loop.create_server(lambda: silent, HOST, 0)
    async with support.serving(server):
        task = asyncio.ensure_future(connect(loop, contexts, server))
        await silent.wait_bytes(50)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await silent.wait_event("lost")


async def test_a_peer_that_goes_in_the_hand_shake(loop, contexts):
    class Rude(support.Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.abort()

    server = await loop.create_server(Rude, HOST, 0)
    async with support.serving(server):
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await connect(loop, contexts, server)


async def test_a_client_without_its_certificate(loop, certificate, contexts, quiet, reports):
    contexts[0].verify_mode = ssl.CERT_REQUIRED
    contexts[0].load_verify_locations(certificate.certificate)
    protocol = support.Recorder()
    server = await start(loop, contexts, lambda: protocol)
    async with support.serving(server):
        contexts[1].maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await connect(loop, contexts, server)
        contexts[1].load_cert_chain(certificate.certificate, certificate.key)
        transport, client = await connect(loop, contexts, server)
        await protocol.wait_event("made")
        assert protocol.transport.get_extra_info("peercert")
        transport.close()
        await client.wait_event("lost")
    reports.take()
