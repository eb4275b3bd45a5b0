"""How many system calls the hot paths make: counted by `strace`, on mioloop alone.

A server runs in a process of its own under strace. It marks the beginning and the end of what is
counted by a call that nothing else makes: `access` of a path with a name of its own.
"""

import collections
import re
import shutil
import socket
import sys

import pytest

CONNECTIONS = 50
ROUNDS = 40
MESSAGES = CONNECTIONS * ROUNDS

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="strace is Linux's alone"),
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]

SERVER = """
import os

class Protocol(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        if data == b"mark":
            os.access("/mioloop-mark", os.F_OK)
            self.transport.write(b"mark")
        else:
            self.answer(data)
    def answer(self, data):
        {answer}

async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Protocol, "127.0.0.1", 0)
    # strace itself heeds no signals while it traces: the end of the input ends the server.
    loop.add_reader(0, os._exit, 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.create_future()

with asyncio.Runner(loop_factory=new_loop) as runner:
    runner.run(main())
"""

SOCK_SERVER = """
import os, socket

async def serve(loop, sock):
    room = bytearray(4096)
    while data := {receive}:
        if data == b"mark":
            os.access("/mioloop-mark", os.F_OK)
        await loop.sock_sendall(sock, data)

async def main():
    loop = asyncio.get_running_loop()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    loop.add_reader(0, os._exit, 0)
    print(listener.getsockname()[1], flush=True)
    tasks = []
    while True:
        sock, _ = await loop.sock_accept(listener)
        tasks.append(loop.create_task(serve(loop, sock)))

with asyncio.Runner(loop_factory=new_loop) as runner:
    runner.run(main())
"""


class Client:
    """A blocking client of many connections, on this side of strace."""

    def __init__(self, address):
        self.connections = [socket.create_connection(address) for _ in range(CONNECTIONS)]

    def exchange(self, message, size):
        """Send the message on every connection, then read an answer of that size from each."""
        for connection in self.connections:
            connection.sendall(message)
        for connection in self.connections:
            left = size
            while left:
                left -= len(connection.recv(left))

    def mark(self):
        """Have the server make the call that is looked for in the trace."""
        self.connections[0].sendall(b"mark")
        assert self.connections[0].recv(4) == b"mark"

    def close(self):
        for connection in self.connections:
            connection.close()


class Visitors(Client):
    """A client that makes a new connection for each message; one stays for the marks."""

    def __init__(self, address):
        self.address = address
        self.connections = [socket.create_connection(address)]

    def exchange(self, message, size):
        for _ in range(CONNECTIONS):
            with socket.create_connection(self.address) as connection:
                connection.sendall(message)
                left = size
                while left:
                    left -= len(connection.recv(left))


POLLS = ("epoll_wait", "epoll_pwait", "epoll_pwait2")


class Calls(collections.Counter):
    """System calls by name."""

    # The polls that found nothing.
    misses = 0


def calls_of(script, tmp_path, answer, message, size):
    """The system calls of the server over MESSAGES exchanges, by name."""
    return trace(script, tmp_path, SERVER.replace("{answer}", answer), Client, message, size)


def trace(script, tmp_path, code, new_client, message, size):
    """The system calls of any server between its marks, by name."""
    log = tmp_path / "trace"
    strace = ["strace", "-f", "-qq", "-o", str(log)]
    process = script.start(code, before=strace)
    line = process.stdout.readline()
    if not line and "ptrace" in (error := process.stderr.read()).lower():
        pytest.skip(f"strace may not trace here: {error.strip()}")
    client = new_client(("127.0.0.1", int(line)))
    for _ in range(3):
        client.exchange(message, size)
    client.mark()
    for _ in range(ROUNDS):
        client.exchange(message, size)
    client.mark()
    client.close()
    process.stdin.close()
    assert process.wait() == 0
    names = re.findall(r"^\d+ +(\w+)\(([^\n]*)", log.read_text(), re.MULTILINE)
    marks = [index for index, call in enumerate(names) if "/mioloop-mark" in call[1]]
    assert len(marks) == 2
    counted = names[marks[0] + 1 : marks[1]]
    calls = Calls(name for name, _ in counted)
    calls.misses = sum(name in POLLS and rest.endswith(" = 0") for name, rest in counted)
    return calls


def polls(calls):
    """The calls that ask for events."""
    return sum(calls[name] for name in POLLS)


def check_polls(calls, most):
    """At most so many polls find something, and the others are few.

    Where nothing is ready, a loop may look before it waits. Whoever looked and had to wait then
    waits twice more before it looks again.
    """
    found = polls(calls) - calls.misses
    assert found <= most
    assert calls.misses <= found / 3 + 1


def test_echo(script, tmp_path, mioloop_only):
    """One read and one write for each message, and no change of what is polled."""
    calls = calls_of(script, tmp_path, "self.transport.write(data)", b"x" * 1024, 1024)
    reads = sum(calls[name] for name in ("recvfrom", "read", "recvmsg", "readv"))
    writes = sum(calls[name] for name in ("sendto", "write", "sendmsg", "writev"))
    marks = 2
    assert MESSAGES <= reads <= MESSAGES + marks
    assert MESSAGES <= writes <= MESSAGES + marks
    assert calls["epoll_ctl"] == 0
    # Now and then the interpreter asks for memory, or gives it back.
    assert sum(calls.values()) - polls(calls) <= 2 * (MESSAGES + marks) + MESSAGES // 200
    assert polls(calls) <= MESSAGES


def test_a_connection_is_registered_once(script, tmp_path, mioloop_only):
    """It comes, asks, is answered and goes; closing its socket ends the registration."""
    code = SERVER.replace("{answer}", "self.transport.write(data)")
    calls = trace(script, tmp_path, code, Visitors, b"x" * 64, 64)
    assert 0.9 * MESSAGES <= calls["close"] <= MESSAGES + 1
    assert calls["epoll_ctl"] <= MESSAGES
    # The message, and the end.
    assert calls["recvfrom"] <= 2 * MESSAGES + 2
    assert calls["sendto"] <= MESSAGES + 2
    # Each accept may be followed by one that finds nobody.
    assert calls["accept4"] <= 2 * MESSAGES


def test_large_reads_map_no_memory(script, tmp_path, mioloop_only):
    """In a fresh process, where glibc would map the room for each of them."""
    calls = calls_of(script, tmp_path, "self.transport.write(data)", b"x" * 200_000, 200_000)
    assert sum(calls[name] for name in ("mmap", "munmap", "mremap")) <= MESSAGES // 20


@pytest.mark.parametrize(
    "answer",
    [
        "self.transport.write(data[:512]); self.transport.write(data[512:])",
        "[self.transport.write(data[i:i+128]) for i in range(0, 1024, 128)]",
        "self.transport.writelines([data[:512], data[512:]])",
    ],
    ids=["two writes", "eight writes", "writelines"],
)
def test_writes_of_one_callback_are_one_call(script, tmp_path, mioloop_only, answer):
    calls = calls_of(script, tmp_path, answer, b"x" * 1024, 1024)
    writes = sum(calls[name] for name in ("sendto", "write", "sendmsg", "writev"))
    assert MESSAGES <= writes <= MESSAGES + 2
    assert calls["epoll_ctl"] == 0


def test_small_answers_over_many_turns(script, tmp_path, mioloop_only):
    """A write from a later callback is one call too."""
    answer = "asyncio.get_running_loop().call_soon(self.transport.write, data)"
    calls = calls_of(script, tmp_path, answer, b"x" * 1024, 1024)
    writes = sum(calls[name] for name in ("sendto", "write", "sendmsg", "writev"))
    assert MESSAGES <= writes <= MESSAGES + 2
    assert calls["epoll_ctl"] == 0


DATAGRAMS = """
import os, socket

class Protocol(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport
    def datagram_received(self, data, addr):
        if data == b"mark":
            os.access("/mioloop-mark", os.F_OK)
        self.transport.sendto(data, addr)

async def main():
    loop = asyncio.get_running_loop()
    endpoint, _ = await loop.create_datagram_endpoint(Protocol, ("127.0.0.1", 0))
    endpoint.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    loop.add_reader(0, os._exit, 0)
    print(endpoint.get_extra_info("sockname")[1], flush=True)
    await loop.create_future()

with asyncio.Runner(loop_factory=new_loop) as runner:
    runner.run(main())
"""


class DatagramClient:
    """A blocking client that sends from many sockets to one endpoint."""

    def __init__(self, address, sockets):
        self.sockets = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(sockets)]
        for sock in self.sockets:
            sock.connect(address)

    def exchange(self, message, _size):
        """Send the message from every socket, then take the answer to each."""
        for sock in self.sockets:
            sock.send(message)
        for sock in self.sockets:
            assert sock.recv(len(message)) == message

    def mark(self):
        """Have the server make the call that is looked for in the trace."""
        self.sockets[0].send(b"mark")
        assert self.sockets[0].recv(4) == b"mark"

    def close(self):
        for sock in self.sockets:
            sock.close()


def test_one_datagram_at_a_time(script, tmp_path, mioloop_only):
    """A read and a write for each, at most one wait, and now and then a look for more."""
    calls = trace(script, tmp_path, DATAGRAMS, lambda to: DatagramClient(to, 1), b"x" * 64, 64)
    marks = 2
    reads = calls["recvfrom"] + calls["recvmmsg"]
    assert ROUNDS <= calls["sendto"] <= ROUNDS + marks
    assert calls["recvmmsg"] <= ROUNDS / 8
    check_polls(calls, ROUNDS + marks)
    # A look that finds nothing is followed by a wait; many of them in a row are not made.
    assert ROUNDS <= reads <= ROUNDS * 5 / 4 + marks
    assert calls["epoll_ctl"] == calls["sendmmsg"] == 0


def test_many_datagrams_at_a_time(script, tmp_path, mioloop_only):
    """While they pile up, one call takes many and one call sends the answers."""
    many = 100
    calls = trace(script, tmp_path, DATAGRAMS, lambda to: DatagramClient(to, many), b"x" * 64, 64)
    messages = ROUNDS * many
    reads = calls["recvfrom"] + calls["recvmmsg"]
    assert reads < messages / 3
    assert calls["sendto"] + calls["sendmmsg"] <= reads
    # Each that finds something is followed by a read.
    check_polls(calls, reads)
    assert calls["epoll_ctl"] == 0


@pytest.mark.parametrize(
    "receive",
    ["await loop.sock_recv(sock, 65536)", "room[: await loop.sock_recv_into(sock, room)]"],
    ids=["recv", "recv_into"],
)
def test_sock_calls(script, tmp_path, mioloop_only, receive):
    """A read that may find nothing, one that does, and a write; the sockets stay registered."""
    code = SOCK_SERVER.replace("{receive}", receive)
    calls = trace(script, tmp_path, code, Client, b"x" * 1024, 1024)
    marks = 2
    assert calls["epoll_ctl"] == 0
    assert MESSAGES <= calls["recvfrom"] <= 2 * (MESSAGES + marks)
    assert MESSAGES <= calls["sendto"] <= MESSAGES + marks
    assert sum(calls.values()) - polls(calls) <= 3 * (MESSAGES + marks) + MESSAGES // 200
    assert polls(calls) <= MESSAGES
