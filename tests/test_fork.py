"""Forking with a loop: the child makes a new one, the parent's goes on undisturbed.

Every test is a script, so that a process of its own forks, and not the one of the tests.
"""

import pytest

CHILD = """
import os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)

def in_child(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:
            os.write(2, repr(error).encode())
            os._exit(1)
        os._exit(0)
    return pid

def ended_well(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

async def others_end():
    await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})

async def use_sockets():
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"x" * 100_000)
    assert await reader.readexactly(100_000) == b"x" * 100_000
    writer.close()
    await writer.wait_closed()
    server.close()
    await others_end()

async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()

def run_a_loop():
    loop = new_loop()
    loop.run_until_complete(use_sockets())
    assert loop.run_until_complete(asyncio.to_thread(int, "5")) == 5
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
"""


def check(script, code):
    assert script.check(CHILD + code + "\nprint('done')\n") == "done\n"


def test_a_child_of_a_running_loop_makes_its_own(script):
    check(
        script,
        """
async def main():
    asyncio.get_running_loop().call_later(1000, int)
    assert ended_well(in_child(run_a_loop))
    await use_sockets()
loop = new_loop()
loop.run_until_complete(main())
loop.close()
""",
    )


def test_no_loop_runs_in_the_child(script):
    check(
        script,
        """
def work():
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise AssertionError("there is a running loop")
async def main():
    assert ended_well(in_child(work))
    assert asyncio.get_running_loop() is loop
loop = new_loop()
loop.run_until_complete(main())
loop.close()
""",
    )


@pytest.mark.parametrize("use_first", [True, False])
def test_a_child_beside_an_idle_loop(script, use_first):
    check(
        script,
        f"""
loop = new_loop()
if {use_first}:
    loop.run_until_complete(use_sockets())
pid = in_child(run_a_loop)
run_a_loop()
assert ended_well(pid)
loop.run_until_complete(use_sockets())
loop.close()
""",
    )


def test_parent_is_not_disturbed_by_what_the_child_does(script):
    """Watchers, connections, signals and wake-ups of the parent outlive the child."""
    check(
        script,
        """
import signal, socket, threading
async def main():
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    readable, signalled, woken = (loop.create_future() for _ in range(3))
    def set_once(future):
        if not future.done():
            future.set_result(None)
    loop.add_reader(ours, lambda: (ours.recv(10), set_once(readable)))
    loop.add_signal_handler(signal.SIGUSR1, set_once, signalled)
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    pid = in_child(run_a_loop)
    assert ended_well(pid)
    theirs.send(b"x")
    await readable
    os.kill(os.getpid(), signal.SIGUSR1)
    await signalled
    thread = threading.Thread(target=loop.call_soon_threadsafe, args=[woken.set_result, None])
    thread.start()
    await woken
    thread.join()
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    writer.close()
    await writer.wait_closed()
    server.close()
    await others_end()
    loop.remove_reader(ours)
    loop.remove_signal_handler(signal.SIGUSR1)
    ours.close()
    theirs.close()
loop = new_loop()
loop.run_until_complete(main())
loop.close()
""",
    )


def test_multiprocessing_by_fork(script):
    check(
        script,
        """
import multiprocessing
async def main():
    process = multiprocessing.get_context("fork").Process(target=run_a_loop)
    process.start()
    await use_sockets()
    process.join()
    assert process.exitcode == 0
loop = new_loop()
loop.run_until_complete(main())
loop.close()
""",
    )


def test_generations(script):
    """A child of a child, each with a loop of its own."""
    check(
        script,
        """
def child():
    run_a_loop()
    assert ended_well(in_child(run_a_loop))
    run_a_loop()
run_a_loop()
assert ended_well(in_child(child))
run_a_loop()
""",
    )


def test_executors(script):
    """The child has threads of its own; those of the parent go on with what they do."""
    check(
        script,
        """
import threading
go_on = threading.Event()
def call_in_threads():
    loop = new_loop()
    calls = [loop.run_in_executor(None, int, str(number)) for number in range(100)]
    assert loop.run_until_complete(asyncio.gather(*calls)) == list(range(100))
    assert len(threading.enumerate()) > 1
    loop.run_until_complete(loop.shutdown_default_executor())
    assert threading.enumerate() == [threading.main_thread()]
    loop.close()
def main_of_child():
    call_in_threads()
    run_a_loop()
async def main():
    loop = asyncio.get_running_loop()
    assert await loop.run_in_executor(None, int, "5") == 5
    waiting = loop.run_in_executor(None, go_on.wait)
    assert ended_well(in_child(main_of_child))
    assert await loop.run_in_executor(None, int, "6") == 6
    go_on.set()
    assert await waiting
loop = new_loop()
loop.run_until_complete(main())
loop.run_until_complete(loop.shutdown_default_executor())
loop.close()
""",
    )


def test_a_child_of_an_executor_s_thread(script):
    """That thread is the child's only one."""
    check(
        script,
        """
async def main():
    loop = asyncio.get_running_loop()
    await asyncio.gather(*(loop.run_in_executor(None, int) for _ in range(10)))
    assert ended_well(await loop.run_in_executor(None, in_child, run_a_loop))
    assert await loop.run_in_executor(None, int, "6") == 6
loop = new_loop()
loop.run_until_complete(main())
loop.run_until_complete(loop.shutdown_default_executor())
loop.close()
""",
    )
