"""What importing an event loop costs, by `python -X importtime`: `python benches/import_time.py`.

Each sample is a new Python that imports asyncio, which a program of coroutines has anyway, and then
one package. The figure is what that import took, with all that it imports; packages take turns. It
says nothing about the first import ever, which reads from the disk and writes `.pyc` files.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import statistics
import subprocess
import sys


def sample(package: str) -> tuple[int, int]:
    """The microseconds of one import, and the number of modules that it brought."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", f"import asyncio\nimport {package}"],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = re.findall(r"^import time: +\d+ \| +(\d+) \|( +)(\S+)$", done.stderr, re.MULTILINE)
    # A module stands after what it imports, which is indented; asyncio's comes first.
    names = [name for _, _, name in lines]
    after = lines[names.index("asyncio") + 1 :]
    (took,) = (int(took) for took, _, name in after if name == package)
    return took, len(after)


def main() -> None:
    """Measure, and print a row for each package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", nargs="*", default=["mioloop", "uvloop", "rloop"])
    parser.add_argument("--rounds", type=int, default=25)
    options = parser.parse_args()
    there = [name for name in options.packages if importlib.util.find_spec(name)]
    for name in there:
        sample(name)
    samples = {name: [] for name in there}
    for _ in range(options.rounds):
        for name in there:
            samples[name].append(sample(name))
    for name, found in samples.items():
        took = sorted(took for took, _ in found)
        print(
            f"{name:8} {statistics.median(took) / 1000:6.2f} ms "
            f"({took[0] / 1000:.2f} to {took[-1] / 1000:.2f}), {found[0][1]} modules"
        )


if __name__ == "__main__":
    main()
