"""The conformance runner notices what it is there to notice.

Owns a tiny test package that fails, hangs, crashes and misbehaves on purpose, and one run of it:
on a loop that is asyncio's own under another class name, so that tests can tell whether they were
given it.

Rules: every case is a test of that package with the verdict that the runner must reach.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent

LOOP = """
    import asyncio

    class OtherLoop(asyncio.SelectorEventLoop):
        pass

    def new_event_loop():
        return OtherLoop()
    """

MODULES = {
    "test_outcomes": """
        import unittest

        class Outcomes(unittest.TestCase):
            def test_pass(self): pass
            def test_fail(self): self.fail("on purpose")
            def test_skip(self): self.skipTest("no reason")
            def test_subtest(self):
                for number in range(3):
                    with self.subTest(number=number):
                        self.assertNotEqual(number, 1)
            @unittest.expectedFailure
            def test_expected_failure(self): self.fail("as expected")
            @unittest.expectedFailure
            def test_unexpected_success(self): pass
            def test_unraisable(self):
                class Broken:
                    def __del__(self): raise ValueError("nobody can catch this")
                Broken()
            def test_running_loop_left_set(self):
                import asyncio
                asyncio._set_running_loop(asyncio.new_event_loop())
        """,
    "test_loops": """
        import asyncio
        import unittest

        class Loops(unittest.TestCase):
            def name_of(self, loop):
                loop.close()
                return type(loop).__name__
            def test_policy(self):
                self.assertEqual(self.name_of(asyncio.new_event_loop()), "OtherLoop")
            def test_class(self):
                self.assertEqual(self.name_of(asyncio.SelectorEventLoop()), "OtherLoop")
            def test_asyncio_is_untouched(self):
                from asyncio import SelectorEventLoop
                self.assertEqual(SelectorEventLoop.__module__, "asyncio.unix_events")
            def test_run(self):
                async def main():
                    return type(asyncio.get_running_loop()).__name__
                self.assertEqual(asyncio.run(main()), "OtherLoop")
            def test_wrong_on_this_loop_only(self):
                self.assertNotEqual(self.name_of(asyncio.new_event_loop()), "OtherLoop")

        class Factory(unittest.TestCase):
            def create_event_loop(self):
                return asyncio.new_event_loop().no_such_attribute
            def test_create_event_loop(self):
                self.create_event_loop().close()
        """,
    "test_hang": """
        import asyncio, contextlib, threading, unittest

        class Hang(unittest.TestCase):
            def test_a(self): pass
            def test_b(self):
                with contextlib.closing(asyncio.new_event_loop()) as loop:
                    if type(loop).__name__ == "OtherLoop":
                        threading.Event().wait()
            def test_c(self): pass
        """,
    "test_crash": """
        import os, signal, unittest

        class Crash(unittest.TestCase):
            def test_a(self): pass
            def test_b(self): os.kill(os.getpid(), signal.SIGSEGV)
            def test_c(self): pass

        class CrashInSetUpClass(unittest.TestCase):
            @classmethod
            def setUpClass(cls): os._exit(3)
            def test_a(self): pass

        class Later(unittest.TestCase):
            def test_a(self): pass
        """,
    "test_exit": """
        import atexit, os, unittest

        atexit.register(os.abort)

        class Exit(unittest.TestCase):
            def test_a(self): pass
        """,
    "test_fixtures": """
        import unittest

        class Broken(unittest.TestCase):
            @classmethod
            def setUpClass(cls): raise ValueError("on purpose")
            def test_a(self): pass

        class Skipped(unittest.TestCase):
            @classmethod
            def setUpClass(cls): raise unittest.SkipTest("no reason")
            def test_a(self): pass

        class BrokenEnd(unittest.TestCase):
            @classmethod
            def tearDownClass(cls): raise ValueError("on purpose")
            def test_a(self): pass
        """,
    "test_order": """
        import asyncio, unittest

        ran = []

        class Order(unittest.TestCase):
            def test_a(self): ran.append("a")
            def test_b(self):
                loop = asyncio.new_event_loop()
                loop.close()
                if type(loop).__name__ == "OtherLoop":
                    self.assertEqual(ran, [])
        """,
    "test_import": "raise ValueError('on purpose')",
    "test_lists": """
        import os, unittest

        class Lists(unittest.TestCase):
            def test_excluded(self): self.fail("must not run")
            def test_for_another_python(self): pass
            def test_duplicate(self): self.fail("must not run")
            def test_known_failure(self): self.fail("as is known")
            def test_known_failure_that_passes(self): pass
            def test_broken_everywhere(self): self.fail("on every loop")
            def test_flaky(self):
                marker = os.path.join(os.path.dirname(__file__), "was-here")
                if not os.path.exists(marker):
                    open(marker, "w").close()
                    self.fail("the first time")
        """,
}

RULES = """
    [[excluded]]
    reason = "of no interest"
    tests = ["test_lists.*.test_excluded", "test_lists.Lists.test_that_does_not_exist"]

    [[excluded]]
    reason = "of no interest to an older Python"
    python = "<3.11"
    tests = ["test_lists.Lists.test_for_another_python"]

    [[duplicate]]
    reason = "the same as another one"
    tests = ["test_lists.Lists.test_duplicate"]

    [[known_failure]]
    reason = "a bug"
    tests = ["test_lists.Lists.test_known_failure*"]
    """

# What each test has to be counted as, and in which way it failed.
EXPECTED = {
    "test_outcomes.Outcomes.test_pass": ("passed", "pass"),
    "test_outcomes.Outcomes.test_fail": ("environment", "fail"),
    "test_outcomes.Outcomes.test_skip": ("skipped", "skip"),
    "test_outcomes.Outcomes.test_subtest": ("environment", "fail"),
    "test_outcomes.Outcomes.test_expected_failure": ("passed", "pass"),
    "test_outcomes.Outcomes.test_unexpected_success": ("environment", "fail"),
    "test_outcomes.Outcomes.test_unraisable": ("environment", "fail"),
    "test_outcomes.Outcomes.test_running_loop_left_set": ("environment", "fail"),
    "test_loops.Loops.test_policy": ("passed", "pass"),
    "test_loops.Loops.test_class": ("passed", "pass"),
    "test_loops.Loops.test_asyncio_is_untouched": ("passed", "pass"),
    "test_loops.Loops.test_run": ("passed", "pass"),
    "test_loops.Loops.test_wrong_on_this_loop_only": ("failed", "fail"),
    "test_loops.Factory.test_create_event_loop": ("passed", "pass"),
    "test_hang.Hang.test_a": ("passed", "pass"),
    "test_hang.Hang.test_b": ("failed", "hang"),
    "test_hang.Hang.test_c": ("passed", "pass"),
    "test_crash.Crash.test_a": ("passed", "pass"),
    "test_crash.Crash.test_b": ("failed", "crash"),
    "test_crash.Crash.test_c": ("passed", "pass"),
    "test_crash.CrashInSetUpClass.test_a": ("failed", "crash"),
    "test_crash.Later.test_a": ("passed", "pass"),
    "test_exit.Exit.test_a": ("passed", "pass"),
    "test_exit.<exit>": ("failed", "crash"),
    "test_fixtures.Broken.test_a": ("environment", "fail"),
    "test_fixtures.Skipped.test_a": ("skipped", "skip"),
    "test_fixtures.BrokenEnd.test_a": ("passed", "pass"),
    "tearDownClass (fake_suite.test_fixtures.BrokenEnd)": ("failed", "fail"),
    "test_order.Order.test_a": ("passed", "pass"),
    "test_order.Order.test_b": ("failed", "fail"),
    "test_import.<import>": ("failed", "fail"),
    "test_lists.Lists.test_excluded": ("excluded", ""),
    "test_lists.Lists.test_for_another_python": ("passed", "pass"),
    "test_lists.Lists.test_duplicate": ("duplicate", ""),
    "test_lists.Lists.test_known_failure": ("known failure", "fail"),
    "test_lists.Lists.test_known_failure_that_passes": ("failed", "unexpected pass"),
    "test_lists.Lists.test_broken_everywhere": ("environment", "fail"),
    "test_lists.Lists.test_flaky": ("flaky", "fail"),
}


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the test package; returns the folder to import it from."""
    folder = tmp_path_factory.mktemp("conformance")
    package = folder / "fake_suite"
    package.mkdir()
    (package / "__init__.py").touch()
    for name, source in MODULES.items():
        (package / f"{name}.py").write_text(textwrap.dedent(source))
    (folder / "other_loop.py").write_text(textwrap.dedent(LOOP))
    (folder / "rules.toml").write_text(textwrap.dedent(RULES))
    return folder


def run(suite: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    fixed = ["--package", "fake_suite", "--rules", str(suite / "rules.toml")]
    return subprocess.run(
        [sys.executable, "-m", "tests.conformance", *fixed, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(suite)},
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )


@pytest.fixture(scope="module")
def whole(suite: Path) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """Run the whole package once; returns the process and what it has written."""
    file = suite / "result.json"
    loop = ["--loop", "other_loop:new_event_loop", "--timeout", "3"]
    done = run(suite, *loop, "--json", str(file), "-v")
    assert file.exists(), done.stdout + done.stderr
    return done, json.loads(file.read_text())


def test_verdicts(whole: Any) -> None:
    tests = [test for module in whole[1]["modules"] for test in module["tests"]]
    assert {test["name"]: (test["verdict"], test["kind"]) for test in tests} == EXPECTED


def test_totals_agree_with_verdicts(whole: Any) -> None:
    done, document = whole
    wanted = [verdict for verdict, _ in EXPECTED.values()]
    totals = document["totals"]
    assert totals["failed"] == wanted.count("failed")
    assert totals["passed"] == wanted.count("passed") + wanted.count("flaky")
    assert totals["skipped"] == wanted.count("skipped")
    last = done.stdout.splitlines()[-1]
    start = f"{totals['passed']} passed, {totals['failed']} failed, {totals['skipped']} skipped"
    assert last.startswith(start)
    assert f"{len(wanted) - 2} ran" in last


def test_failures_are_told_with_their_tracebacks(whole: Any) -> None:
    output = whole[0].stdout
    assert "FAILED: test_loops.Loops.test_wrong_on_this_loop_only (fail)" in output
    assert "in test_wrong_on_this_loop_only" in output
    assert "Segmentation fault" in output
    assert "passes alone, but not after the tests that run before it" in output
    assert "FLAKY: test_lists.Lists.test_flaky (fail: AssertionError: the first time)" in output


def test_stacks_of_a_hang_are_kept(whole: Any) -> None:
    tests = [test for module in whole[1]["modules"] for test in module["tests"]]
    [hang] = [test for test in tests if test["name"] == "test_hang.Hang.test_b"]
    assert "silent for 3 s" in hang["detail"]
    assert "in test_b" in hang["detail"]


def test_stale_exclusions_are_noted(whole: Any) -> None:
    assert "'test_lists.Lists.test_that_does_not_exist' in the list" in whole[0].stdout


def test_failure_decides_the_exit_code(whole: Any, suite: Path) -> None:
    assert whole[0].returncode == 1
    done = run(suite, "--loop", "other_loop:new_event_loop", "--only", "test_loops.Loops.test_run")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("1 passed, 0 failed, 0 skipped (1 ran")


def test_nothing_is_injected_into_the_baseline(suite: Path) -> None:
    done = run(suite, "--loop", "asyncio", "--only", "test_loops.Loops.test_policy")
    assert done.returncode == 1
    assert "'_UnixSelectorEventLoop' != 'OtherLoop'" in done.stdout


def test_baseline_failures_are_failures(suite: Path) -> None:
    done = run(suite, "--loop", "asyncio", "--only", "test_lists.Lists.test_broken_everywhere")
    assert done.returncode == 1
    assert "0 passed, 1 failed, 0 skipped" in done.stdout


@pytest.mark.parametrize(
    ("rules", "complaint"),
    [
        ('[[excluded]]\ntests = ["a"]', "malformed entry"),
        ('[[excluded]]\nreason = ""\ntests = ["a"]', "malformed entry"),
        ('[[excluded]]\nreason = "r"\ntests = ["a.b.c.d"]', "not module[.Class[.test]]"),
        ('[[excluded]]\nreason = "r"\npython = "3.12"\ntests = ["a"]', "not a comparison"),
        ('[[exluded]]\nreason = "r"\ntests = ["a"]', "unknown list"),
    ],
)
def test_malformed_list_is_refused(suite: Path, rules: str, complaint: str) -> None:
    file = suite / "malformed.toml"
    file.write_text(rules)
    done = run(suite, "--rules", str(file))
    assert done.returncode == 1
    assert complaint in done.stderr


def test_unknown_names_are_refused(suite: Path) -> None:
    assert "no such test module: test_none" in run(suite, "--only", "test_none").stderr
    assert "is not installed" in run(suite, "--package", "no_such.package").stderr
