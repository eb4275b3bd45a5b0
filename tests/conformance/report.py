"""What the person (or the build) who started a run gets to see.

Owns every line that is printed and the JSON file.

Rules: a failure is printed with its name, its kind and its traceback; the last line
is the total.
"""

from __future__ import annotations

import json
import platform
import sys
import threading
from dataclasses import asdict
from pathlib import Path

from .module_run import ModuleVerdict, TestVerdict, Verdict
from .process import Outcome

_PASSED = (Verdict.PASSED, Verdict.FLAKY)
_COLUMNS: tuple[tuple[str, tuple[Verdict, ...]], ...] = (
    ("passed", _PASSED),
    ("skipped", (Verdict.SKIPPED,)),
    ("known", (Verdict.KNOWN,)),
    ("environment", (Verdict.ENVIRONMENT,)),
    ("excluded", (Verdict.EXCLUDED,)),
    ("duplicate", (Verdict.DUPLICATE,)),
    ("failed", (Verdict.FAILED,)),
)
_NOTABLE = (Verdict.FLAKY, Verdict.ENVIRONMENT, Verdict.KNOWN, Verdict.FAILED)


class Report:
    """Prints progress and the end of a run; may be called from several threads."""

    def __init__(self, loop: str, *, is_verbose: bool) -> None:
        self._loop = loop
        self._is_verbose = is_verbose
        self._lock = threading.Lock()

    def say(self, text: str) -> None:
        """Print one piece of text, whole."""
        with self._lock:
            print(text, flush=True)

    def begin(self, package: str, modules: int) -> None:
        """Print what is going to be run."""
        version = platform.python_version()
        self.say(f"{package} of Python {version} on {self._loop}: {modules} modules")

    def on_outcome(self, outcome: Outcome) -> None:
        """Print the first outcome of one test, when asked to be verbose."""
        if self._is_verbose:
            self.say(f"    {outcome.status:5} {outcome.seconds:7.2f} s  {outcome.name}")

    def on_module(self, module: ModuleVerdict) -> None:
        """Print the progress after one module."""
        parts = [f"{module.module:26} {module.ran:4} ran in {module.seconds:6.1f} s"]
        for verdict in _NOTABLE:
            if count := module.count(verdict):
                parts.append(f"{count} {verdict}")
        self.say(", ".join(parts))

    def end(self, modules: list[ModuleVerdict]) -> bool:
        """Print failures, notes, the table and the total; True when all is well."""
        for verdict in _NOTABLE:
            for test in _all_tests(modules, verdict):
                self.say(_story(test))
        if self._is_verbose:
            for pattern in (pattern for module in modules for pattern in module.stale):
                self.say(f"note: {pattern!r} in the list of exclusions matches no test here")
        self.say(_table(modules))
        self.say(_total(modules))
        return not _count(modules, Verdict.FAILED)

    def write_json(self, path: Path, modules: list[ModuleVerdict]) -> None:
        """Write everything that is known about a run."""
        document = {
            "loop": self._loop,
            "python": platform.python_version(),
            "platform": sys.platform,
            "totals": {name: _count(modules, *verdicts) for name, verdicts in _COLUMNS},
            "modules": [asdict(module) for module in modules],
        }
        path.write_text(json.dumps(document, indent=1) + "\n")


def _all_tests(modules: list[ModuleVerdict], verdict: Verdict) -> list[TestVerdict]:
    return [test for module in modules for test in module.tests if test.verdict is verdict]


def _count(modules: list[ModuleVerdict], *verdicts: Verdict) -> int:
    return sum(module.count(*verdicts) for module in modules)


def _story(test: TestVerdict) -> str:
    title = f"{test.verdict.upper()}: {test.name}"
    if test.verdict is Verdict.FAILED:
        detail = "\n".join("    " + line for line in test.detail.splitlines())
        return f"\n{title} ({test.kind})\n{detail}\n"
    last_line = test.detail.strip().rpartition("\n")[2]
    return f"{title} ({test.kind}: {last_line})"


def _table(modules: list[ModuleVerdict]) -> str:
    rows = [["module", "ran", *(name for name, _ in _COLUMNS)]]
    for module in modules:
        counts = [module.count(*verdicts) for _, verdicts in _COLUMNS]
        rows.append([module.module, *map(str, [module.ran, *counts])])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    form = "  ".join([f"{{:<{widths[0]}}}", *(f"{{:>{width}}}" for width in widths[1:])])
    lines = [form.format(*row) for row in rows]
    lines.insert(1, "-" * len(lines[0]))
    return "\n" + "\n".join(lines) + "\n"


def _total(modules: list[ModuleVerdict]) -> str:
    count = {name: _count(modules, *verdicts) for name, verdicts in _COLUMNS}
    ran = sum(module.ran for module in modules)
    others = [f"{ran} ran"]
    if flaky := _count(modules, Verdict.FLAKY):
        others.append(f"{flaky} of the passed were flaky")
    if count["known"]:
        others.append(f"{count['known']} known failures")
    if count["environment"]:
        others.append(f"{count['environment']} fail on asyncio here too")
    others.append(f"{count['excluded']} excluded")
    others.append(f"{count['duplicate']} duplicates")
    return (
        f"{count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped"
        f" ({', '.join(others)})"
    )
