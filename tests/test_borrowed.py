"""What asyncio lends the loop: subprocesses and socket calls, briefly.

The whole of each is the business of the conformance suite; here is what every program needs, and
what users have reported of other loops.
"""

import asyncio
import signal
import socket
import subprocess
import sys

import pytest

import support

HOST = "127.0.0.1"


@pytest.fixture
def processes(loop):
    """The loop, able to start processes: before Python 3.14 a child watcher must know the loop."""
    asyncio.set_event_loop(loop)
    yield loop
    asyncio.set_event_loop(None)


# Subprocesses ------------------------------------------------------------------------------------


async def test_a_command(loop, processes):
    code = "import sys; print(sys.stdin.read().upper()); sys.exit(3)"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    output, _ = await process.communicate(b"hello")
    assert output == b"HELLO\n"
    assert process.returncode == 3


async def test_a_shell(loop, processes):
    process = await asyncio.create_subprocess_shell("echo $0; exit 2", stdout=subprocess.PIPE)
    output, _ = await process.communicate()
    assert output.strip()
    assert process.returncode == 2


async def run_many():
    """Run processes at once; each gives its own exit code."""

    async def run(number):
        process = await asyncio.create_subprocess_exec("/bin/sh", "-c", f"exit {number}")
        return await process.wait()

    return await asyncio.gather(*(run(number) for number in range(20)))


async def test_many_processes(loop, processes):
    assert await run_many() == list(range(20))


async def test_much_through_a_process(loop, processes):
    data = support.payload(2_000_000)
    process = await asyncio.create_subprocess_exec(
        "/bin/cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    output, _ = await process.communicate(data)
    assert output == data


async def test_signals_to_a_process(loop, processes):
    process = await asyncio.create_subprocess_exec("/bin/sleep", "60")
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == -signal.SIGTERM


async def test_talking_to_a_process_that_has_ended(loop, processes):
    """Writing to it fails silently: `communicate` gives what there is."""
    process = await asyncio.create_subprocess_exec(
        "/bin/true", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    await process.wait()
    assert await process.communicate(b"x" * 100_000) == (b"", None)


async def test_a_program_that_is_not_there(loop, processes):
    with pytest.raises(FileNotFoundError) as caught:
        await asyncio.create_subprocess_exec("/no/such/program")
    assert caught.value.filename == "/no/such/program"


@pytest.mark.filterwarnings("ignore:.*child_watcher:DeprecationWarning")
async def test_two_loops_start_processes_at_once(loop, processes, new_loop):
    """Elsewhere this has failed for racing with another loop."""

    def body():
        other = new_loop()
        try:
            return other.run_until_complete(run_many())
        finally:
            other.close()

    found = await asyncio.gather(run_many(), *(asyncio.to_thread(body) for _ in range(3)))
    assert found == [list(range(20))] * 4


# Socket calls ------------------------------------------------------------------------------------


async def test_socket_calls(loop, kind):
    ours, theirs = support.socket_pair(kind)
    data = support.payload(1_000_000)
    with ours, theirs:
        sending = asyncio.ensure_future(loop.sock_sendall(ours, data))
        assert await support.read_exactly(theirs, len(data)) == data
        await sending
        buffer = bytearray(10)
        theirs.send(b"hello")
        assert await loop.sock_recv_into(ours, buffer) == 5
        assert buffer[:5] == b"hello"


async def test_accepting_and_connecting_sockets(loop):
    with socket.create_server((HOST, 0)) as listener, socket.socket() as client:
        listener.setblocking(False)
        client.setblocking(False)
        accepting = asyncio.ensure_future(loop.sock_accept(listener))
        await loop.sock_connect(client, listener.getsockname())
        accepted, address = await accepting
        assert address == client.getsockname()
        accepted.close()


async def test_names(loop):
    found = await loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
    assert found == socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
    assert await loop.getnameinfo((HOST, 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV) == (
        HOST,
        "80",
    )
