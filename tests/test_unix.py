"""Unix sockets: paths, abstract names, what is left in the file system."""

import asyncio
import errno
import os
import pathlib
import socket
import stat
import sys

import pytest

import support

abstract_names = pytest.mark.skipif(
    sys.platform != "linux", reason="abstract names are Linux's alone"
)


@pytest.fixture
def path():
    """A path for a socket, in a folder that goes away with it."""
    with support.unix_path() as path:
        yield path


def put_file(path):
    """Put an ordinary file where the socket was or is to be."""
    pathlib.Path(path).write_text("a file")


def is_file(path):
    """Whether the ordinary file is still there."""
    return pathlib.Path(path).read_text() == "a file"


def exists(path):
    return pathlib.Path(path).exists()


async def talk(address):
    """One exchange with an echo server at that address."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_unix_connection(support.Recorder, address)
    transport.write(b"hello")
    assert await protocol.wait_bytes(5) == b"hello"
    transport.close()
    await protocol.wait_event("lost")


CONVERSIONS = {"str": str, "Path": pathlib.Path, "bytes": os.fsencode}


@pytest.mark.parametrize("convert", CONVERSIONS.values(), ids=CONVERSIONS)
async def test_paths(loop, path, convert):
    server = await loop.create_unix_server(support.Echo, convert(path))
    async with support.serving(server):
        assert stat.S_ISSOCK(os.stat(path).st_mode)
        await talk(path)
        if convert is not os.fsencode:
            await talk(convert(path))
        await asyncio.gather(*(talk(path) for _ in range(50)))


@abstract_names
@pytest.mark.parametrize("convert", [str, os.fsencode])
async def test_abstract_names(loop, convert):
    name = f"\0mioloop-tests-{os.getpid()}"
    server = await loop.create_unix_server(support.Echo, convert(name))
    async with support.serving(server):
        assert server.sockets[0].getsockname() == name.encode()
        await talk(name)
        transport, protocol = await loop.create_unix_connection(support.Recorder, name)
        assert transport.get_extra_info("peername") == name.encode()
        transport.close()
        await protocol.wait_event("lost")


async def test_names_of_the_ends(loop, path):
    accepted = support.Recorder()
    server = await loop.create_unix_server(lambda: accepted, path)
    async with support.serving(server):
        transport, protocol = await loop.create_unix_connection(support.Recorder, path)
        await accepted.wait_event("made")
        assert transport.get_extra_info("peername") == path
        assert transport.get_extra_info("sockname") == ""
        assert accepted.transport.get_extra_info("sockname") == path
        assert accepted.transport.get_extra_info("peername") == ""
        assert transport.get_extra_info("socket").family == socket.AF_UNIX
        transport.close()
        await protocol.wait_event("lost")
        await accepted.wait_event("lost")


async def test_sockets_of_ones_own(loop, path):
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    server = await loop.create_unix_server(support.Echo, sock=listener)
    async with support.serving(server):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.connect(path)
        transport, protocol = await loop.create_unix_connection(support.Recorder, sock=client)
        transport.write(b"hello")
        assert await protocol.wait_bytes(5) == b"hello"
        transport.close()
        await protocol.wait_event("lost")


async def test_a_socket_left_over_is_replaced(loop, path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as old:
        old.bind(path)
    server = await loop.create_unix_server(support.Echo, path)
    async with support.serving(server):
        await talk(path)


async def test_a_file_in_the_way(loop, path):
    put_file(path)
    with pytest.raises(OSError, match="already in use") as caught:
        await loop.create_unix_server(support.Echo, path)
    assert caught.value.errno == errno.EADDRINUSE
    assert is_file(path)


async def failures(loop, path):
    """How connecting and listening fail, by name of the case."""
    long, missing = path * 20, os.path.join(path, "missing")
    datagram = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    inet = socket.socket()
    calls = {
        "nobody there": lambda: loop.create_unix_connection(support.Recorder, path),
        "no folder": lambda: loop.create_unix_server(support.Echo, missing),
        "too long to connect": lambda: loop.create_unix_connection(support.Recorder, long),
        "too long to listen": lambda: loop.create_unix_server(support.Echo, long),
        "nothing to connect": lambda: loop.create_unix_connection(support.Recorder),
        "nothing to listen": lambda: loop.create_unix_server(support.Echo),
        "both to connect": lambda: loop.create_unix_connection(support.Recorder, path, sock=inet),
        "both to listen": lambda: loop.create_unix_server(support.Echo, path, sock=inet),
        "datagram to connect": lambda: loop.create_unix_connection(asyncio.Protocol, sock=datagram),
        "datagram to listen": lambda: loop.create_unix_server(asyncio.Protocol, sock=datagram),
        "inet to connect": lambda: loop.create_unix_connection(asyncio.Protocol, sock=inet),
        "inet to listen": lambda: loop.create_unix_server(asyncio.Protocol, sock=inet),
        "a number": lambda: loop.create_unix_server(asyncio.Protocol, 5),
    }
    found = {name: await support.outcome_of(call) for name, call in calls.items()}
    datagram.close()
    inet.close()
    return found


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_failures_are_those_of_asyncio(loop, model, path):
    expected = model.run_until_complete(failures(model, path))
    assert all(kind is not None for kind, _ in expected.values())
    assert loop.run_until_complete(failures(loop, path)) == expected


# What is left of a server ----------------------------------------------------------------------


@pytest.mark.skipif(sys.version_info < (3, 13), reason="cleanup_socket came with Python 3.13")
@pytest.mark.parametrize("clean", [None, True, False])
async def test_cleaning_up(loop, path, clean):
    keywords = {} if clean is None else {"cleanup_socket": clean}
    server = await loop.create_unix_server(support.Echo, path, **keywords)
    await talk(path)
    server.close()
    await server.wait_closed()
    assert exists(path) is (clean is False)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="cleanup_socket came with Python 3.13")
async def test_cleaning_up_leaves_what_belongs_to_others(loop, path):
    """The path was taken over since: by another socket, or by a file."""
    first = await loop.create_unix_server(support.Echo, path)
    os.unlink(path)
    second = await loop.create_unix_server(support.Echo, path)
    first.close()
    await first.wait_closed()
    await talk(path)
    os.unlink(path)
    put_file(path)
    second.close()
    await second.wait_closed()
    assert is_file(path)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="cleanup_socket came with Python 3.13")
async def test_cleaning_up_what_is_gone(loop, path):
    server = await loop.create_unix_server(support.Echo, path)
    os.unlink(path)
    server.close()
    await server.wait_closed()


@pytest.mark.skipif(sys.version_info < (3, 13), reason="cleanup_socket came with Python 3.13")
async def test_cleaning_up_what_cannot_be_reached(loop, path, caplog):
    folder = f"{path}-folder"
    os.mkdir(folder)
    server = await loop.create_unix_server(support.Echo, f"{folder}/socket")
    os.rename(folder, f"{path}-elsewhere")
    put_file(folder)
    server.close()
    await server.wait_closed()
    (record,) = [record for record in caplog.records if record.name == "asyncio"]
    assert record.getMessage() == (
        f"Unable to clean up listening UNIX socket '{folder}/socket': "
        "NotADirectoryError(20, 'Not a directory')"
    )


@pytest.mark.skipif(sys.version_info < (3, 13), reason="cleanup_socket came with Python 3.13")
async def test_cleaning_up_is_no_call_of_the_program(loop, path, monkeypatch, mioloop_only):
    """Tools that look for calls that block replace those of `os`, and spare asyncio's files."""
    server = await loop.create_unix_server(support.Echo, path)
    with monkeypatch.context() as patch:
        for name in ("stat", "unlink", "remove"):
            patch.delattr(os, name)
        server.close()
    await server.wait_closed()
    assert not exists(path)


# More than connections -------------------------------------------------------------------------


async def test_streams(loop, path):
    async def serve(reader, writer):
        writer.write((await reader.readline()).upper())
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_unix_server(serve, path):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"line\n")
        assert await reader.read() == b"LINE\n"
        writer.close()
        await writer.wait_closed()


async def test_credentials_of_the_peer(loop, path):
    if not hasattr(socket, "SO_PEERCRED"):
        pytest.skip("there is no SO_PEERCRED here")
    accepted = support.Recorder()
    server = await loop.create_unix_server(lambda: accepted, path)
    async with support.serving(server):
        transport, protocol = await loop.create_unix_connection(support.Recorder, path)
        await accepted.wait_event("made")
        sock = accepted.transport.get_extra_info("socket")
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        assert int.from_bytes(raw[:4], sys.byteorder) == os.getpid()
        transport.close()
        await protocol.wait_event("lost")
        await accepted.wait_event("lost")
