"""What people see while the benchmark runs, on standard error.

Owns the one line of a terminal.

Rules: a terminal gets one line that is rewritten; anything else gets a line per workload and round.
Standard output is left to the table.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import TextIO

from mioloop.bench.model import Contender, Workload
from mioloop.bench.results import Results
from mioloop.bench.table import format_number


class Progress:
    """Reports the steps of a run."""

    def __init__(self, stream: TextIO, steps: int) -> None:
        """Report to a stream.

        Args:
            stream: where to write.
            steps: how many samples will be taken.
        """
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._steps = steps
        self._step = 0

    def begin(self, round_name: str, workload: Workload, contender: Contender) -> None:
        """Say what is measured now."""
        self._step += 1
        if self._is_terminal:
            share = 100 * (self._step - 1) // max(self._steps, 1)
            self._rewrite(f"{share:3d} %  round {round_name}  {workload.name}  {contender.name}")

    def end_workload(
        self,
        round_name: str,
        workload: Workload,
        contenders: Sequence[Contender],
        results: Results,
    ) -> None:
        """Say what the workload gave, where that does not scroll the terminal."""
        if self._is_terminal:
            return
        cells = []
        for contender in contenders:
            samples = results.samples(workload, contender.name)
            figure = f"{format_number(samples[-1].cost)} {workload.unit}" if samples else "failed"
            cells.append(f"{contender.name} {figure}")
        self._stream.write(f"round {round_name}  {workload.name:24} {'   '.join(cells)}\n")
        self._stream.flush()

    def clear(self) -> None:
        """Leave the terminal clean."""
        if self._is_terminal:
            self._rewrite("")

    def _rewrite(self, text: str) -> None:
        width = shutil.get_terminal_size().columns
        self._stream.write("\r\x1b[2K" + text[: width - 1])
        self._stream.flush()
