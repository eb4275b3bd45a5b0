"""What connections and servers tell the log in debug mode: asyncio's lines."""

import asyncio
import logging
import re
import socket

import support

HOST = "127.0.0.1"


def lines_of(loop, caplog, coroutine):
    """What a debugging loop tells the log, without what must differ from run to run."""
    caplog.clear()
    loop.set_debug(True)
    loop.slow_callback_duration = 60
    with caplog.at_level(logging.DEBUG, "asyncio"):
        loop.run_until_complete(coroutine)
    text = re.sub(r"\('127.0.0.1', \d+\)|127.0.0.1:\d+|laddr=/[^,>]+", "PLACE", caplog.text)
    # As it was when it was told: objects look otherwise later.
    return re.findall(r"^\w+ +asyncio:\S+ (.*)$", support.normal(text), re.MULTILINE)


async def life_of_a_connection(kind):
    """It pauses and resumes, and ends in both directions."""
    loop = asyncio.get_running_loop()
    received, sent = support.Recorder(), support.Recorder()
    with support.unix_path() as path:
        if kind == "unix":
            server = await loop.create_unix_server(lambda: received, path)
            transport, _ = await loop.create_unix_connection(lambda: sent, path)
        else:
            server = await loop.create_server(lambda: received, HOST, 0)
            place = (HOST, support.port_of(server))
            transport, _ = await loop.create_connection(lambda: sent, *place)
        async with support.serving(server):
            for _ in range(2):
                transport.pause_reading()
            for _ in range(2):
                transport.resume_reading()
            transport.write_eof()
            await sent.wait_event("lost")
            transport.pause_reading()
            transport.resume_reading()


def test_connections(loop, model, kind, caplog):
    expected = lines_of(model, caplog, life_of_a_connection(kind))
    for text in ("got a new connection", "pauses reading", "resumes reading", "received EOF"):
        assert any(text in line for line in expected)
    assert any(" connected to " in line for line in expected) == (kind == "tcp")
    assert lines_of(loop, caplog, life_of_a_connection(kind)) == expected


async def test_a_hand_shake_that_ends_early(loop, certificate, reports, caplog):
    """Both layers see the end."""
    received = support.Recorder()
    context = certificate.server_context()
    server = await loop.create_server(lambda: received, HOST, 0, ssl=context)
    async with support.serving(server):
        loop.set_debug(True)
        with caplog.at_level(logging.DEBUG, "asyncio"):
            socket.create_connection((HOST, support.port_of(server))).close()
            while not (told := reports.take()):
                await support.turns()
    assert told[0]["message"] == "Error on transport creation for incoming connection"
    assert "starts SSL handshake" in caplog.text
    assert caplog.text.count("received EOF") == 2


def test_reports_of_protocols(new_loop, caplog):
    """The handler of exceptions asks what runs for its origin, which transports do not have."""

    class Failing(asyncio.Protocol):
        def data_received(self, data):
            asyncio.get_running_loop().call_exception_handler({"message": "on purpose"})

    async def main():
        async with support.transport_and_socket(Failing()) as (_, other):
            other.send(b"data")
            while not caplog.records:
                await support.turns()

    loop = new_loop()
    loop.set_debug(True)
    with caplog.at_level(logging.ERROR, "asyncio"):
        loop.run_until_complete(main())
    assert [record.getMessage().splitlines()[0] for record in caplog.records] == ["on purpose"]


def test_reports_of_callbacks_from_before_debug_mode(new_loop, caplog):
    loop = new_loop()
    loop.call_soon(lambda: loop.call_exception_handler({"message": "on purpose"}))
    loop.set_debug(True)
    support.spin(loop)
    assert [record.getMessage() for record in caplog.records] == ["on purpose"]
