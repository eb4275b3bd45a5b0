"""TLS: what contexts may ask for; connections that were accepted, upgraded, or are in TLS again."""

import asyncio
import os
import ssl
import tempfile

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


# What contexts may ask for -------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_versions(loop, contexts, version):
    contexts[1].minimum_version = contexts[1].maximum_version = version
    async with connected(loop, contexts) as (server, client):
        await exchange(server, client)
        name = client.transport.get_extra_info("ssl_object").version()
        assert name == version.name.replace("_", ".")


async def test_a_version_that_is_too_old(loop, contexts, quiet, reports):
    contexts[0].minimum_version = ssl.TLSVersion.TLSv1_3
    contexts[1].maximum_version = ssl.TLSVersion.TLSv1_2
    server = await loop.create_server(support.Recorder, HOST, 0, ssl=contexts[0])
    async with support.serving(server):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await connect(loop, contexts, server)
    reports.take()


async def test_names_choose_contexts(loop, certificate, contexts):
    """The context that the callback puts in its place presents the certificate."""
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    names = []

    def choose(ssl_object, name, context):
        assert context is bare
        names.append(name)
        ssl_object.context = contexts[0]

    bare.sni_callback = choose
    async with connected(loop, (bare, contexts[1])) as (server, client):
        assert names == ["localhost"]
        assert server.transport.get_extra_info("sslcontext") is bare
        assert server.transport.get_extra_info("ssl_object").context is contexts[0]
        await exchange(server, client)


async def test_a_name_that_is_refused(loop, contexts, quiet, reports):
    contexts[0].sni_callback = lambda *_: ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
    server = await loop.create_server(support.Recorder, HOST, 0, ssl=contexts[0])
    async with support.serving(server):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await connect(loop, contexts, server)
    reports.take()


async def test_keys_are_logged(loop, certificate, contexts):
    logging_context = certificate.client_context()
    with tempfile.TemporaryDirectory() as folder:
        logging_context.keylog_filename = f"{folder}/keys"
        async with connected(loop, (contexts[0], logging_context)):
            assert os.stat(logging_context.keylog_filename).st_size > 500


async def test_a_certificate_asked_for_later(loop, certificate, contexts):
    """Post-handshake authentication of TLS 1.3."""
    for context in contexts:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    contexts[0].verify_mode = ssl.CERT_REQUIRED
    contexts[0].load_verify_locations(certificate.certificate)
    contexts[0].post_handshake_auth = contexts[1].post_handshake_auth = True
    contexts[1].load_cert_chain(certificate.certificate, certificate.key)
    async with connected(loop, contexts) as (server, client):
        ssl_object = server.transport.get_extra_info("ssl_object")
        assert not ssl_object.getpeercert()
        await exchange(server, client)
        ssl_object.verify_client_post_handshake()
        await exchange(server, client)
        await exchange(server, client)
        assert ssl_object.getpeercert()


async def test_sessions_are_used_again(loop, contexts):
    class Resuming(ssl.SSLObject):
        saved = None

        @classmethod
        def _create(cls, *args, session=None, **keywords):
            return super()._create(*args, session=cls.saved, **keywords)

    contexts[1].sslobject_class = Resuming
    for is_reused in (False, True):
        async with connected(loop, contexts) as (server, client):
            await exchange(server, client)
            ssl_object = client.transport.get_extra_info("ssl_object")
            assert type(ssl_object) is Resuming
            assert ssl_object.session_reused is is_reused
            Resuming.saved = ssl_object.session


async def test_objects_of_another_class_are_asked(loop, contexts):
    """A subclass may do something at each call: so its methods are called."""
    calls = set()

    class Noting(ssl.SSLObject):
        def read(self, *args):
            calls.add("read")
            return super().read(*args)

        def write(self, data):
            calls.add("write")
            return super().write(data)

        def do_handshake(self):
            calls.add("do_handshake")
            return super().do_handshake()

        def unwrap(self):
            calls.add("unwrap")
            return super().unwrap()

    contexts[0].sslobject_class = Noting
    async with connected(loop, contexts) as (server, client):
        await exchange(server, client)
        server.transport.close()
        await client.wait_event("lost")
        await server.wait_event("lost")
    assert calls == {"read", "write", "do_handshake", "unwrap"}


async def test_facts_before_and_after(loop, contexts):
    async with connected(loop, contexts) as (server, client):
        transport = client.transport
        assert transport.get_extra_info("compression") is None
        assert transport.get_extra_info("compression", 5) is None
        assert transport.get_extra_info("nothing of the kind", 5) == 5
        assert server.transport.get_extra_info("peercert") is None
        transport.close()
        await client.wait_event("lost")
        assert transport.get_extra_info("cipher")
        assert transport.get_extra_info("ssl_object").version()
        assert transport.get_extra_info("peername", 5) == 5
        assert transport.get_protocol() is None


# Other ways to get a connection --------------------------------------------------------------


async def test_an_accepted_socket(loop, contexts, kind):
    ours, theirs = support.socket_pair(kind)
    client, server = support.Recorder(), support.Recorder()
    await asyncio.gather(
        loop.connect_accepted_socket(lambda: server, theirs, ssl=contexts[0]),
        loop.create_connection(
            lambda: client, sock=ours, ssl=contexts[1], server_hostname="localhost"
        ),
    )
    await exchange(client, server)
    client.transport.close()
    await client.wait_event("lost")
    await server.wait_event("lost")


async def test_tls_in_tls(loop, contexts):
    async with connected(loop, contexts) as (server, client):
        inner_server, inner_client = support.Recorder(), support.Recorder()
        upgraded = await asyncio.gather(
            loop.start_tls(server.transport, inner_server, contexts[0], server_side=True),
            loop.start_tls(
                client.transport, inner_client, contexts[1], server_hostname="localhost"
            ),
        )
        for protocol, transport in zip((inner_server, inner_client), upgraded, strict=True):
            protocol.connection_made(transport)
        await exchange(inner_server, inner_client)
        data = support.payload(700_000)
        inner_client.transport.write(data)
        assert (await inner_server.wait_bytes(len(data) + 7))[7:] == data
        inner_client.transport.close()
        for protocol in (inner_server, inner_client):
            await protocol.wait_event("lost")
        # The outer protocols were replaced, and hear nothing of it.
        server.events.append("lost")
        client.events.append("lost")


@pytest.mark.parametrize("what", ["context", "transport"])
async def test_upgrades_that_are_refused(loop, contexts, what):
    async with support.transport_and_socket(support.Recorder()) as (transport, _):
        arguments = {"context": transport, "transport": asyncio.Transport()}
        context = object() if what == "context" else contexts[1]
        with pytest.raises(TypeError, match=r"sslcontext is expected|is not supported by"):
            await loop.start_tls(arguments[what], support.Recorder(), context)


async def test_what_came_with_the_last_plaintext(mioloop_only, loop, contexts):
    """A client that does not wait: its greeting is in the stream's buffer when TLS starts."""

    async def serve(reader, writer):
        assert await reader.readline() == b"STARTTLS\n"
        await writer.start_tls(contexts[0])
        writer.write((await reader.readline()).upper())
        writer.close()

    async with await asyncio.start_server(serve, HOST, 0) as server:
        reader, writer = await asyncio.open_connection(HOST, support.port_of(server))
        writer.write(b"STARTTLS\n")
        await writer.start_tls(contexts[1], server_hostname="localhost")
        writer.write(b"hello\n")
        assert await reader.readline() == b"HELLO\n"
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_an_upgrade_of_what_is_closed(loop, contexts, end):
    """It is no error, and there is no transport to go on with."""
    protocol = support.Recorder()
    async with support.transport_and_socket(protocol) as (transport, _):
        getattr(transport, end)()
        upgrade = loop.start_tls(transport, protocol, contexts[1], server_hostname="localhost")
        assert await upgrade is None


async def test_an_upgrade_whose_peer_goes(mioloop_only, loop, contexts):
    """The protocol had its connection_made(), so it has its connection_lost()."""
    protocol = support.Recorder()
    async with support.transport_and_socket(protocol) as (transport, peer):
        # Without a name, Python 3.15 refuses a context that checks names at once.
        upgrade = asyncio.ensure_future(
            loop.start_tls(transport, protocol, contexts[1], server_hostname="localhost")
        )
        await support.read_exactly(peer, 50)
        support.reset(peer)
        with pytest.raises(ConnectionResetError):
            await upgrade
        await protocol.wait_event("lost")
        assert isinstance(protocol.error, ConnectionResetError)
