"""What was measured: samples, failures, and the ratios that are made of them.

Owns the arithmetic and the JSON file.

Rules: a ratio is the reference's cost divided by the loop's cost in the *same* round, so that what
slows the machine down for a while slows both. Above 1 is better than the reference. What is shown
is the median of the rounds, with the least and the greatest.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mioloop.bench.model import Contender, Sample, Workload


@dataclass(frozen=True)
class Spread:
    """A median with the range around it."""

    median: float
    low: float
    high: float


class Results:
    """The samples and failures of a run."""

    def __init__(
        self,
        workloads: Sequence[Workload],
        contenders: Sequence[Contender],
        reference: str,
        about: dict[str, Any],
    ) -> None:
        """Start with nothing measured.

        Args:
            workloads: the rows.
            contenders: the columns.
            reference: the name of the contender that the others are compared with.
            about: what the figures come from, for the JSON file.
        """
        self.workloads = tuple(workloads)
        self.contenders = tuple(contenders)
        self.reference = reference
        self.about = about
        self._samples: dict[tuple[str, str], list[Sample]] = {}
        self._failures: dict[tuple[str, str], str] = {}

    def add(self, workload: Workload, contender: Contender, sample: Sample) -> None:
        """Note a sample."""
        self._samples.setdefault((workload.name, contender.name), []).append(sample)

    def fail(self, workload: Workload, contender: Contender, reason: str) -> None:
        """Note that a contender cannot do a workload."""
        self._failures[workload.name, contender.name] = reason

    def failure(self, workload: Workload, name: str) -> str | None:
        """Return why the named contender failed, or None."""
        return self._failures.get((workload.name, name))

    def samples(self, workload: Workload, name: str) -> Sequence[Sample]:
        """Return the samples of the named contender, none when it failed."""
        if (workload.name, name) in self._failures:
            return ()
        return self._samples.get((workload.name, name), ())

    def cost(self, workload: Workload, name: str) -> float | None:
        """Return the median cost per operation, or None."""
        costs = [sample.cost for sample in self.samples(workload, name)]
        return statistics.median(costs) if costs else None

    def rate(self, workload: Workload, name: str) -> float | None:
        """Return the median of operations per second of wall time, or None."""
        rates = [sample.rate for sample in self.samples(workload, name)]
        return statistics.median(rates) if rates else None

    def ratio(self, workload: Workload, name: str) -> Spread | None:
        """Return how many times less the named contender costs than the reference, or None."""
        costs = {sample.round: sample.cost for sample in self.samples(workload, self.reference)}
        ratios = [
            costs[sample.round] / sample.cost
            for sample in self.samples(workload, name)
            if sample.round in costs and sample.cost > 0
        ]
        if not ratios:
            return None
        return Spread(statistics.median(ratios), min(ratios), max(ratios))

    def ratios(self, name: str) -> list[float]:
        """Return the median ratios of the named contender where CPU time was counted."""
        return [
            ratio.median
            for workload in self.workloads
            if workload.unit == "us" and (ratio := self.ratio(workload, name))
        ]

    def has_failed(self, name: str) -> bool:
        """Whether the named contender failed any workload."""
        return any(failed == name for _, failed in self._failures)

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return {
            "about": self.about,
            "reference": self.reference,
            "loops": {contender.name: contender.spec for contender in self.contenders},
            "workloads": {
                workload.name: self._workload_json(workload) for workload in self.workloads
            },
        }

    def _workload_json(self, workload: Workload) -> dict[str, Any]:
        names = [contender.name for contender in self.contenders]
        ratios = {name: self.ratio(workload, name) for name in names}
        return {
            "summary": workload.summary,
            "operation": workload.operation,
            "unit": workload.unit,
            "cost": {name: self.cost(workload, name) for name in names},
            "rate": {name: self.rate(workload, name) for name in names},
            "ratio": {name: dataclasses.asdict(ratio) for name, ratio in ratios.items() if ratio},
            "failures": {
                name: reason
                for name in names
                if (reason := self.failure(workload, name)) is not None
            },
            "samples": {
                name: [dataclasses.asdict(sample) for sample in self.samples(workload, name)]
                for name in names
            },
        }

    def write_json(self, path: Path) -> None:
        """Write everything to a file.

        Raises:
            OSError: it cannot be written.
        """
        path.write_text(json.dumps(self.as_json(), indent=1) + "\n", encoding="utf-8")
