"""Rust futures of an extension, awaited on mioloop, asyncio and uvloop: tokio's and the loop's own.

The extension is `examples/extension`, built here by maturin: it takes a minute the first time.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests import extension as building
from tests import support

import mioloop

pytestmark = pytest.mark.timeout(600)

FACTORIES: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "mioloop": mioloop.new_event_loop,
    "asyncio": asyncio.SelectorEventLoop,
}
try:
    import uvloop
except ImportError:
    pass
else:
    FACTORIES["uvloop"] = uvloop.new_event_loop

KINDS = ["tokio", "loop", "embed"]


@pytest.fixture(scope="session")
def extension(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    module = building.build(tmp_path_factory.mktemp("extension"))

    async def start_tokio() -> None:
        await module.tokio_nap(0, None)

    # Threads and descriptors of tokio's and libuv's that stay as long as the process.
    for factory in FACTORIES.values():
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(start_tokio())
    return module


@pytest.fixture(autouse=True)
def nothing_left_behind(extension: ModuleType) -> Iterator[None]:
    """Fail a test that leaves a descriptor behind; tokio keeps its threads as long as it likes."""
    before = support.open_descriptors().keys()
    yield
    gc.collect()
    # Its sockets are closed by its threads.
    closed = support.wait_until(lambda: support.open_descriptors().keys() <= before)
    assert closed, support.open_descriptors()


@pytest.fixture(params=FACTORIES)
def run(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    with asyncio.Runner(loop_factory=FACTORIES[request.param]) as runner:
        yield runner.run


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write((await reader.read()).upper())
    writer.close()


@asynccontextmanager
async def served() -> AsyncIterator[int]:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def test_tokio_makes_many_calls_at_once(extension: ModuleType, run: Callable[..., Any]) -> None:
    async def main() -> None:
        async with served() as port:
            questions = [extension.ask("127.0.0.1", port, b"question %d" % n) for n in range(200)]
            answers = await asyncio.gather(*questions)
        assert [bytes(text) for text in answers] == [b"QUESTION %d" % n for n in range(200)]

    run(main())


def test_errors_of_tokio_are_raised(extension: ModuleType, run: Callable[..., Any]) -> None:
    async def main() -> None:
        async with served() as port:
            pass
        with pytest.raises(ConnectionRefusedError):
            await extension.ask("127.0.0.1", port, b"anybody?")

    run(main())


def test_a_panic_in_tokio_is_an_exception(
    extension: ModuleType, run: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    async def main() -> None:
        with pytest.raises(Exception, match="rust future panicked"):
            await extension.tokio_panic()
        assert await extension.tokio_nap(0.001, "still there") == "still there"

    run(main())
    assert "a panic of the example's" in capfd.readouterr().err


@pytest.mark.parametrize("kind", KINDS)
def test_naps_run_beside_each_other(
    extension: ModuleType, run: Callable[..., Any], kind: str
) -> None:
    nap = getattr(extension, f"{kind}_nap")

    async def main() -> None:
        start = time.perf_counter()
        values = await asyncio.gather(*(nap(0.1, number) for number in range(1000)))
        assert values == list(range(1000))
        # One after the other they take 100 seconds.
        assert 0.1 <= time.perf_counter() - start < 20

    run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_a_nap_is_cancelled(extension: ModuleType, run: Callable[..., Any], kind: str) -> None:
    nap = getattr(extension, f"{kind}_nap")

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(nap(3600, None), 0.01)
        task = asyncio.ensure_future(nap(3600, None))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


@pytest.mark.parametrize("kind", [*KINDS, "spawn"])
@pytest.mark.parametrize("how", ["itself", "turn", "task", "thread", "stream"])
def test_every_wake_up_counts(
    extension: ModuleType, run: Callable[..., Any], kind: str, how: str
) -> None:
    wakes = getattr(extension, f"{kind}_wakes")

    async def main() -> None:
        counts = await asyncio.gather(*(wakes(number, how) for number in range(50)))
        assert counts == list(range(50))

    run(main())


def test_whose_thread_polls(extension: ModuleType, run: Callable[..., Any]) -> None:
    async def main() -> None:
        of_tokio, of_the_loop, awaited = [await future for future in extension.threads()]
        assert of_the_loop == awaited != of_tokio

    run(main())


def new_process(extension: ModuleType, *arguments: str) -> str:
    """What a new Python with the extension prints."""
    packages = Path(str(extension.__file__)).parent.parent
    paths = [str(packages), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def test_the_demonstration_runs(extension: ModuleType) -> None:
    printed = new_process(extension, str(building.SOURCE / "demo.py"))
    assert printed.startswith("QUESTION 99\n300 naps and 100 questions took ")


@pytest.mark.parametrize("kind", ["loop", "embed"])
def test_the_loops_own_futures_start_no_thread(extension: ModuleType, kind: str) -> None:
    if not os.path.isdir("/proc/self/task"):
        pytest.skip("the threads of a process are counted in /proc")
    # In a new process: tokio has its threads in this one.
    code = f"""
import asyncio, os
import example_extension, mioloop
async def main():
    await asyncio.gather(*(example_extension.{kind}_nap(0.01, None) for _ in range(100)))
    print(len(os.listdir("/proc/self/task")))
mioloop.run(main())
"""
    assert new_process(extension, "-c", code) == "1\n"


@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_awaits_leave_nothing(
    extension: ModuleType, run: Callable[..., Any], kind: str
) -> None:
    nap = getattr(extension, f"{kind}_nap")

    class Value:
        pass

    async def main() -> None:
        value = Value()
        values = await asyncio.gather(*(nap(0.01, value) for _ in range(10_000)))
        assert all(one is value for one in values)

    run(main())
    deadline = time.monotonic() + 20
    # tokio's threads let go of their futures when they come to it.
    while any(isinstance(thing, Value) for thing in gc.get_objects()):
        assert time.monotonic() < deadline, "a value is left"
        if kind == "tokio":
            # Without Python's lock: PyO3 drops it when the extension is entered the next time.
            with pytest.raises(ValueError, match="negative"):
                nap(-1, None)
        gc.collect()
        threading.Event().wait(0.01)
    gc.collect()
    assert not any(type(thing).__name__ == "RustFuture" for thing in gc.get_objects())


@pytest.mark.parametrize("kind", KINDS)
def test_a_future_may_outlive_its_loop(
    extension: ModuleType, kind: str, recwarn: pytest.WarningsRecorder
) -> None:
    nap = getattr(extension, f"{kind}_nap")

    async def begin() -> None:
        # A task would have to be cancelled: that is another test.
        begun = nap(0.01, None)
        begun.send(None) if kind == "embed" else begun
        await asyncio.sleep(0)

    async def outlast() -> None:
        await extension.tokio_nap(0.02, None)
        await asyncio.sleep(0.01)

    for factory in FACTORIES.values():
        loop = factory()
        loop.run_until_complete(begin())
        loop.close()
        gc.collect()
        # When its timer is over, tokio finds a loop that is closed, and says so.
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(outlast())
    assert not [str(warning.message) for warning in recwarn]
