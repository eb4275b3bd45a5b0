"""Subprocesses: starting them in every way, talking to them, and their ends."""

import asyncio
import contextlib
import fcntl
import os
import pathlib
import socket
import stat
import subprocess
import sys

import pytest

import support

PIPE = subprocess.PIPE
ROOT = os.getuid() == 0
pytestmark = pytest.mark.usefixtures("no_child_left")


async def output_of(*command, **keywords):
    """What a command prints, without the last line end; it must end well."""
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, **keywords)
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode().removesuffix("\n")


async def python(code, **keywords):
    """What a piece of Python prints."""
    return await output_of(sys.executable, "-S", "-c", code, **keywords)


# Starting ----------------------------------------------------------------------------------------


async def test_a_command(loop):
    code = "import sys; print(sys.stdin.read().upper()); sys.exit(3)"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdin=PIPE, stdout=PIPE
    )
    output, error = await process.communicate(b"hello")
    assert (output, error) == (b"HELLO\n", None)
    assert process.returncode == 3


async def test_a_shell(loop):
    process = await asyncio.create_subprocess_shell("echo $0 >&2; exit 2", stderr=PIPE)
    output, error = await process.communicate()
    assert output is None
    assert error.strip()
    assert process.returncode == 2


@pytest.mark.parametrize("kind", [str, os.fsencode, pathlib.Path])
async def test_kinds_of_arguments(loop, kind, tmp_path):
    (tmp_path / "dir").mkdir()
    assert await output_of(kind("/bin/echo"), kind("text")) == "text"
    assert await output_of("/bin/pwd", cwd=kind(str(tmp_path / "dir"))) == str(tmp_path / "dir")
    assert await output_of("name", "-c", "echo $0", executable=kind("/bin/sh")) == "name"
    if kind is not pathlib.Path:
        process = await asyncio.create_subprocess_shell(kind("exit 5"))
        assert await process.wait() == 5


async def test_environment_and_session(loop):
    assert await python("import os; print(os.environ['A'])", env={"A": "b"}) == "b"
    assert await python("import os; print(os.environ['A'])", env={b"A": b"c"}) == "c"
    ask = "import os; print(os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid())"
    assert await python(ask) == "False False"
    assert await python(ask, start_new_session=True) == "True True"
    assert await python(ask, process_group=0) == "False True"
    assert await python("import os; print(os.umask(0))", umask=0o27) == str(0o27)


async def test_a_function_before_the_program(loop):
    first, second = os.pipe()
    assert await output_of("/bin/echo", "x", preexec_fn=lambda: os.write(second, b"y")) == "x"
    assert os.read(first, 10) == b"y"
    os.close(first)
    os.close(second)
    with pytest.raises(subprocess.SubprocessError, match="preexec_fn"):
        await asyncio.create_subprocess_exec("/bin/true", stdin=PIPE, preexec_fn=lambda: 1 / 0)


@pytest.mark.skipif(not ROOT, reason="only root may become somebody else")
async def test_user_and_groups(loop):
    ask = "import os; print(os.getuid(), os.getgid(), os.getgroups())"
    # The interpreter need not be readable for them.
    chosen = {"user": 1001, "group": 1002, "extra_groups": [1003]}
    command = "id -u; id -g; id -G"
    process = await asyncio.create_subprocess_shell(command, stdout=PIPE, **chosen)
    output, _ = await process.communicate()
    user, group, groups = output.decode().splitlines()
    assert (user, group, set(groups.split())) == ("1001", "1002", {"1002", "1003"})
    assert await output_of("/usr/bin/id", "-un", user="nobody") == "nobody"
    assert await python(ask) == f"{os.getuid()} {os.getgid()} {os.getgroups()}"


async def test_descriptors_of_the_child(loop):
    first, second = os.pipe()
    code = (
        f"import os; os.write({second}, b'passed'); print(sorted(map(int, os.listdir('/dev/fd'))))"
    )
    shown = await python(code, pass_fds=[second])
    assert os.read(first, 10) == b"passed"
    os.set_inheritable(first, True)
    assert str(first) not in shown.strip("[]").split(", ")
    code = f"import os; os.fstat({first}); print('there')"
    assert await python(code, close_fds=False) == "there"
    os.close(first)
    os.close(second)


async def test_standard_streams(loop, tmp_path):
    """Files, sockets, descriptors, and one stream as the other."""
    path = tmp_path / "file"
    with path.open("wb+") as file:
        code = "echo out; echo error >&2"
        process = await asyncio.create_subprocess_shell(code, stdout=file, stderr=file.fileno())
        assert await process.wait() == 0
        assert path.read_bytes() == b"out\nerror\n"
        file.seek(0)
        assert await output_of("/bin/cat", stdin=file) == "out\nerror"
    process = await asyncio.create_subprocess_shell(code, stdout=PIPE, stderr=subprocess.STDOUT)
    assert (await process.communicate())[0] == b"out\nerror\n"
    null = subprocess.DEVNULL
    process = await asyncio.create_subprocess_shell("cat", stdin=null, stdout=null, stderr=null)
    assert await process.wait() == 0
    ours, theirs = socket.socketpair()
    with ours:
        process = await asyncio.create_subprocess_exec("/bin/cat", stdin=theirs, stdout=theirs)
        theirs.close()
        ours.send(b"through a socket")
        ours.shutdown(socket.SHUT_WR)
        assert await process.wait() == 0
        assert ours.recv(100) == b"through a socket"


@pytest.mark.skipif(not hasattr(fcntl, "F_GETPIPE_SZ"), reason="pipes have no size here")
async def test_the_size_of_pipes(loop):
    process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, pipesize=8192)
    pipe = process._transport.get_pipe_transport(0).get_extra_info("pipe")
    assert stat.S_ISFIFO(os.fstat(pipe.fileno()).st_mode)
    assert fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) == 8192
    await process.communicate(b"")


async def test_what_cannot_be_started(loop, tmp_path):
    """The error names the file, and nothing is left."""
    (tmp_path / "file").touch()
    for name, kind in (("missing", FileNotFoundError), ("file", PermissionError)):
        program = str(tmp_path / name)
        for keywords in ({}, {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE}):
            with pytest.raises(kind) as caught:
                await asyncio.create_subprocess_exec(program, **keywords)
            assert caught.value.filename == program
    for name, kind in (("nowhere", FileNotFoundError), ("file", NotADirectoryError)):
        with pytest.raises(kind) as caught:
            await asyncio.create_subprocess_exec("/bin/true", cwd=str(tmp_path / name))
        assert caught.value.filename == str(tmp_path / name)
    with pytest.raises(PermissionError) as caught:
        await asyncio.create_subprocess_exec(tmp_path, stdout=PIPE)
    assert os.fspath(caught.value.filename) == str(tmp_path)
    with pytest.raises(ValueError, match="null"):
        await asyncio.create_subprocess_exec("/bin/echo", "\0", stdout=PIPE)


REFUSED = {
    "universal_newlines": (True, "universal_newlines must be False"),
    "bufsize": (1, "bufsize must be 0"),
    "text": (True, "text must be False"),
    "encoding": ("utf-8", "encoding must be None"),
    "errors": ("strict", "errors must be None"),
}


async def test_what_asyncio_refuses(loop):
    for name, (value, text) in REFUSED.items():
        with pytest.raises(ValueError, match=rf"^{text}$"):
            await asyncio.create_subprocess_exec("/bin/true", **{name: value})
        with pytest.raises(ValueError, match=rf"^{text}$"):
            await asyncio.create_subprocess_shell("true", **{name: value})
    with pytest.raises(ValueError, match=r"^shell must be False$"):
        await asyncio.create_subprocess_exec("/bin/true", shell=True)
    with pytest.raises(ValueError, match=r"^shell must be True$"):
        await asyncio.create_subprocess_shell("true", shell=False)
    with pytest.raises(ValueError, match=r"^cmd must be a string$"):
        await asyncio.create_subprocess_shell(["true"])
    with pytest.raises(TypeError, match="unexpected keyword argument 'unknown'"):
        await asyncio.create_subprocess_exec("/bin/true", unknown=1)


# Talking -----------------------------------------------------------------------------------------


async def test_much_both_ways(loop):
    data = support.payload(1 << 20) * 30
    process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE)
    output, _ = await process.communicate(data)
    assert output == data


async def test_all_streams_at_once(loop):
    code = "import sys; data = sys.stdin.buffer.read(); sys.stdout.buffer.write(data * 2);"
    code += "sys.stderr.buffer.write(data[::-1])"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-S", "-c", code, stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    data = support.payload(1 << 20)
    assert await process.communicate(data) == (data * 2, data[::-1])


async def test_lines(loop):
    code = "while read line; do echo $line $line; done"
    process = await asyncio.create_subprocess_shell(code, stdin=PIPE, stdout=PIPE)
    for number in range(20):
        process.stdin.write(b"%d\n" % number)
        await process.stdin.drain()
        assert await process.stdout.readline() == b"%d %d\n" % (number, number)
    process.stdin.close()
    await process.stdin.wait_closed()
    assert await process.stdout.read() == b""
    assert await process.wait() == 0


async def test_reading_slowly(loop):
    """The child waits while nobody reads."""
    process = await asyncio.create_subprocess_exec(
        "head", "-c", "3000000", "/dev/zero", stdout=PIPE
    )
    await support.turns(10)
    count = 0
    while data := await process.stdout.read(1000):
        count += len(data)
    assert count == 3_000_000
    assert await process.wait() == 0


async def test_talking_to_a_process_that_has_ended(loop):
    """Writing to it fails silently: `communicate` gives what there is."""
    process = await asyncio.create_subprocess_exec("/bin/true", stdin=PIPE, stdout=PIPE)
    await process.wait()
    assert await process.communicate(b"x" * 100_000) == (b"", None)


async def test_a_child_that_closes_its_input(loop):
    """That is noticed while nothing is written."""
    first, second = os.pipe()
    code = f"import os; os.close(0); print('closed', flush=True); os.read({first}, 1)"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-S", "-c", code, stdin=PIPE, stdout=PIPE, pass_fds=[first]
    )
    os.close(first)
    assert await process.stdout.readline() == b"closed\n"
    with contextlib.suppress(BrokenPipeError):
        await process.stdin.wait_closed()
    assert process.returncode is None
    os.close(second)
    assert await process.wait() == 0
