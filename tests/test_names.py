"""`getaddrinfo` and `getnameinfo`: those of `socket`, element for element."""

import asyncio
import itertools
import logging
import random
import socket
import sys
import threading

import pytest

import support

HOSTS = [
    "127.0.0.1",
    b"127.0.0.1",
    "0.0.0.0",
    "255.255.255.255",
    "192.0.2.255",
    "::1",
    b"::1",
    "::",
    "0:0:0:0:0:0:0:1",
    "2001:DB8::A",
    "fe80::1",
    "fe80::1%lo",
    "fe80::1%1",
    "::ffff:127.0.0.1",
    "::127.0.0.1",
    "64:ff9b::192.0.2.33",
    "1:2:3:4:5:6:7::",
    "::2:3:4:5:6:7:8",
    "localhost",
    b"localhost",
    None,
    "",
    b"",
    # What only looks like an address, or is one of the old kind.
    "127.1",
    "0x7f.1",
    "0x7f000001",
    "2130706433",
    "127.0.0.01",
    "127.0.0.256",
    "127.0.0.1.",
    " 127.0.0.1",
    "127.0.0.1 ",
    "127.0.0.1\n",
    "127.0.0.1\0",
    "١٢٧.0.0.1",
    "[::1]",
    ":::1",
    "1::2::3",
    "::00001",
    "::1.2.3",
    "::1:65536",
    "x" * 100,
    bytearray(b"127.0.0.1"),
    127,
    ["127.0.0.1"],
]
PORTS = [
    80,
    0,
    65535,
    65536,
    -1,
    2**70,
    True,
    None,
    "80",
    b"80",
    "080",
    "00000000080",
    "0",
    "65536",
]
PORTS += ["", b"", "http", b"http", "no such service", "80 ", "+80", "-1", "٨٠", 80.0, object]
FAMILIES = [0, socket.AF_INET, socket.AF_INET6, int(socket.AF_INET), socket.AF_UNIX, -1]
TYPES = [0, socket.SOCK_STREAM, 1, socket.SOCK_DGRAM, socket.SOCK_RAW, 12345]
TYPES += [socket.SOCK_STREAM | getattr(socket, "SOCK_NONBLOCK", 0)]
PROTOS = [0, socket.IPPROTO_TCP, socket.IPPROTO_UDP, 1, -1]
FLAGS = [
    0,
    socket.AI_PASSIVE,
    socket.AI_NUMERICHOST,
    socket.AI_NUMERICHOST | socket.AI_NUMERICSERV | socket.AI_PASSIVE,
    socket.AI_CANONNAME,
    socket.AI_ADDRCONFIG,
    socket.AI_V4MAPPED | socket.AI_ALL,
    -1,
]
HOSTS_TO_COMBINE = ["127.0.0.1", "::1", "::ffff:127.0.0.1", "fe80::1%lo", "localhost"]
NAMES = [host for host in HOSTS if host in ("localhost", b"localhost")]


class Number(int):
    """An int that is none exactly."""


class Text(str):
    """A text that is none exactly."""

    __slots__ = ()


def shape(answer):
    """An answer with the types of all that is in it."""
    if isinstance(answer, list | tuple):
        return type(answer), [shape(part) for part in answer]
    return type(answer), answer


def outcome_of(call):
    """What a call gives, with all types, or how it fails."""
    try:
        return shape(call())
    except (OSError, TypeError, ValueError, OverflowError) as error:
        return type(error), str(error), getattr(error, "errno", None)


async def async_outcome_of(awaitable):
    try:
        return shape(await awaitable)
    except (OSError, TypeError, ValueError, OverflowError) as error:
        return type(error), str(error), getattr(error, "errno", None)


async def check(loop, host, port, family=0, kind=0, proto=0, flags=0):
    expected = outcome_of(lambda: socket.getaddrinfo(host, port, family, kind, proto, flags))
    found = await async_outcome_of(
        loop.getaddrinfo(host, port, family=family, type=kind, proto=proto, flags=flags)
    )
    assert found == expected, (host, port, family, kind, proto, flags)


# getaddrinfo ------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", FLAGS[::3])
async def test_every_form(loop, flags):
    """All hosts with all ports; all families, types and protocols of some of them."""
    numeric = flags | socket.AI_NUMERICHOST
    for host, port in itertools.product(HOSTS, PORTS):
        # Names are not looked up: nobody outside is to be asked.
        asked = flags if host in NAMES else numeric
        for kind in (0, socket.SOCK_STREAM):
            await check(loop, host, port, 0, kind, 0, asked)


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize(
    "host", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "fe80::1%lo", "localhost"]
)
async def test_every_combination(loop, host, flags):
    for port in (80, "http"):
        for family, kind, proto in itertools.product(FAMILIES, TYPES, PROTOS):
            await check(loop, host, port, family, kind, proto, flags)


async def test_random_addresses(loop):
    """Texts near the edge of what is an address."""
    chance = random.Random(7)
    groups = ["0", "1", "ffff", "::", "127.0.0.1", "255", "256", "00", "g", "12345", ""]
    for _ in range(2000):
        glue = chance.choice([":", ".", ":", "::"])
        host = glue.join(chance.choices(groups, k=chance.randrange(1, 9)))
        await check(loop, host, 80, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
    for _ in range(500):
        for family, size in ((socket.AF_INET, 4), (socket.AF_INET6, 16)):
            packed = bytes(chance.choice((0, 0, 1, 255, 16)) for _ in range(size))
            host = socket.inet_ntop(family, packed)
            await check(loop, host, 80, 0, socket.SOCK_STREAM)


async def test_subclasses(loop):
    for host in ("127.0.0.1", "::1"):
        await check(loop, Text(host), Number(80), Number(0), Number(1), Number(6), Number(0))
        await check(loop, host, Text("80"))


async def test_the_list_is_the_caller_s(loop):
    first = await loop.getaddrinfo("127.0.0.1", 80)
    first.clear()
    assert await loop.getaddrinfo("127.0.0.1", 80) == socket.getaddrinfo("127.0.0.1", 80)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_it_is_a_coroutine(loop, host):
    expected = socket.getaddrinfo(host, 80)
    assert asyncio.iscoroutinefunction(loop.getaddrinfo) if sys.version_info < (3, 14) else True
    assert await loop.create_task(loop.getaddrinfo(host, 80)) == expected
    assert await asyncio.wait_for(loop.getaddrinfo(host, 80), 10) == expected
    assert await asyncio.gather(*[loop.getaddrinfo(host, 80) for _ in range(3)]) == [expected] * 3


async def test_literals_start_no_thread(loop, mioloop_only):
    await loop.getaddrinfo("127.0.0.1", 80)
    await loop.getaddrinfo("::1", "80", type=socket.SOCK_STREAM)
    await loop.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
    assert not any(thread.name.startswith("asyncio_") for thread in threading.enumerate())


async def test_names_are_asked_for_in_threads(loop, monkeypatch):
    seen = []

    def record(*arguments):
        seen.append(threading.current_thread().name)
        return original(*arguments)

    original = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", record)
    assert await loop.getaddrinfo("localhost", 80) == original("localhost", 80)
    # A function that somebody put in its place is asked for literals too.
    assert await loop.getaddrinfo("127.0.0.1", 80) == original("127.0.0.1", 80)
    assert [name.partition("_")[0] for name in seen] == ["asyncio"] * 2


@pytest.mark.parametrize(
    ("arguments", "keywords"),
    [((), {}), (("h",), {}), (("h", 1, 2), {}), (("h", 1), {"kind": 1}), ((), {"host": "h"})],
)
async def test_wrong_arguments(loop, arguments, keywords):
    with pytest.raises(TypeError, match="getaddrinfo"):
        await loop.getaddrinfo(*arguments, **keywords)


async def test_arguments_by_name(loop):
    found = await loop.getaddrinfo(host="127.0.0.1", port=80, type=socket.SOCK_STREAM)
    assert found == socket.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_debug_mode_reports(loop, host, caplog):
    loop.set_debug(True)
    with caplog.at_level(logging.DEBUG, "asyncio"):
        assert await loop.getaddrinfo(host, 80) == socket.getaddrinfo(host, 80)
    loop.set_debug(False)
    assert f"Get address info {host}:80" in caplog.text


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_closed_loop(loop, host):
    loop.close()
    for waiting in (loop.getaddrinfo(host, 80), loop.getnameinfo((host, 80), 3)):
        with pytest.raises(RuntimeError, match=r"^Event loop is closed$"):
            waiting.send(None)


def test_audit_hooks(script):
    """They see every address that is asked for, also where nobody is asked."""
    code = """
import socket, sys
sys.addaudithook(lambda event, args: print(event, *args) if "info" in event else None)
async def main():
    await loop.getaddrinfo("127.0.0.1", 80, family=2, type=socket.SOCK_STREAM)
    await loop.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
loop = new_loop()
loop.run_until_complete(main())
loop.run_until_complete(loop.shutdown_default_executor())
loop.close()
"""
    assert script.check(code).splitlines() == [
        f"socket.getaddrinfo 127.0.0.1 80 2 {socket.SOCK_STREAM} 0",
        "socket.getnameinfo ('127.0.0.1', 80)",
    ]


# getnameinfo ------------------------------------------------------------------------------------

NUMERIC = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
MORE_FLAGS = [NUMERIC, NUMERIC | socket.NI_DGRAM, NUMERIC | socket.NI_NAMEREQD]


@pytest.mark.parametrize(
    "flags", [NUMERIC, NUMERIC | socket.NI_DGRAM, NUMERIC | socket.NI_NAMEREQD]
)
async def test_every_address(loop, flags):
    rests = [(), (0,), (0, 0), (5, 0), (0, 1), (2**20, 0), ("x", 0)]
    for host, port, rest in itertools.product(HOSTS, PORTS, rests):
        if host in NAMES or host in (None, "", b""):
            continue
        address = (host, port, *rest)
        expected = outcome_of(lambda address=address: socket.getnameinfo(address, flags))
        assert await async_outcome_of(loop.getnameinfo(address, flags)) == expected, address


@pytest.mark.parametrize("flags", [0, socket.NI_NUMERICHOST, socket.NI_NUMERICSERV, -1])
async def test_names_of_addresses(loop, flags):
    for address in (("127.0.0.1", 80), ("::1", 80, 0, 0), ("127.0.0.1", 9), ("localhost", 80)):
        expected = outcome_of(lambda address=address: socket.getnameinfo(address, flags))
        assert await async_outcome_of(loop.getnameinfo(address, flags)) == expected


@pytest.mark.parametrize("address", [None, "127.0.0.1", (), ("127.0.0.1",), ["127.0.0.1", 80]])
async def test_no_addresses(loop, address):
    expected = outcome_of(lambda: socket.getnameinfo(address, NUMERIC))
    assert await async_outcome_of(loop.getnameinfo(address, NUMERIC)) == expected


# Where they are used ----------------------------------------------------------------------------


async def test_servers_and_clients_by_name(loop):
    server = await loop.create_server(support.Echo, "localhost", 0, family=socket.AF_INET)
    async with support.serving(server):
        port = support.port_of(server)
        transport, protocol = await loop.create_connection(support.Recorder, "localhost", port)
        transport.write(b"hello")
        assert await protocol.wait_bytes(5) == b"hello"
        transport.close()
        await protocol.wait_event("lost")
