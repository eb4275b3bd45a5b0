"""TLS: time-outs and endings, protocols that fail, the transport by itself, what is left behind.

The course of a plain exchange is in `test_tls_smoke.py`, the bytes in `test_tls_session.py`, what
contexts may ask for in `test_tls_contexts.py`.
"""

import asyncio
import contextlib
import gc
import logging
import ssl
import tempfile
import traceback
import warnings
import weakref

import pytest

import support
from tls_connections import HOST, connect, connected, exchange


@pytest.fixture
def contexts(certificate):
    """(the server's context, the client's)."""
    return certificate.server_context(), certificate.client_context()


@pytest.fixture
def quiet(caplog):
    """What the other side of a failure logs is not what is tested."""
    caplog.set_level("CRITICAL", "asyncio")


# Time-outs and the farewell ------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize("name", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
async def test_time_outs_that_make_no_sense(loop, contexts, name, value):
    async with support.transport_and_socket(support.Recorder()) as (transport, _):
        text = f"{name} should be a positive number, got {value}"
        with pytest.raises(ValueError, match=text):
            await loop.start_tls(transport, support.Recorder(), contexts[1], **{name: value})


async def test_a_client_that_says_nothing(loop, contexts, reports, caplog):
    """The server gives it up; nobody is told but the log, in debug mode."""
    caplog.set_level(logging.DEBUG, "asyncio")
    loop.set_debug(True)
    protocol = support.Recorder()
    server = await loop.create_server(
        lambda: protocol, HOST, 0, ssl=contexts[0], ssl_handshake_timeout=0.05
    )
    async with support.serving(server):
        silent = support.Recorder()
        await loop.create_connection(lambda: silent, HOST, support.port_of(server))
        await silent.wait_event("lost")
    await support.turns(3)
    assert protocol.events == []
    (report,) = reports.take()
    assert report["message"] == "Error on transport creation for incoming connection"
    assert report["protocol"] is protocol
    assert str(report["exception"]) == (
        "SSL handshake is taking longer than 0.05 seconds: aborting the connection"
    )
    assert any(record.getMessage().endswith("starts SSL handshake") for record in caplog.records)


async def test_a_peer_that_does_not_answer_the_farewell(loop, contexts):
    """The connection ends, with the reason."""

    class Deaf(support.Recorder):
        def connection_made(self, transport):
            transport.pause_reading()
            super().connection_made(transport)

    server = Deaf()
    listening = await loop.create_server(lambda: server, HOST, 0, ssl=contexts[0])
    async with support.serving(listening):
        client = await connect(loop, contexts, listening, ssl_shutdown_timeout=0.05)
        client.transport.write(b"x" * 3_000_000)
        client.transport.close()
        await client.wait_event("lost")
        assert isinstance(client.error, TimeoutError)
        assert str(client.error) == "SSL shutdown timed out"
        await server.wait_event("made")
        server.transport.abort()
        await server.wait_event("lost")


async def test_closing_while_the_peer_goes_on_sending(loop, contexts):
    """close() does not go on downloading: data after the farewell end the connection."""

    class Endless(support.Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            self.send()

        def send(self):
            if "lost" not in self.events:
                if "pause" not in self.events or self.events[-1] == "resume":
                    self.transport.write(bytes(50_000))
                loop.call_soon(self.send)

    async with connected(loop, contexts, server=Endless) as (server, client):
        await client.wait_bytes(100_000)
        received = len(client.data)
        client.transport.close()
        await client.wait_event("lost")
        await server.wait_event("lost")
        assert len(client.data) < received + 5_000_000


async def test_closing_in_the_hand_shake(loop, contexts):
    """The connection that is asked for never comes, and nothing stays."""
    silent = support.Recorder()
    server = await loop.create_server(lambda: silent, HOST, 0)
    async with support.serving(server):
        task = asyncio.ensure_future(connect(loop, contexts, server))
        await silent.wait_bytes(50)
        silent.transport.close()
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await task
        await silent.wait_event("lost")


async def test_a_farewell_in_the_midst(loop, contexts):
    """What was written before the peer's farewell arrived is still sent."""

    class Answering(support.Recorder):
        def eof_received(self):
            self.transport.write(b"too late")
            return super().eof_received()

    async with connected(loop, contexts, client=Answering) as (server, client):
        client.transport.write(b"just in time")
        server.transport.close()
        await client.wait_event("lost")
        await server.wait_event("lost")
        assert client.events == ["made", "eof", "lost"]
        assert client.error is None


async def test_staying_open_after_the_end_is_not_possible(loop, contexts, caplog):
    async with connected(loop, contexts) as (server, client):
        client.keep_open_at_eof = True
        server.transport.close()
        await client.wait_event("lost")
    text = "returning true from eof_received() has no effect when using ssl"
    assert text in [record.getMessage() for record in caplog.records]


# Failures of the protocol --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("connection_made", "Fatal error: protocol.buffer_updated() call failed."),
        ("data_received", "Fatal error on SSL protocol"),
        ("eof_received", "Error calling eof_received()"),
    ],
)
async def test_a_protocol_that_fails(loop, contexts, reports, method, message):
    """It is reported, and the connection ends with the exception."""
    error = ArithmeticError("out of order")

    class Failing(support.Recorder):
        def fail(self, *args):
            getattr(support.Recorder, method)(self, *args)
            raise error

    setattr(Failing, method, Failing.fail)
    protocol = Failing()
    server = await loop.create_server(lambda: protocol, HOST, 0, ssl=contexts[0])
    async with support.serving(server):
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            client = await connect(loop, contexts, server)
            client.transport.write(b"x")
            if method == "eof_received":
                client.transport.close()
            await client.wait_event("lost")
        await protocol.wait_event("lost")
    assert protocol.error is error
    report = reports.take_one()
    assert report["message"] == message
    assert report["exception"] is error


@pytest.mark.parametrize("method", ["pause_writing", "resume_writing"])
async def test_flow_control_that_fails(loop, contexts, reports, method):
    class Failing(support.Recorder):
        def fail(self):
            getattr(support.Recorder, method)(self)
            raise ArithmeticError

    setattr(Failing, method, Failing.fail)
    async with connected(loop, contexts, client=Failing) as (server, client):
        server.transport.pause_reading()
        while "pause" not in client.events:
            client.transport.write(bytes(100_000))
            await support.turns()
        server.transport.resume_reading()
        await client.wait_event("resume")
        report = reports.take_one()
        assert report["message"] == f"protocol.{method}() failed"
        assert report["transport"] is client.transport


# The transport by itself ---------------------------------------------------------------------


async def test_wrong_calls(loop, contexts):
    async with connected(loop, contexts) as (_, client):
        transport = client.transport
        for data in ("text", 5, None, [b"x"]):
            expected = f"data: expecting a bytes-like instance, got {type(data).__name__}"
            with pytest.raises(TypeError) as caught:
                transport.write(data)
            assert str(caught.value) == expected
        with pytest.raises(NotImplementedError):
            transport.write_eof()
        assert transport.can_write_eof() is False
        for set_limits in (transport.set_write_buffer_limits, transport.set_read_buffer_limits):
            with pytest.raises(ValueError, match=r"high \(1\) must be >= low \(2\) must be >= 0"):
                set_limits(1, 2)


async def test_limits(loop, contexts):
    async with connected(loop, contexts) as (_, client):
        transport = client.transport
        assert transport.get_write_buffer_limits() == (128 * 1024, 512 * 1024)
        assert transport.get_read_buffer_limits() == (64 * 1024, 256 * 1024)
        transport.set_write_buffer_limits(high=1000)
        transport.set_read_buffer_limits(low=1000)
        assert transport.get_write_buffer_limits() == (250, 1000)
        assert transport.get_read_buffer_limits() == (1000, 4000)
        assert transport.get_write_buffer_size() == transport.get_read_buffer_size() == 0


async def test_a_reader_that_is_paused_holds_up_the_sender(loop, contexts):
    async with connected(loop, contexts) as (server, client):
        server.transport.pause_reading()
        assert server.transport.is_reading() is False
        while "pause" not in client.events:
            client.transport.write(bytes(100_000))
            await support.turns()
        assert server.data == b""
        assert 0 < server.transport.get_read_buffer_size() < 1_000_000
        server.transport.resume_reading()
        await client.wait_event("resume")
        await server.wait(lambda: len(server.data) > 0)


async def test_views_may_change_after_the_call(loop, contexts):
    async with connected(loop, contexts) as (server, client):
        data = bytearray(b"before")
        client.transport.write(data)
        client.transport.writelines([memoryview(data)[:3], b"-", data])
        data[:] = b"after!"
        assert await server.wait_bytes(16) == b"beforebef-before"


async def test_a_file_is_sent(loop, contexts):
    data = support.payload(300_000)
    with tempfile.TemporaryFile() as file:
        file.write(data)
        async with connected(loop, contexts) as (server, client):
            assert await loop.sendfile(client.transport, file, 100) == len(data) - 100
            assert await server.wait_bytes(len(data) - 100) == data[100:]


async def test_another_protocol(loop, contexts):
    async with connected(loop, contexts) as (server, client):
        second = support.BufferedRecorder()
        server.transport.set_protocol(second)
        second.connection_made(server.transport)
        client.transport.write(b"for the second")
        assert await second.wait_bytes(14) == b"for the second"
        assert server.transport.get_protocol() is second
        server.transport.set_protocol(server)


async def test_one_that_nobody_closed_warns(loop, contexts):
    server = await loop.create_server(support.Echo, HOST, 0, ssl=contexts[0])
    client = await connect(loop, contexts, server)
    client.transport.abort()
    await client.wait_event("lost")
    server.close()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del client
        gc.collect()
    assert caught == []


async def test_nothing_is_left_of_a_connection(loop, contexts):
    """Without the collector: sessions are large."""
    gc.collect()
    gc.disable()
    try:
        async with connected(loop, contexts) as (_, client):
            transport = weakref.ref(client.transport)
            await exchange(_, client)
            client.transport.close()
            await client.wait_event("lost")
            del client.transport
            await support.turns(3)
            assert transport() is None
            client.transport = _.transport
    finally:
        gc.enable()


def count_objects(kinds):
    return sum(type(part) in kinds for part in gc.get_objects())


async def test_nothing_is_left_of_a_certificate_nobody_trusts(
    mioloop_only, loop, contexts, quiet, reports
):
    """Without the collector: transports and sessions are in no cycle, on either side."""
    server = await loop.create_server(support.Recorder, HOST, 0, ssl=contexts[0])
    async with support.serving(server):
        client = await connect(loop, contexts, server)
        kinds = {ssl.SSLObject, type(client.transport), type(client.transport._transport)}
        client.transport.abort()
        await client.wait_event("lost")
        client = None
        stranger = ssl.create_default_context()
        await support.turns(3)
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                with pytest.raises(ssl.SSLCertVerificationError) as caught:
                    await connect(loop, (None, stranger), server)
                # Before Python 3.14 the frames of create_connection() hold their own exception.
                traceback.clear_frames(caught.value.__traceback__)
                del caught
            # The server's side may take a moment more.
            for _ in range(10_000):
                left = count_objects(kinds)
                if not left:
                    break
                await asyncio.sleep(0.001)
        finally:
            gc.enable()
    assert left == 0
    reports.take()


async def test_nothing_is_left_of_a_failure(mioloop_only, loop, contexts, quiet, reports):
    """Neither the transport below nor the socket waits for the collector, as in older asyncio."""
    server = await loop.create_server(support.Recorder, HOST, 0, ssl=contexts[0])
    async with support.serving(server):
        plain = support.Recorder()
        await loop.create_connection(lambda: plain, HOST, support.port_of(server))
        transport, plain.transport = weakref.ref(plain.transport), None
        stranger = ssl.create_default_context()
        gc.collect()
        gc.disable()
        try:
            with contextlib.suppress(ssl.SSLCertVerificationError):
                await loop.start_tls(transport(), plain, stranger, server_hostname="localhost")
            await plain.wait_event("lost")
            plain.error = None
            await support.turns(3)
            left = transport()
        finally:
            gc.enable()
    assert left is None
    reports.take()
