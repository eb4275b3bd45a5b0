"""The rounds: which loop is measured on what, and when.

Owns the order of the samples and the time that a run may take.

Rules: in each round every workload is measured on every loop, one right after the other, and the
loop that comes first changes from round to round. A loop that failed a workload is not asked
again.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mioloop.bench.children import Children
from mioloop.bench.machine import Processors
from mioloop.bench.model import Contender, Sample, Workload, WorkloadError
from mioloop.bench.progress import Progress
from mioloop.bench.results import Results
from mioloop.bench.stage import Stage

# Rounds differ a little in length.
ROUND_MARGIN = 1.1


@dataclass(frozen=True)
class Plan:
    """How long to measure."""

    rounds: int
    # For one sample.
    seconds: float
    # Until a sample counts as hung.
    timeout: float
    # No further round is begun that would not end within so many seconds. None: no limit.
    budget: float | None = None


def run(results: Results, plan: Plan, processors: Processors, progress: Progress) -> int:
    """Measure.

    Args:
        results: has the workloads and contenders, and gets the samples and failures.
        plan: how long to measure.
        processors: where the processes run.
        progress: is told what happens.

    Returns:
        How many rounds were measured.
    """
    started = time.monotonic()
    longest = 0.0
    try:
        with Children() as children:
            for number in range(plan.rounds):
                begun = time.monotonic()
                spent = begun - started
                if plan.budget and number and spent + longest * ROUND_MARGIN > plan.budget:
                    return number
                for group in _groups(results.workloads):
                    with Stage(children, processors, group[0]) as stage:
                        _run_group(results, plan, stage, group, number=number, progress=progress)
                longest = max(longest, time.monotonic() - begun)
    finally:
        progress.clear()
    return plan.rounds


def _groups(workloads: Sequence[Workload]) -> Iterator[list[Workload]]:
    for _, group in itertools.groupby(workloads, key=lambda workload: workload.stage_key):
        yield list(group)


def _run_group(
    results: Results,
    plan: Plan,
    stage: Stage,
    group: Sequence[Workload],
    *,
    number: int,
    progress: Progress,
) -> None:
    round_name = f"{number + 1}/{plan.rounds}"
    turn = number % len(results.contenders)
    order = results.contenders[turn:] + results.contenders[:turn]
    able = [c for c in order if any(_takes_part(results, workload, c) for workload in group)]
    stage.prepare(able)
    for workload in group:
        measured = [c for c in able if _takes_part(results, workload, c)]
        for contender in measured:
            progress.begin(round_name, workload, contender)
            try:
                fields = stage.sample(workload, contender, plan.seconds, plan.timeout)
                results.add(workload, contender, Sample(round=number, **fields))
            except WorkloadError as failure:
                results.fail(workload, contender, str(failure))
        in_table_order = [c for c in results.contenders if c in measured]
        progress.end_workload(round_name, workload, in_table_order, results)


def _takes_part(results: Results, workload: Workload, contender: Contender) -> bool:
    return workload.suits(contender) and results.failure(workload, contender.name) is None
