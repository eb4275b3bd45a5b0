"""The ends of subprocesses: exits and signals, who waits for them, and that nothing is left."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import weakref

import pytest

import support

PIPE = subprocess.PIPE


pytestmark = pytest.mark.usefixtures("no_child_left")


def wait_for(pid, what=os.WEXITED):
    """Wait until a child has exited, or stopped, and leave it to be reaped."""
    os.waitid(os.P_PID, pid, what | os.WNOWAIT)


class Protocol(asyncio.SubprocessProtocol):
    """Notes what it is told."""

    def __init__(self):
        self.events = []
        self.exited, self.ended = asyncio.Event(), asyncio.Event()

    def connection_made(self, transport):
        self.events.append("made")

    def pipe_data_received(self, fd, data):
        self.events.append((fd, data))

    def pipe_connection_lost(self, fd, error):
        self.events.append((fd, error))

    def process_exited(self):
        self.events.append("exited")
        self.exited.set()

    def connection_lost(self, error):
        self.events.append(("lost", error))
        self.ended.set()


async def run(command, **keywords):
    process = await asyncio.create_subprocess_shell(command, **keywords)
    return await process.wait()


# Exits -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["terminate", "kill", "signal"])
async def test_death_by_signal(loop, ending):
    process = await asyncio.create_subprocess_exec("/bin/sleep", "60")
    assert process.returncode is None
    if ending == "signal":
        process.send_signal(signal.SIGUSR1)
    else:
        getattr(process, ending)()
    number = {"terminate": signal.SIGTERM, "kill": signal.SIGKILL, "signal": signal.SIGUSR1}
    assert await process.wait() == -number[ending]
    assert process.returncode == -number[ending]
    assert await process.wait() == -number[ending]


async def test_signals_after_the_end(loop):
    process = await asyncio.create_subprocess_exec("/bin/true")
    await process.wait()
    await support.turns(3)
    for method in (process.terminate, process.kill):
        with pytest.raises(ProcessLookupError):
            method()


async def test_stopping_is_not_the_end(loop):
    process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE)
    process.send_signal(signal.SIGSTOP)
    wait_for(process.pid, os.WSTOPPED)
    await support.turns(3)
    assert process.returncode is None
    process.send_signal(signal.SIGCONT)
    assert await process.communicate(b"on") == (b"on", None)


async def test_exit_codes(loop):
    codes = (0, 1, 127, 128, 255)
    assert await asyncio.gather(*(run(f"exit {code}") for code in codes)) == list(codes)


async def test_several_wait(loop):
    process = await asyncio.create_subprocess_shell("read x; exit 7", stdin=PIPE)
    waiting = [asyncio.create_task(process.wait()) for _ in range(3)]
    await support.turns(2)
    waiting[0].cancel()
    process.stdin.close()
    assert await asyncio.gather(*waiting[1:]) == [7, 7]
    assert waiting[0].cancelled()


async def test_the_protocol_is_told_all(loop):
    command = "echo out; echo error >&2; exit 3"
    transport, protocol = await loop.subprocess_shell(Protocol, command)
    assert isinstance(transport, asyncio.SubprocessTransport)
    assert transport.get_extra_info("subprocess").pid == transport.get_pid()
    assert transport.get_protocol() is protocol
    await protocol.ended.wait()
    assert transport.get_returncode() == 3
    events = protocol.events
    assert (events[0], events[-1]) == ("made", ("lost", None))
    assert [event for event in events if event[0] == 1] == [(1, b"out\n"), (1, None)]
    assert [event for event in events if event[0] == 2] == [(2, b"error\n"), (2, None)]
    assert events.count("exited") == 1
    transport.close()


async def test_the_exit_comes_before_the_end_of_a_pipe(loop):
    """A grandchild has the pipe."""
    first, second = os.pipe()
    transport, protocol = await loop.subprocess_exec(
        Protocol, "/bin/sh", "-c", "cat <&3 & exit 4", stdin=None, stderr=None,
        preexec_fn=lambda: os.dup2(first, 3), close_fds=False,
    )  # fmt: skip
    await protocol.exited.wait()
    assert transport.get_returncode() == 4
    assert protocol.events == ["made", "exited"]
    os.close(first)
    os.write(second, b"later")
    os.close(second)
    await protocol.ended.wait()
    assert protocol.events == ["made", "exited", (1, b"later"), (1, None), ("lost", None)]
    transport.close()


async def test_the_ends_of_the_pipes_come_before_the_exit(loop):
    command = "exec >/dev/null; read x; exit 5"
    process = await asyncio.create_subprocess_shell(command, stdin=PIPE, stdout=PIPE)
    assert await process.stdout.read() == b""
    assert process.returncode is None
    process.stdin.write(b"\n")
    assert await process.wait() == 5


async def test_closing_kills(loop):
    transport, protocol = await loop.subprocess_exec(Protocol, "/bin/cat")
    transport.close()
    assert transport.is_closing()
    transport.close()
    await protocol.ended.wait()
    assert transport.get_returncode() == -signal.SIGKILL


async def test_closing_what_has_exited_unnoticed(loop, mioloop_only, caplog):
    """The exit code is the right one; in asyncio it is 255, with a warning."""
    transport, protocol = await loop.subprocess_exec(Protocol, "/bin/cat")
    transport.terminate()
    wait_for(transport.get_pid())
    transport.close()
    await protocol.ended.wait()
    assert transport.get_returncode() == -signal.SIGTERM
    assert not caplog.records


# Who else waits ----------------------------------------------------------------------------------


async def test_a_handler_of_sigchld(loop, own_sigchld):
    seen = []
    signal.signal(signal.SIGCHLD, lambda number, frame: seen.append(number))
    assert await run("exit 6") == 6
    assert seen == [signal.SIGCHLD]


async def test_a_handler_of_sigchld_in_the_loop(loop, own_sigchld):
    counter = support.Counter(loop)
    loop.add_signal_handler(signal.SIGCHLD, counter)
    assert await run("exit 6") == 6
    await counter.at(1)
    assert loop.remove_signal_handler(signal.SIGCHLD)


def reap(process):
    process.kill()
    os.waitpid(process.pid, 0)


async def test_somebody_else_reaps(loop, loop_name, caplog):
    if loop_name == "asyncio" and sys.version_info < (3, 12):
        pytest.skip("asyncio's thread waits at the same time, and may be first")
    process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE)
    loop.call_soon(reap, process)
    assert await process.wait() == 255
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("asyncio", logging.WARNING)
    assert f"child process pid {process.pid}" in record.getMessage()
    assert "will report returncode 255" in record.getMessage()


async def test_sigchld_is_ignored(loop, own_sigchld, caplog):
    """The system reaps."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE)
    process.stdin.close()
    assert await process.wait() == 255
    assert "will report returncode 255" in caplog.text


def test_the_program_has_children_of_its_own(loop):
    with subprocess.Popen(["/bin/sh", "-c", "exit 9"]) as other:
        assert loop.run_until_complete(run("exit 8")) == 8
        assert other.wait() == 9


# Threads, loops ----------------------------------------------------------------------------------


async def run_many():
    return await asyncio.gather(*(run(f"exit {number}") for number in range(20)))


async def test_many_at_once(loop):
    assert await run_many() == list(range(20))


@pytest.mark.filterwarnings("ignore:.*child_watcher:DeprecationWarning")
async def test_several_loops_at_once(loop, new_loop):
    """In threads, and in this one; elsewhere this has failed for racing with another loop."""

    def body():
        other = new_loop()
        try:
            return other.run_until_complete(run_many())
        finally:
            other.close()

    found = await asyncio.gather(run_many(), *(asyncio.to_thread(body) for _ in range(3)))
    assert found == [list(range(20))] * 4


async def test_no_thread_waits(loop, mioloop_only):
    """On Python 3.11 asyncio has one for each child."""
    before = threading.enumerate()
    process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE)
    assert threading.enumerate() == before
    process.stdin.close()
    assert await process.wait() == 0


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="this is what is done without a pidfd")
@pytest.mark.parametrize("error", [OSError(24, "too many open files"), AttributeError()])
async def test_without_pidfd(loop, monkeypatch, mioloop_only, error):
    def refuse(pid):
        raise error

    monkeypatch.setattr(os, "pidfd_open", refuse)
    process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE)
    assert await process.communicate(b"text") == (b"text", None)
    assert await asyncio.gather(*(run(f"exit {number}") for number in range(5))) == [0, 1, 2, 3, 4]


FORKED = """
import os

async def main():
    cat = await asyncio.create_subprocess_exec("/bin/cat", stdin=-1, stdout=-1)
    pid = await asyncio.to_thread(fork)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert await cat.communicate(b"text") == (b"text", None)
    assert cat.returncode == 0

def fork():
    pid = os.fork()
    if pid:
        return pid
    try:
        loop = new_loop()
        assert loop.run_until_complete(child()) == 3
        loop.close()
        os._exit(0)
    except BaseException as error:
        os.write(2, repr(error).encode())
    os._exit(1)

async def child():
    process = await asyncio.create_subprocess_exec("/bin/sh", "-c", "exit 3")
    return await process.wait()

loop = new_loop()
loop.run_until_complete(main())
loop.run_until_complete(loop.shutdown_default_executor())
loop.close()
"""


def test_a_thread_forks(script):
    """The forked process starts others by a loop of its own; the first loop's child is not its."""
    script.check(FORKED, "-W", "ignore::DeprecationWarning")


# Nothing is left ---------------------------------------------------------------------------------


async def test_a_thousand(loop):
    """No child and no descriptor is left, see the fixtures."""
    for _ in range(25):
        await asyncio.gather(*(run("exit 0", stdin=PIPE, stderr=PIPE) for _ in range(20)))
    for _ in range(500):
        process = await asyncio.create_subprocess_exec("/bin/true")
        assert await process.wait() == 0


async def test_many_that_cannot_be_started(loop):
    for _ in range(300):
        with pytest.raises(FileNotFoundError):
            await asyncio.create_subprocess_exec("/no/such/program", stdin=PIPE, stdout=PIPE)


@pytest.mark.parametrize("command", ["exit 0", "cat", "trap '' TERM; cat"])
async def test_cancelled_at_every_point(loop, mioloop_only, command):
    """The child is killed and reaped, the pipes are closed; in asyncio it may hang."""
    pipes = {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE}
    for turns in range(1, 14):
        starting = loop.create_task(asyncio.create_subprocess_shell(command, **pipes))
        await support.turns(turns)
        starting.cancel()
        try:
            process = await starting
        except asyncio.CancelledError:
            continue
        await process.communicate(b"")
    await support.turns(10)


@pytest.mark.parametrize("command", ["exit 0", "cat"])
async def test_all_tasks_are_cancelled(loop, mioloop_only, command):
    """Also the task that connects the pipes, as at the end of `asyncio.run()`; asyncio may hang."""
    pipes = {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE}
    before = asyncio.all_tasks()
    for turns in range(1, 14):
        starting = loop.create_task(asyncio.create_subprocess_shell(command, **pipes))
        await support.turns(turns)
        for task in asyncio.all_tasks() - before:
            task.cancel()
        try:
            process = await starting
        except asyncio.CancelledError:
            continue
        await process.communicate(b"")
    await support.turns(10)


async def test_pipes_that_cannot_be_connected(loop, monkeypatch, mioloop_only):
    """The child is killed, and the error comes; asyncio hangs before Python 3.14."""
    connect = loop.connect_read_pipe

    async def fail(factory, pipe):
        if len(seen) == 1:
            raise OSError("no more")
        seen.append(pipe)
        return await connect(factory, pipe)

    seen = []
    monkeypatch.setattr(loop, "connect_read_pipe", fail, raising=False)
    with pytest.raises(OSError, match="no more"):
        await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE, stderr=PIPE)
    await support.turns(3)


def no_thread_waits():
    """Those of asyncio on Python 3.11 hold what they waited for."""
    for thread in threading.enumerate():
        if thread.name.startswith("asyncio-waitpid"):
            thread.join()


async def test_a_transport_that_nobody_closed(loop):
    transport, protocol = await loop.subprocess_exec(Protocol, "/bin/true")
    await protocol.ended.wait()
    await support.turns(3)
    no_thread_waits()
    there = [transport]
    del transport
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        there.clear()


async def test_transports_die(loop):
    process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE, stderr=PIPE)
    await process.communicate(b"x")
    await support.turns(3)
    no_thread_waits()
    transport = process._transport
    there = [transport, *(transport.get_pipe_transport(number) for number in range(3))]
    references = [weakref.ref(one) for one in there if one is not None]
    assert references
    del process, transport, there
    gc.collect()
    assert [reference() for reference in references] == [None] * len(references)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_loop_is_closed_before_the_child_ends(new_loop, mioloop_only):
    """The child is killed when the transport is dropped; no descriptor is left."""
    loop = new_loop()
    start = asyncio.create_subprocess_exec("/bin/sleep", "60", stdin=PIPE, stdout=PIPE)
    process = loop.run_until_complete(start)
    pid = process.pid
    loop.close()
    del process, start
    # The transport first, then what it refers to.
    gc.collect()
    gc.collect()
    with contextlib.suppress(ChildProcessError):
        # Unless its `Popen` was in time for that.
        os.waitpid(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
