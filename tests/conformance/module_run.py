"""One test module from start to verdict.

Owns what outcomes mean: which tests run again and where, and what counts as a
failure.

Rules:
1. After a crash or a hang the rest of the module still runs, in a new process.
2. A failed or hung test runs once more, alone.  When it passes then, the whole module
   runs once more: a test that passes there too is *flaky*, which is printed and no
   failure; another one depends on the tests before it.  A crash is never put down to
   noise.
3. A test that fails again is tried on stock asyncio, twice if need be.  When it
   cannot pass there either, the fault is the environment's, and it is no failure.
4. A known failure that passes is a failure.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum

from .child import Job
from .process import ChildReport, Outcome, run_child
from .selection import Rules

_STOCK = "asyncio"


class Verdict(StrEnum):
    """What a test counts as in the end."""

    PASSED = "passed"
    FLAKY = "flaky"
    SKIPPED = "skipped"
    KNOWN = "known failure"
    ENVIRONMENT = "environment"
    FAILED = "failed"
    EXCLUDED = "excluded"
    DUPLICATE = "duplicate"

    @property
    def did_run(self) -> bool:
        """Whether the test was given to the loop at all."""
        return self not in (Verdict.EXCLUDED, Verdict.DUPLICATE)


@dataclass
class TestVerdict:
    """One test in the final report."""

    __test__ = False  # Not a test class, whatever pytest thinks of its name.

    name: str
    verdict: Verdict
    kind: str = ""  # pass, skip, fail, hang, crash or "unexpected pass"
    detail: str = ""
    seconds: float = 0.0


@dataclass
class ModuleVerdict:
    """All tests of one module in the final report."""

    module: str
    tests: list[TestVerdict] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def count(self, *verdicts: Verdict) -> int:
        """Return how many tests have one of these verdicts."""
        return sum(test.verdict in verdicts for test in self.tests)

    @property
    def ran(self) -> int:
        """How many tests were given to the loop."""
        return sum(test.verdict.did_run for test in self.tests)


class ModuleRun:
    """Runs one module; `job` says which, on which loop, and which of its tests."""

    def __init__(
        self,
        job: Job,
        rules: Rules,
        timeout: float,
        on_outcome: Callable[[Outcome], None] | None = None,
    ) -> None:
        self._job = job
        self._rules = rules
        self._timeout = timeout
        self._on_outcome = on_outcome
        self._outcomes: dict[str, Outcome] = {}
        self._fixtures: list[Outcome] = []
        self._verdict = ModuleVerdict(job.module)
        self._second_runs: dict[str, ChildReport] = {}

    def run(self) -> ModuleVerdict:
        """Run everything, and the failed tests again."""
        started = time.monotonic()
        self._run_all()
        verdict = self._verdict
        for outcome in self._outcomes.values():
            verdict.tests.append(self._judge(outcome))
        verdict.tests += [
            TestVerdict(fixture.name, Verdict.FAILED, fixture.status, fixture.detail)
            for fixture in self._fixtures
        ]
        verdict.seconds = time.monotonic() - started
        return verdict

    def _run_all(self) -> None:
        while True:
            job = replace(self._job, done=[*self._job.done, *self._outcomes])
            report = run_child(job, self._timeout, self._on_outcome)
            if not self._outcomes:
                self._take_plan(report)
            self._outcomes.update(report.outcomes)
            missing = report.missing()
            self._take_fixtures(report, missing)
            death = report.death
            if death is None:
                return
            if not death.name:
                if not missing:
                    self._fixtures.append(replace(death, name=f"{job.module}.<exit>"))
                    return
                # The process died between two tests: setting up the class of the next
                # one is the likeliest cause, and blaming that one goes on from there.
                death = replace(death, name=missing.pop(0))
                self._outcomes[death.name] = death
            if not missing:
                return

    def _take_plan(self, report: ChildReport) -> None:
        self._verdict.stale = report.stale
        for verdict, reasons in (
            (Verdict.EXCLUDED, report.excluded),
            (Verdict.DUPLICATE, report.duplicates),
        ):
            self._verdict.tests += [
                TestVerdict(name, verdict, detail=reason) for name, reason in reasons.items()
            ]

    def _take_fixtures(self, report: ChildReport, missing: list[str]) -> None:
        """Give what happened outside of the tests to the tests that it has cost."""
        for fixture in report.fixtures:
            _, _, owner = fixture.name.rstrip(")").partition("(")
            owner = owner.removeprefix(self._job.package + ".")
            victims = [
                name
                for name in missing
                if owner and (name == owner or name.startswith(owner + "."))
            ]
            for name in victims:
                self._outcomes[name] = replace(fixture, name=name)
                missing.remove(name)
            if not victims and (fixture.status == "fail" or not report.planned):
                if fixture.status == "skip":
                    self._outcomes[fixture.name] = fixture
                else:
                    self._fixtures.append(fixture)
        if report.death is None:
            for name in missing:
                self._outcomes[name] = Outcome(name, "fail", "planned, but never run")

    def _judge(self, outcome: Outcome) -> TestVerdict:
        known = None
        if self._job.loop != _STOCK:
            known = self._rules.reason("known_failures", outcome.name)
        if outcome.status == "skip":
            return _verdict(Verdict.SKIPPED, outcome)
        if known is not None:
            return self._judge_known(outcome, known)
        if outcome.status == "pass":
            return _verdict(Verdict.PASSED, outcome)
        if outcome.status == "crash":
            return _verdict(Verdict.FAILED, outcome)
        again = self._run_alone(outcome.name, self._job.loop)
        if again.status == "pass":
            return self._judge_passing_alone(outcome)
        if again.status != "crash" and self._cannot_pass_on_stock(outcome.name):
            return _verdict(Verdict.ENVIRONMENT, again)
        return _verdict(Verdict.FAILED, again)

    def _judge_passing_alone(self, outcome: Outcome) -> TestVerdict:
        name = outcome.name
        second = self._run_in_company(name, self._job.loop)
        if second is None:
            detail = f"passes alone; a second run of the module did not reach it\n{outcome.detail}"
            return _verdict(Verdict.FAILED, replace(outcome, detail=detail))
        if second.status == "pass":
            return _verdict(Verdict.FLAKY, outcome)
        if self._job.loop != _STOCK:
            stock = self._run_in_company(name, _STOCK)
            if stock is not None and stock.status not in ("pass", "skip"):
                return _verdict(Verdict.ENVIRONMENT, second)
        detail = f"passes alone, but not after the tests that run before it\n{second.detail}"
        return _verdict(Verdict.FAILED, replace(second, detail=detail))

    def _judge_known(self, outcome: Outcome, reason: str) -> TestVerdict:
        if outcome.status != "pass":
            return _verdict(Verdict.KNOWN, replace(outcome, detail=reason))
        detail = f"listed as a known failure ({reason}), but it passes"
        return _verdict(Verdict.FAILED, replace(outcome, status="unexpected pass", detail=detail))

    def _run_alone(self, name: str, loop: str) -> Outcome:
        job = replace(self._job, loop=loop, only=[name], done=[])
        report = run_child(job, self._timeout)
        if name in report.outcomes:
            return report.outcomes[name]
        if report.death is not None:
            return replace(report.death, name=name)
        for fixture in report.fixtures:
            return replace(fixture, name=name)
        return Outcome(name, "fail", "not found when run alone")

    def _run_in_company(self, name: str, loop: str) -> Outcome | None:
        """Return the outcome in a second run of the module, one for all tests that ask."""
        if loop not in self._second_runs:
            self._second_runs[loop] = run_child(replace(self._job, loop=loop), self._timeout)
        return self._second_runs[loop].outcomes.get(name)

    def _cannot_pass_on_stock(self, name: str) -> bool:
        if self._job.loop == _STOCK:
            return False
        return all(self._run_alone(name, _STOCK).status not in ("pass", "skip") for _ in range(2))


def _verdict(verdict: Verdict, outcome: Outcome) -> TestVerdict:
    return TestVerdict(outcome.name, verdict, outcome.status, outcome.detail, outcome.seconds)
