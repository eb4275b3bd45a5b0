"""The command line: ``python -m tests.conformance``, from the repository root.

Runs CPython's ``test.test_asyncio`` on a loop and exits with 0 when nothing failed.

    --loop mioloop|asyncio|MODULE:FACTORY   the loop under test (mioloop)
    --jobs N                                test modules at once (number of processors)
    --only MODULE[.Class[.test]]            run only this; may be given several times
    --timeout SECONDS                       how long one test may take (60)
    --run-excluded                          run what the list of exclusions leaves out
    --json FILE                             write all results to FILE
    -v                                      print every test

Rules: `asyncio` is the baseline, and nothing is injected for it.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .child import Job
from .module_run import ModuleRun, ModuleVerdict
from .process import stop_all
from .report import Report
from .selection import DEFAULT_FILE, SelectionError, load


def find_modules(package: str) -> list[Path]:
    """Return the files of a test package's modules; raises SystemExit without one."""
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(
            f"{package} is not installed with this Python ({sys.executable}): "
            "distributions often put it into a package of its own"
        )
    files = [
        path
        for location in spec.submodule_search_locations
        for path in Path(location).glob("test_*.py")
    ]
    return sorted(files)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance",
        description="Run CPython's own asyncio tests on another event loop.",
    )
    parser.add_argument("--loop", default="mioloop", help="mioloop, asyncio or module:factory")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument(
        "--only", action="append", default=[], metavar="MODULE[.Class[.test]]", help="repeatable"
    )
    parser.add_argument(
        "--timeout", type=float, default=60.0, metavar="SECONDS", help="for one test (60)"
    )
    parser.add_argument(
        "--run-excluded", action="store_true", help="run the excluded tests, and only those"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results to FILE")
    parser.add_argument("-v", "--verbose", action="store_true", help="print every test")
    parser.add_argument(
        "--package", default="test.test_asyncio", help="the test package (test.test_asyncio)"
    )
    parser.add_argument(
        "--rules", type=Path, default=DEFAULT_FILE, metavar="FILE", help="the list of exclusions"
    )
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        parser.error("--jobs must be at least 1")
    if options.timeout <= 0:
        parser.error("--timeout must be positive")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for; returns the exit code."""
    options = parse(arguments)
    try:
        rules = load(options.rules)
    except SelectionError as error:
        raise SystemExit(str(error)) from None
    files = find_modules(options.package)
    if options.only:
        wanted = {name.split(".")[0] for name in options.only}
        if unknown := wanted - {path.stem for path in files}:
            raise SystemExit(f"no such test module: {', '.join(sorted(unknown))}")
        files = [path for path in files if path.stem in wanted]
    report = Report(options.loop, is_verbose=options.verbose)
    report.begin(options.package, len(files))

    def run(path: Path) -> ModuleVerdict:
        job = Job(
            package=options.package,
            module=path.stem,
            loop=options.loop,
            rules=str(options.rules.resolve()),
            only=[name for name in options.only if name.split(".")[0] == path.stem],
            run_excluded=options.run_excluded,
        )
        verdict = ModuleRun(job, rules, options.timeout, report.on_outcome).run()
        report.on_module(verdict)
        return verdict

    # The largest files first, so that the last one running is a short one.
    files.sort(key=lambda path: -path.stat().st_size)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # A shell has what it starts in the background ignore SIGINT, and so would the children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    pool = ThreadPoolExecutor(options.jobs)
    try:
        modules = sorted(pool.map(run, files), key=lambda verdict: verdict.module)
    except KeyboardInterrupt:
        stop_all()
        pool.shutdown(cancel_futures=True)
        raise SystemExit("interrupted") from None
    if options.json is not None:
        report.write_json(options.json, modules)
    if not any(module.tests for module in modules):
        raise SystemExit("no test was found")
    return 0 if report.end(modules) else 1


if __name__ == "__main__":
    sys.exit(main())
