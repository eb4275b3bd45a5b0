"""The tables on standard output.

Owns how figures are written.

Rules: plain text that fits a mail. Failures and their reasons stand below, in full.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from mioloop.bench.model import Workload
from mioloop.bench.results import Results

SCALES = ((1e6, "M"), (1e3, "k"))


def format_number(number: float) -> str:
    """Write a number with three significant digits, thousands as `k` and `M`."""
    for scale, suffix in SCALES:
        # What rounds to a thousand is written as one.
        if number >= scale * 0.9995:
            return f"{number / scale:.3g}{suffix}"
    return f"{number:.3g}"


def format_ratio(ratio: float) -> str:
    """Write a ratio so that neighbours in a column compare at a glance."""
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.1f}"


def render(results: Results) -> str:
    """Return all tables as text."""
    parts = [_cost_table(results), _rate_table(results), _failures(results)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _cost_table(results: Results) -> str:
    reference = results.reference
    names = [contender.name for contender in results.contenders]
    others = [name for name in names if name != reference]
    rounds = max(
        (len(results.samples(w, name)) for w in results.workloads for name in names), default=0
    )
    rows = [["workload", "cost per", reference, *others]]
    for workload in results.workloads:
        label = f"{workload.unit}/{workload.operation}"
        cells = [_reference_cell(results, workload)]
        cells += [_ratio_cell(results, workload, name) for name in others]
        rows.append([workload.name, label, *cells])
    counted = [workload for workload in results.workloads if workload.unit == "us"]
    if len(counted) > 1:
        means = [_mean_cell(results.ratios(name), len(counted)) for name in others]
        rows.append(["geometric mean", "", "", *means])
    count = f"{rounds} rounds" if rounds != 1 else "1 round"
    head = (
        f"Cost for {reference}, and how many times cheaper the others are:\n"
        f"median of {count} [min..max], above 1 beats {reference}. "
        "A cost in us is CPU time.\n\n"
    )
    return head + _align(rows)


def _reference_cell(results: Results, workload: Workload) -> str:
    if results.failure(workload, results.reference) is not None:
        return "failed"
    cost = results.cost(workload, results.reference)
    return format_number(cost) if cost is not None else "-"


def _ratio_cell(results: Results, workload: Workload, name: str) -> str:
    if results.failure(workload, name) is not None:
        return "failed"
    ratio = results.ratio(workload, name)
    if ratio is not None:
        spread = f"[{format_ratio(ratio.low)}..{format_ratio(ratio.high)}]"
        return f"{format_ratio(ratio.median)} {spread:13}"
    # Without the reference there is no ratio, but the figure is worth having.
    cost = results.cost(workload, name)
    return f"({format_number(cost)} {workload.unit})" if cost is not None else "-"


def _mean_cell(ratios: Sequence[float], workloads: int) -> str:
    if not ratios:
        return "-"
    mean = format_ratio(statistics.geometric_mean(ratios))
    return mean if len(ratios) == workloads else f"{mean} (of {len(ratios)})"


def _rate_table(results: Results) -> str:
    served = [
        workload for workload in results.workloads if workload.server and workload.unit == "us"
    ]
    if not served:
        return ""
    names = [contender.name for contender in results.contenders]
    rows = [["throughput", "", *names]]
    for workload in served:
        rates = [results.rate(workload, name) for name in names]
        cells = [format_number(rate) if rate else "-" for rate in rates]
        rows.append([workload.name, f"{workload.operation}s/s", *cells])
    return _align(rows)


def _failures(results: Results) -> str:
    lines = [
        f"failed: {contender.name}: {workload.name}: {reason}"
        for workload in results.workloads
        for contender in results.contenders
        if (reason := results.failure(workload, contender.name)) is not None
    ]
    return "\n".join(lines)


def _align(rows: Sequence[Sequence[str]]) -> str:
    """Put rows in columns: the first two to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if index < 2 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
