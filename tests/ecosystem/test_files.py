"""aiofiles, aiobotocore, aiodns, aioconsole in a terminal, aiomonitor."""

import asyncio
import hashlib
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time

import programs
import support
from programs import HOST, library


async def test_aiofiles(loop, tmp_path):
    aiofiles = library("aiofiles")
    aiofiles_os = library("aiofiles.os")

    async def copy(number):
        path = tmp_path / str(number)
        async with aiofiles.open(path, "wb") as file:
            for place in range(20):
                await file.write(b"%d\n" % (number * place))
        async with aiofiles.open(path) as file:
            lines = [int(line) async for line in file]
        await aiofiles_os.remove(path)
        return lines

    found = await asyncio.gather(*(copy(number) for number in range(30)))
    assert found == [[number * place for place in range(20)] for number in range(30)]
    assert await aiofiles_os.listdir(tmp_path) == []


async def test_aiobotocore(loop, loop_name, moto_server):
    session = library("aiobotocore.session").get_session()
    data = support.payload(5 * 2**20)
    async with session.create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=f"http://{HOST}:{moto_server.port}",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    ) as client:
        bucket = f"bucket-{loop_name}"
        await client.create_bucket(Bucket=bucket)
        await client.put_object(Bucket=bucket, Key="large", Body=data)
        answer = await client.get_object(Bucket=bucket, Key="large")
        async with answer["Body"] as stream:
            assert hashlib.sha256(await stream.read()).digest() == hashlib.sha256(data).digest()

        async def keep(number):
            await client.put_object(Bucket=bucket, Key=f"small/{number}", Body=b"%d" % number)

        await asyncio.gather(*(keep(number) for number in range(30)))
        pages = client.get_paginator("list_objects_v2").paginate(
            Bucket=bucket, Prefix="small/", PaginationConfig={"PageSize": 7}
        )
        keys = [entry["Key"] async for page in pages for entry in page["Contents"]]
        assert sorted(keys) == sorted(f"small/{number}" for number in range(30))


async def test_aiodns(loop):
    """Against a name server of the test: pycares' sockets are the loop's readers."""
    aiodns = library("aiodns")

    class NameServer(asyncio.DatagramProtocol):
        def connection_made(self, transport):
            self.transport = transport

        def datagram_received(self, data, peer):
            end = data.index(b"\0", 12) + 5
            answer = data[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + data[12:end]
            answer += b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + bytes([10, 0, 0, data[12]])
            self.transport.sendto(answer, peer)

    transport, _ = await loop.create_datagram_endpoint(NameServer, (HOST, 0))
    port = transport.get_extra_info("sockname")[1]
    resolver = aiodns.DNSResolver([HOST], udp_port=port, tcp_port=port, loop=loop)
    try:
        names = [f"{'x' * size}.example" for size in range(1, 41)]
        found = await asyncio.gather(*(resolver.query_dns(name, "A") for name in names))
        addresses = [answer.answer[0].data.addr for answer in found]
        assert addresses == [f"10.0.0.{size}" for size in range(1, 41)]
    finally:
        await resolver.close()
        transport.close()


class Terminal:
    """A program with a terminal, and what it shows."""

    def __init__(self, words):
        self.master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (40, 120))
        environment = programs.environment(TERM="xterm")
        self.process = subprocess.Popen(
            words,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
        )
        os.close(slave)
        self.shown = ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self.master)

    def wait_for(self, text):
        """Wait until it shows the text; gives what came between the last time and this."""
        deadline = time.monotonic() + 20
        while text not in self.shown:
            assert time.monotonic() < deadline, f"{text!r} is not in {self.shown!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    self.shown += os.read(self.master, 65536).decode(errors="replace")
                except OSError:
                    assert text in self.shown, f"ended without {text!r}: {self.shown!r}"
        before, _, self.shown = self.shown.partition(text)
        return before

    def type(self, text):
        """Type a line."""
        os.write(self.master, text.encode() + b"\n")


def run_words(loop_name, *words):
    run = ["-m", "mioloop", "run"] if loop_name == "mioloop" else []
    return [sys.executable, *run, *words]


def test_aioconsole_in_a_terminal(loop_name, tmp_path):
    library("aioconsole")
    program = tmp_path / "program.py"
    program.write_text(
        "import asyncio, aioconsole\nasyncio.run(aioconsole.interact(banner='hi'))\n"
    )
    with Terminal(run_words(loop_name, str(program))) as terminal:
        terminal.wait_for(">>> ")
        terminal.type("import app")
        terminal.wait_for(">>> ")
        terminal.type("await app.name()")
        terminal.wait_for(f"'{loop_name}'")
        terminal.wait_for(">>> ")
        terminal.type("await asyncio.gather(*(asyncio.sleep(0.01, n) for n in range(5)))")
        terminal.wait_for("[0, 1, 2, 3, 4]")
        terminal.type("exit()")
        assert terminal.process.wait(20) == 0


def test_aioconsole_input(loop_name, tmp_path):
    library("aioconsole")
    program = tmp_path / "program.py"
    program.write_text("""
import asyncio, aioconsole

async def main():
    async def tick():
        while True:
            ticks.append(await asyncio.sleep(0.001))
    ticks = []
    task = asyncio.create_task(tick())
    name = await aioconsole.ainput("name? ")
    await aioconsole.aprint(f"hello, {name}", len(ticks) > 3)
    task.cancel()

asyncio.run(main())
""")
    with Terminal(run_words(loop_name, str(program))) as terminal:
        terminal.wait_for("name? ")
        time.sleep(0.05)
        terminal.type("Ada")
        terminal.wait_for("hello, Ada True")
        assert terminal.process.wait(20) == 0


def test_aiomonitor(loop_name, tmp_path):
    """Its telnet console lists the tasks of a busy loop, and cancels one."""
    library("aiomonitor")
    port, web, console = (programs.free_port() for _ in range(3))
    program = tmp_path / "program.py"
    program.write_text(f"""
import asyncio, aiomonitor

async def victim():
    try:
        await asyncio.sleep(1000)
    except asyncio.CancelledError:
        print("cancelled", flush=True)

async def main():
    task = asyncio.create_task(victim(), name="the victim")
    loop = asyncio.get_running_loop()
    with aiomonitor.start_monitor(
        loop, port={port}, webui_port={web}, console_port={console}, host="127.0.0.1"
    ):
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
""")
    with programs.running(run_words(loop_name, str(program)), tmp_path) as server:
        server.wait_port(port)
        words = ["-m", "aiomonitor.cli", "--host", HOST, "--port", str(port)]
        with Terminal(run_words(loop_name, *words)) as terminal:
            terminal.wait_for(">>> ")
            terminal.type("ps")
            number = re.findall(r"\d{6,}", terminal.wait_for("the victim"))[-1]
            terminal.wait_for(">>> ")
            terminal.type(f"cancel {number}")
            server.wait_for(lambda: "cancelled" in server.printed, "rid of its task")
        assert server.process.poll() is None
