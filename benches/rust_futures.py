"""Wake-ups of Rust futures: on the loop's own thread, and by tokio through pyo3-async-runtimes.

    .venv/bin/python benches/rust_futures.py [--count 1000000] [--rounds 3] [--only awaits,gather]

Needs mioloop (a release wheel), maturin and a Rust toolchain: it builds `examples/extension` in
release first. The Rust code that is woken is the same in all columns; only what runs it differs:

    tokio   pyo3_async_runtimes::tokio::future_into_py: a task of tokio, in its default runtime
    loop    pyo3_async_runtimes::generic::future_into_py::<mioloop::runtime::LoopRuntime>
    spawn   mioloop::embed::spawn: a task of the loop
    embed   mioloop::embed::into_awaitable: polled in the step of the Python task that awaits it

Workloads, each with so many wake-ups in all:

    awaits  Python awaits futures one after the other; each gives up its turn once
    gather  as awaits, a thousand at once by asyncio.gather
    turns   Python awaits one future that gives up its turn again and again
    wakes   as turns, but it wakes itself while it is polled: a runtime may poll it again at once
    tasks   Python awaits one future that another one wakes, which waits for each answer
    stream  Python awaits one future that takes what another thread sends, which does not wait
    thread  Python awaits one future that another thread wakes, which waits for each answer

In the column embed, turns are turns of Python's callbacks, whose cost is asyncio's; elsewhere they
are those of other Rust futures.

What it does not show: tokio has several threads, and Rust code that computes for long runs on them
beside Python; here a wake-up does next to nothing. Rates are by wall time, medians of the rounds,
with the lowest and the highest of the ratios in a round.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

KINDS = ["embed", "spawn", "loop"]
COLUMNS = [
    ("embed", "mioloop"),
    ("spawn", "mioloop"),
    ("loop", "mioloop"),
    ("tokio", "mioloop"),
    ("tokio", "asyncio"),
    ("tokio", "uvloop"),
    ("embed", "asyncio"),
]
WORKLOADS = ["awaits", "gather", "turns", "wakes", "tasks", "stream", "thread"]
# Of the wake-ups that were asked for: a wake-up by a thread is two switches between threads.
SHARE = {"thread": 0.1}
AT_ONCE = 1000


def new_loop(name: str) -> asyncio.AbstractEventLoop:
    if name == "asyncio":
        return asyncio.SelectorEventLoop()
    module = __import__(name)
    return module.new_event_loop()


def sample(kind: str, loop: str, workload: str, count: int) -> float:
    """The seconds that a workload takes, in this process."""
    import example_extension

    wakes = getattr(example_extension, f"{kind}_wakes")

    async def awaits(count: int) -> None:
        for _ in range(count):
            await wakes(1, "turn")

    async def gather(count: int) -> None:
        for _ in range(count // AT_ONCE):
            await asyncio.gather(*[wakes(1, "turn") for _ in range(AT_ONCE)])

    async def one(count: int, how: str) -> None:
        assert await wakes(count, how) == count

    async def main() -> float:
        run = {
            "awaits": awaits,
            "gather": gather,
            "turns": lambda count: one(count, "turn"),
            "wakes": lambda count: one(count, "itself"),
            "tasks": lambda count: one(count, "task"),
            "stream": lambda count: one(count, "stream"),
            "thread": lambda count: one(count, "thread"),
        }[workload]
        await run(AT_ONCE)
        start = time.perf_counter()
        await run(count)
        return time.perf_counter() - start

    with asyncio.Runner(loop_factory=lambda: new_loop(loop)) as runner:
        return runner.run(main())


def measure(folder: str, kind: str, loop: str, workload: str, count: int) -> float:
    """The rate of a workload in a new process, wake-ups per second."""
    arguments = [folder, kind, loop, workload, str(count)]
    command = [sys.executable, __file__, "--sample", json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return count / float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=1_000_000, help="wake-ups of a sample")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(WORKLOADS), help="workloads, by commas")
    parser.add_argument("--extension", help="a folder with the built extension; built by default")
    parser.add_argument("--sample", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.sample:
        folder, kind, loop, workload, count = json.loads(options.sample)
        sys.path.insert(0, folder)
        print(sample(kind, loop, workload, int(count)), flush=True)
        # A thread of tokio's that is still on its way to the interpreter would find it taken apart.
        os._exit(0)
    with tempfile.TemporaryDirectory() as made:
        folder = options.extension
        if folder is None:
            from tests import extension

            extension.build(Path(made), "release")
            folder = str(Path(made, "unpacked"))
        show(folder, options.only.split(","), options.count, options.rounds)


def show(folder: str, workloads: list[str], count: int, rounds: int) -> None:
    print(
        f"{'thousand wake-ups a second':<28}", *(f"{kind} on {loop:<8}" for kind, loop in COLUMNS)
    )
    for workload in workloads:
        own = int(count * SHARE.get(workload, 1))
        rates: dict[tuple[str, str], list[float]] = {column: [] for column in COLUMNS}
        for _ in range(rounds):
            for column in COLUMNS:
                rates[column].append(measure(folder, *column, workload, own))
        medians = {column: statistics.median(values) for column, values in rates.items()}
        print(
            f"{workload:<28}",
            *(f"{medians[column] / 1000:>{len(column[0]) + 12}.1f}" for column in COLUMNS),
            flush=True,
        )
        for kind in KINDS:
            ratios = []
            for loop in ("mioloop", "asyncio", "uvloop"):
                pairs = zip(rates[kind, "mioloop"], rates["tokio", loop], strict=True)
                each = sorted(mine / tokio for mine, tokio in pairs)
                ratio = f"{statistics.median(each):.1f}x ({each[0]:.1f} to {each[-1]:.1f})"
                ratios.append(f"{ratio} tokio on {loop}")
            print(f"  {kind} on mioloop is", ", ".join(ratios), flush=True)


if __name__ == "__main__":
    main()
