"""asyncio stays as it is: importing and using mioloop rebinds nothing in it.

Owns a look at every name of asyncio's modules and classes, taken in a process of its own before
mioloop is imported there and again after it was used.

Rules: what asyncio's own loop changes when it does the same work is not counted.
"""

from __future__ import annotations

import asyncio
import pkgutil

from processes import Script

LOOK = """
import importlib, signal, sys

modules = {name: importlib.import_module(name) for name in NAMES}

def look():
    found = {}
    for name, module in modules.items():
        found[name] = dict(vars(module))
        for value in vars(module).values():
            if isinstance(value, type) and value.__module__.startswith(("asyncio", "_asyncio")):
                found[f"{value.__module__}.{value.__qualname__}"] = dict(vars(value))
    return found

def changes(old):
    new, absent = look(), object()
    for place in sorted(old.keys() | new.keys()):
        olds, news = old.get(place, {}), new.get(place, {})
        for name in sorted(olds.keys() | news.keys()):
            if olds.get(name, absent) is not news.get(name, absent):
                yield f"{place}.{name}"

async def serve(reader, writer):
    writer.write(await reader.readline())
    await writer.drain()
    writer.close()

async def main():
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, print)
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"line\\n")
        assert await reader.readline() == b"line\\n"
        writer.close()
        await writer.wait_closed()
    udp, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, ("127.0.0.1", 0))
    udp.close()
    await asyncio.to_thread(int)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await process.wait()

with asyncio.Runner(loop_factory=new_loop) as runner:
    runner.run(main())
before = look()
"""

USE = """
import mioloop

mioloop.run(main())
mioloop.run(main(), debug=True)
if "EventLoopPolicy" in mioloop.__all__:
    mioloop.EventLoopPolicy().new_event_loop().close()
print(*changes(before))
"""

REBIND = """
asyncio.Handle._run = asyncio.run
asyncio.tasks.more = None
print(*changes(before))
"""


def names() -> str:
    """asyncio's modules that this system can import, as a line of the script."""
    skipped = ("asyncio.__main__", "asyncio.proactor", "asyncio.windows")
    found = [info.name for info in pkgutil.iter_modules(asyncio.__path__, "asyncio.")]
    found = [name for name in found if not name.startswith(skipped)]
    return f"NAMES = {['asyncio', '_asyncio', *found]}\n"


def test_nothing_in_asyncio_is_rebound(loop_name: str, mioloop_only: None) -> None:
    # The script imports mioloop itself, when it has had its look at asyncio.
    script = Script("asyncio")
    output = script.check(names() + LOOK + USE)
    script.finish()
    assert output == "\n"


def test_the_look_sees_what_is_rebound() -> None:
    script = Script("asyncio")
    output = script.check(names() + LOOK + REBIND)
    script.finish()
    assert output == "asyncio.events.Handle._run asyncio.tasks.more\n"
