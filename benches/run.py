"""The full-size benchmark: `python benches/run.py [--no-floor] [OPTIONS of the command]`.

Owns the floor: it builds the Rust echo server and lets it take part.

Rules: mioloop comes from the environment, installed as a release build; nothing is taken from the
source tree but what lies in this directory.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from extra_suite import WORKLOADS

from mioloop.bench import cli
from mioloop.bench.model import Contender

HERE = Path(__file__).resolve().parent
TARGET = HERE.parent / "target" / "echo_floor"
NO_FLOOR = "--no-floor"
ONLY_LOOKING = {"--list", "--help", "-h"}


def build_floor() -> list[Contender]:
    """Build the Rust echo server. Without cargo, or off Linux, there is no floor."""
    if sys.platform != "linux" or shutil.which("cargo") is None:
        print("no floor: it needs Linux and cargo", file=sys.stderr)
        return []
    manifest = HERE / "floor" / "Cargo.toml"
    build = ["cargo", "build", "--release", "--quiet", "--locked"]
    subprocess.run([*build, "--manifest-path", manifest, "--target-dir", TARGET], check=True)
    return [Contender("floor", program=(str(TARGET / "release" / "echo_floor"),))]


def main(argv: list[str]) -> int:
    """Build what is needed and run the benchmark."""
    options = [argument for argument in argv if argument != NO_FLOOR]
    programs = [] if {NO_FLOOR, *ONLY_LOOKING} & set(argv) else build_floor()
    return cli.main(options, WORKLOADS, programs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
