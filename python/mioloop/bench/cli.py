"""The command line of the benchmark.

Owns the options, the choice of loops and workloads, and the exit status.

Rules: everything that can be wrong with the arguments is said before the first measurement. Figures
go to standard output, all else to standard error.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from mioloop.bench import machine, plot, runner, suite, table
from mioloop.bench.model import Contender, Workload, resolve
from mioloop.bench.progress import Progress
from mioloop.bench.results import Results

FACTORIES = {
    # Named in full: an event loop policy that was set in this environment must not matter.
    "asyncio": "asyncio:SelectorEventLoop",
    "mioloop": "mioloop:new_event_loop",
    "uvloop": "uvloop:new_event_loop",
    "rloop": "rloop:new_event_loop",
}
ALWAYS = ("asyncio", "mioloop")
EXTRA = "pip install 'mioloop[bench]'"
PROGRAM = "mioloop bench"

FULL = runner.Plan(rounds=7, seconds=0.4, timeout=15)
# A minute, with room for the slower parts of a machine.
QUICK = runner.Plan(rounds=3, seconds=0.08, timeout=5, budget=50)
BUSY_LOAD = 0.5


class UsageError(Exception):
    """The command cannot do what was asked. The text is for the person who asked."""


def main(
    argv: list[str],
    workloads: Sequence[Workload] = suite.WORKLOADS,
    programs: Sequence[Contender] = (),
) -> int:
    """Run the benchmark.

    Args:
        argv: the arguments.
        workloads: what can be measured.
        programs: server programs that are compared beside the loops.

    Returns:
        The exit status: 0 success, 1 when mioloop or the reference failed a workload, 2 wrong usage
        or something that is not installed, 130 after Ctrl-C.

    Raises:
        SystemExit: `--help` was asked for, the arguments are wrong, or a termination signal came.
    """
    options = _parse(argv)
    ends = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, _leave) for number in ends]
    try:
        return _run(options, workloads, programs)
    except UsageError as refusal:
        print(f"{PROGRAM}: error: {refusal}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    finally:
        for number, handler in zip(ends, before, strict=True):
            signal.signal(number, handler)


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    """Leave by an exception, so that the children are ended."""
    raise SystemExit(128 + number)


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Compare event loops on real work. asyncio and mioloop always take part.",
        epilog="The exit status is 1 when mioloop or the reference failed a workload.",
    )
    add = parser.add_argument
    add(
        "--loops",
        action="append",
        metavar="LIST",
        help="what else takes part, comma separated:"
        " uvloop, rloop, module:factory or name=module:factory (default: uvloop and rloop, where"
        " they are installed)",
    )
    add(
        "--only",
        action="append",
        metavar="PATTERNS",
        help="measure only these workloads: shell patterns or parts of names, comma separated",
    )
    add("--quick", action="store_true", help="end within a minute; rougher figures")
    add("--rounds", type=_positive_int, metavar="N", help="measure everything N times")
    add("--seconds", type=_positive_float, metavar="S", help="measure for S seconds per sample")
    add("--reference", default="asyncio", metavar="LOOP", help="compare with this loop")
    add("--json", type=Path, metavar="FILE", help="write all samples to a JSON file")
    add("--plot", type=Path, metavar="FILE", help="draw the ratios: FILE ends in .png or .svg")
    add("--list", action="store_true", help="list the workloads and end")
    return parser.parse_args(argv)


def _positive_int(text: str) -> int:
    if (number := int(text)) > 0:
        return number
    raise argparse.ArgumentTypeError("must be 1 or more")


def _positive_float(text: str) -> float:
    if (number := float(text)) > 0:
        return number
    raise argparse.ArgumentTypeError("must be more than 0")


def _run(
    options: argparse.Namespace, known: Sequence[Workload], programs: Sequence[Contender]
) -> int:
    workloads = _choose_workloads(known, options.only)
    if options.list:
        for workload in workloads:
            print(f"{workload.name:28} {workload.summary}")
        return 0
    contenders = [*_choose_loops(options.loops), *programs]
    names = [contender.name for contender in contenders]
    if options.reference not in names:
        raise UsageError(f"--reference {options.reference}: taking part are {', '.join(names)}")
    _check_files(options.json, options.plot)
    workloads = _leave_out(workloads)

    usual = QUICK if options.quick else FULL
    seconds = options.seconds or usual.seconds
    plan = runner.Plan(
        rounds=options.rounds or usual.rounds,
        seconds=seconds,
        timeout=max(usual.timeout, 10 * seconds),
        budget=usual.budget,
    )
    processors = machine.choose_processors()
    about = machine.describe(
        contender.spec.partition(":")[0] for contender in contenders if contender.spec
    )
    about |= {"pinning": processors.describe(), "seconds": plan.seconds}
    results = Results(workloads, contenders, options.reference, about)
    steps = plan.rounds * sum(w.suits(c) for w in workloads for c in contenders)

    _introduce(results)
    measured = runner.run(results, plan, processors, Progress(sys.stderr, steps))
    about["rounds"] = measured
    if measured < plan.rounds:
        _note(f"{measured} of {plan.rounds} rounds, to end within a minute")
    print(table.render(results), end="")
    if options.json:
        results.write_json(options.json)
    if options.plot:
        plot.draw(results, options.plot)
    return int(any(results.has_failed(name) for name in {"mioloop", options.reference}))


def _choose_workloads(known: Sequence[Workload], patterns: list[str] | None) -> list[Workload]:
    wanted = _split(patterns)
    names = [workload.name for workload in known]
    chosen: set[str] = set()
    for pattern in wanted:
        matching = [name for name in names if _matches(name, pattern)]
        if not matching:
            raise UsageError(f"--only {pattern}: no such workload; --list shows them")
        # A whole name is not a part of a longer one.
        chosen |= {pattern} if pattern in names else set(matching)
    return [workload for workload in known if not wanted or workload.name in chosen]


def _matches(name: str, pattern: str) -> bool:
    is_part = not set(pattern) & set("*?[") and pattern in name
    return is_part or fnmatch.fnmatchcase(name, pattern)


def _split(lists: list[str] | None) -> list[str]:
    return [item for text in lists or () for item in text.split(",") if item]


def _choose_loops(lists: list[str] | None) -> list[Contender]:
    factories = {name: FACTORIES[name] for name in ALWAYS}
    if lists is None:
        factories |= {
            name: spec
            for name, spec in FACTORIES.items()
            if name not in ALWAYS and _why_not_importable(name) is None
        }
    for item in _split(lists):
        name, equals, spec = item.partition("=")
        if not equals:
            spec = FACTORIES.get(item, item)
            name = item.partition(":")[0]
        if ":" not in spec:
            raise UsageError(
                f"--loops {item}: not one of {', '.join(FACTORIES)}, nor module:factory"
            )
        factories[name] = spec
    for spec in factories.values():
        _check_factory(spec)
    return [Contender(name, spec) for name, spec in factories.items()]


def _check_factory(spec: str) -> None:
    try:
        factory = resolve(spec)
    except Exception as error:
        raise UsageError(f"loop {spec}: {type(error).__name__}: {error}") from error
    if not callable(factory):
        raise UsageError(f"loop {spec}: not callable")


def _why_not_importable(module: str) -> str | None:
    try:
        importlib.import_module(module)
    except ImportError as error:
        return str(error)
    return None


def _check_files(json_file: Path | None, plot_file: Path | None) -> None:
    for option, path in (("--json", json_file), ("--plot", plot_file)):
        if path is not None and not path.absolute().parent.is_dir():
            raise UsageError(f"{option} {path}: no such directory")
    if plot_file is None:
        return
    if plot_file.suffix not in plot.SUFFIXES:
        raise UsageError(f"--plot {plot_file}: the name must end in {' or '.join(plot.SUFFIXES)}")
    if _why_not_importable("matplotlib") is not None:
        raise UsageError(f"--plot needs matplotlib: {EXTRA}")


def _leave_out(workloads: Iterable[Workload]) -> list[Workload]:
    """Leave out what needs a module that is not installed, and say so in one line."""
    kept: list[Workload] = []
    missing: dict[str, list[str]] = {}
    for workload in workloads:
        absent = [module for module in workload.needs if _why_not_importable(module) is not None]
        for module in absent:
            missing.setdefault(module, []).append(workload.name)
        if not absent:
            kept.append(workload)
    if missing:
        names = sorted({name for left_out in missing.values() for name in left_out})
        _note(f"without {', '.join(names)}: {', '.join(missing)} is not installed: {EXTRA}")
    if not kept:
        raise UsageError("nothing is left to measure")
    return kept


def _introduce(results: Results) -> None:
    about = results.about
    versions = about["versions"]
    loops = [f"{c.name} {versions.get(c.spec.partition(':')[0], '')}" for c in results.contenders]
    print(f"Python {about['python']}, {about['system']}, {about['cpus']} CPUs, {about['pinning']}")
    print(f"Loops: {', '.join(loop.strip() for loop in loops)}\n", flush=True)
    if about["load_average"] > about["cpus"] * BUSY_LOAD:
        _note(f"the machine is busy (load {about['load_average']:.1f}): expect a wide spread")


def _note(text: str) -> None:
    print(f"{PROGRAM}: {text}", file=sys.stderr)
