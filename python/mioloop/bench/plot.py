"""The bar chart of the ratios.

Owns everything about matplotlib, which is an extra: it is imported when a chart is drawn.

Rules: drawn without a display. The axis is logarithmic and bars grow from 1, the reference, so that
twice as fast and half as fast look equally far away.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mioloop.bench.results import Results
from mioloop.bench.table import format_ratio

SUFFIXES = (".png", ".svg")
# Distinct for colour-blind readers too; mioloop's comes first.
COLOURS = ("#d1495b", "#30638e", "#edae49", "#00798c", "#6c4f77", "#8d99ae", "#3a7d44", "#444444")
# Inches.
BAR = 0.19
GAP = 0.16


def draw(results: Results, path: Path) -> None:
    """Draw the ratios as horizontal bars, in groups by workload, with their spread.

    Args:
        results: what to draw.
        path: the file to write; its suffix says whether PNG or SVG.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    names = [c.name for c in results.contenders if c.name != results.reference]
    names.sort(key=lambda name: name != "mioloop")
    height = len(results.workloads) * (len(names) * BAR + GAP)
    figure = Figure(figsize=(10, height + 1.9), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot()
    axes.set_xscale("log", base=2)

    ticks: list[float] = []
    top, low, high = 0.0, 0.8, 1.5
    for workload in results.workloads:
        ticks.append(top + len(names) * BAR / 2)
        for index, name in enumerate(names):
            middle = top + (index + 0.5) * BAR
            ratio = results.ratio(workload, name)
            if ratio is None:
                why = "failed" if results.failure(workload, name) is not None else ""
                axes.annotate(
                    why,
                    (1, middle),
                    (4, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=7,
                    color=COLOURS[index % len(COLOURS)],
                )
                continue
            axes.barh(
                middle, ratio.median - 1, BAR * 0.9, left=1, color=COLOURS[index % len(COLOURS)]
            )
            axes.plot(
                [ratio.low, ratio.high],
                [middle, middle],
                color="#222222",
                linewidth=1,
                marker="|",
                markersize=4,
            )
            end = max(ratio.high, 1.0)
            axes.annotate(
                format_ratio(ratio.median),
                (end, middle),
                (5, 0),
                va="center",
                textcoords="offset points",
                fontsize=7,
            )
            low, high = min(low, ratio.low), max(high, ratio.high)
        top += len(names) * BAR + GAP

    axes.set_yticks(ticks, [workload.name for workload in results.workloads])
    axes.set_ylim(top - GAP / 2, -GAP / 2)
    axes.set_xlim(low / 1.1, high * 1.25)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _position: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.axvline(1, color="#222222", linewidth=1)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_xlabel(
        f"cost for {results.reference} / cost for the loop, log scale; thin lines: all rounds"
    )
    axes.legend(
        handles=[_swatch(COLOURS[i % len(COLOURS)], name) for i, name in enumerate(names)],
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=max(len(names), 1),
        frameon=False,
    )
    figure.suptitle(_title(results), fontsize=11)
    figure.savefig(path, dpi=150)


def _swatch(colour: str, name: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(color=colour, label=name)


def _title(results: Results) -> str:
    about = results.about
    system = str(about.get("system", "?")).partition("-")[0]
    versions: dict[str, str] = about.get("versions", {})
    loops = ", ".join(f"{name} {versions[name]}" for name in versions if name != "asyncio")
    return f"Event loops on Python {about.get('python', '?')}, {system}: {loops}"
