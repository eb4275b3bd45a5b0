"""Which tests run: the list of exclusions, and how a name is matched.

Owns the reading of ``excluded.toml``.  Test names are relative to the test
package: ``module.Class.test``.  A pattern has one to three segments, each of
which may be a shell-style wildcard; a pattern with fewer segments than a name
matches everything below it.

Rules: a pattern that is malformed, and an entry without a reason, are errors;
an entry whose ``python`` range excludes the running Python does not exist.
"""

from __future__ import annotations

import fnmatch
import operator
import sys
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

DEFAULT_FILE = Path(__file__).with_name("excluded.toml")

_COMPARISONS: dict[str, Callable[[tuple[int, int], tuple[int, int]], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}


class SelectionError(ValueError):
    """The list of exclusions cannot be understood."""


def matches(pattern: str, name: str) -> bool:
    """Say whether `pattern` names the test `name` or something above it."""
    wanted = pattern.split(".")
    # Classes made inside a function have dots in their names; only the first
    # segment (the module) and the last one (the test) can be split off safely.
    head, _, rest = name.partition(".")
    middle, _, last = rest.rpartition(".")
    parts = [part for part in (head, middle, last) if part]
    if len(wanted) > len(parts):
        return False
    return all(fnmatch.fnmatchcase(have, want) for have, want in zip(parts, wanted, strict=False))


def is_in_range(requirement: str, version: tuple[int, int]) -> bool:
    """Say whether a Python ``(major, minor)`` meets e.g. ``">=3.12,<3.14"``."""
    for clause in map(str.strip, requirement.split(",")):
        for symbol, compare in _COMPARISONS.items():
            if clause.startswith(symbol):
                major, dot, minor = clause.removeprefix(symbol).strip().partition(".")
                if not (dot and major.isdecimal() and minor.isdecimal()):
                    raise SelectionError(f"not a Python version: {clause!r}")
                if not compare(version, (int(major), int(minor))):
                    return False
                break
        else:
            raise SelectionError(f"not a comparison with a Python version: {clause!r}")
    return True


@dataclass
class Rules:
    """Patterns with their reasons, for one Python version."""

    excluded: dict[str, str] = field(default_factory=dict)
    duplicates: dict[str, str] = field(default_factory=dict)
    known_failures: dict[str, str] = field(default_factory=dict)

    def reason(self, kind: str, name: str) -> str | None:
        """Return why the test `name` is in the list `kind`, or None."""
        table: dict[str, str] = getattr(self, kind)
        for pattern, reason in table.items():
            if matches(pattern, name):
                return reason
        return None

    def stale(self, module: str, names: Iterable[str]) -> list[str]:
        """Return the patterns about `module` that match none of its tests."""
        names = list(names)
        return [
            pattern
            for table in (self.excluded, self.duplicates, self.known_failures)
            for pattern in table
            if pattern.split(".")[0] == module
            and "." in pattern
            and not any(matches(pattern, name) for name in names)
        ]


def load(path: Path = DEFAULT_FILE, version: tuple[int, int] | None = None) -> Rules:
    """Read the list of exclusions as it stands for one Python version.

    Raises SelectionError when an entry is malformed.
    """
    version = version or sys.version_info[:2]
    with path.open("rb") as file:
        document = tomllib.load(file)
    rules = Rules()
    kinds = {
        "excluded": rules.excluded,
        "duplicate": rules.duplicates,
        "known_failure": rules.known_failures,
    }
    for kind, entries in document.items():
        if kind not in kinds:
            raise SelectionError(f"unknown list {kind!r} in {path.name}")
        for entry in entries:
            unknown = entry.keys() - {"reason", "tests", "python"}
            reason = str(entry.get("reason", "")).strip()
            if unknown or not reason or "\n" in reason or not entry.get("tests"):
                raise SelectionError(f"malformed entry of {kind!r} in {path.name}: {entry!r}")
            if not is_in_range(entry.get("python", ">=3.0"), version):
                continue
            for pattern in entry["tests"]:
                if not 1 <= len(pattern.split(".")) <= 3:
                    raise SelectionError(f"not module[.Class[.test]]: {pattern!r}")
                kinds[kind][pattern] = reason
    return rules
