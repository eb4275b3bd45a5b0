"""The ways to select mioloop: `run`, a loop factory, the policy, `install`.

The rules of `run` are asyncio's, so what it raises is compared with `asyncio.Runner` and
`asyncio.run` of the running Python.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import warnings

import pytest

import mioloop
from support import outcome

HAS_POLICIES = hasattr(asyncio, "set_event_loop_policy")
needs_policies = pytest.mark.skipif(
    not HAS_POLICIES, reason="this Python has no event loop policies"
)


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with every warning an error."""
    command = [sys.executable, "-W", "error", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


# ---------------------------------------------------------------------------------------------
# run


def test_run_returns_the_result_and_closes_the_loop() -> None:
    async def main() -> asyncio.AbstractEventLoop:
        await asyncio.sleep(0)
        return asyncio.get_running_loop()

    loop = mioloop.run(main())
    assert type(loop) is mioloop.Loop
    assert loop.is_closed()


def test_run_lets_the_exception_of_the_coroutine_out() -> None:
    async def main() -> None:
        raise LookupError("of the coroutine")

    with pytest.raises(LookupError, match="of the coroutine"):
        mioloop.run(main())


@pytest.mark.parametrize("debug", [True, False])
def test_run_sets_debug_mode(debug: bool) -> None:
    async def main() -> bool:
        return asyncio.get_running_loop().get_debug()

    assert mioloop.run(main(), debug=debug) is debug


def test_run_leaves_debug_mode_to_the_environment() -> None:
    code = """
import asyncio, mioloop
async def main(): return asyncio.get_running_loop().get_debug()
print(mioloop.run(main()))
"""
    assert python("-X", "dev", "-c", code).stdout == "True\n"
    assert python("-c", code).stdout == "False\n"


def test_run_cancels_what_is_left_and_finishes_async_generators() -> None:
    ended = []

    async def forever() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append("task")

    async def numbers():
        try:
            yield 1
        finally:
            ended.append("generator")

    async def main() -> None:
        main.task = asyncio.create_task(forever())
        main.numbers = numbers()
        await anext(main.numbers)

    mioloop.run(main())
    assert ended == ["task", "generator"]
    assert main.task.cancelled()


def test_run_in_a_running_loop_raises_what_asyncio_raises() -> None:
    async def nothing() -> None: ...

    async def main(run) -> tuple[type[BaseException] | None, str]:
        coroutine = nothing()
        try:
            return outcome(lambda: run(coroutine))
        finally:
            coroutine.close()

    expected = asyncio.run(main(asyncio.run))
    assert expected[0] is RuntimeError
    assert mioloop.run(main(mioloop.run)) == expected


@pytest.mark.parametrize("wrong", [None, 3, "text", lambda: None])
def test_run_of_what_is_no_coroutine_raises_what_asyncio_raises(wrong: object) -> None:
    expected = outcome(lambda: asyncio.run(wrong))
    assert expected[0] in (TypeError, ValueError)
    assert outcome(lambda: mioloop.run(wrong)) == expected


def test_run_takes_debug_by_keyword_only() -> None:
    async def nothing() -> None: ...

    coroutine = nothing()
    with pytest.raises(TypeError):
        mioloop.run(coroutine, True)
    coroutine.close()


def test_run_in_two_threads_at_once() -> None:
    barrier = threading.Barrier(2)
    loops = []

    async def main() -> None:
        # Not to be passed before both loops run.
        await asyncio.to_thread(barrier.wait, 10)
        loops.append(asyncio.get_running_loop())

    threads = [threading.Thread(target=lambda: mioloop.run(main())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(loops)) == 2


# ---------------------------------------------------------------------------------------------
# The loop factory


def test_new_event_loop_makes_open_loops_that_are_asyncio_loops() -> None:
    first, second = mioloop.new_event_loop(), mioloop.new_event_loop()
    try:
        assert first is not second
        assert type(first) is mioloop.Loop
        assert isinstance(first, asyncio.AbstractEventLoop)
        assert not first.is_running()
        assert not first.is_closed()
    finally:
        first.close()
        second.close()


def test_runner_takes_the_loop_factory() -> None:
    async def main() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    with asyncio.Runner(loop_factory=mioloop.new_event_loop) as runner:
        loop = runner.get_loop()
        assert runner.run(main()) is runner.run(main()) is loop
        assert type(loop) is mioloop.Loop
    assert loop.is_closed()


# ---------------------------------------------------------------------------------------------
# The policy


@needs_policies
def test_policy_makes_loops_and_keeps_one_per_thread() -> None:
    policy = mioloop.EventLoopPolicy()
    loop = policy.new_event_loop()
    try:
        assert type(loop) is mioloop.Loop
        policy.set_event_loop(loop)
        assert policy.get_event_loop() is loop
        elsewhere = []
        thread = threading.Thread(target=lambda: elsewhere.append(outcome(policy.get_event_loop)))
        thread.start()
        thread.join()
        assert elsewhere[0][0] is RuntimeError
    finally:
        policy.set_event_loop(None)
        loop.close()


INSTALLED = """
import asyncio, sys, warnings
import mioloop
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    mioloop.install()
assert {warning.category for warning in caught} == (
    {DeprecationWarning} if sys.version_info >= (3, 14) else set()
), caught

async def main():
    return type(asyncio.get_running_loop())

assert asyncio.run(main()) is mioloop.Loop
loop = asyncio.new_event_loop()
assert type(loop) is mioloop.Loop
asyncio.set_event_loop(loop)
assert asyncio.get_event_loop() is loop
loop.close()
assert asyncio.run(main()) is mioloop.Loop
print("fine")
"""


@needs_policies
def test_install_selects_mioloop_for_the_process() -> None:
    done = python("-c", INSTALLED)
    assert (done.stdout, done.stderr) == ("fine\n", "")


# ---------------------------------------------------------------------------------------------
# Names and warnings


@pytest.mark.parametrize("statement", ["import mioloop", "from mioloop import *"])
def test_importing_never_warns_and_selects_nothing(statement: str) -> None:
    code = f"""
import asyncio
{statement}
async def main(): return type(asyncio.get_running_loop())
assert asyncio.run(main()) is asyncio.SelectorEventLoop
"""
    done = python("-c", code)
    assert (done.returncode, done.stderr) == (0, "")


def test_importing_leaves_the_policy_module_alone() -> None:
    code = "import mioloop, sys; assert 'mioloop._policy' not in sys.modules"
    done = python("-c", code)
    assert (done.returncode, done.stderr) == (0, "")


def test_public_names() -> None:
    names = {"Loop", "Metrics", "Stall", "__version__", "new_event_loop", "run", "watch_stalls"}
    if HAS_POLICIES:
        names |= {"EventLoopPolicy", "install"}
    assert set(mioloop.__all__) == names
    assert names <= set(dir(mioloop))
    for name in names - {"__version__"}:
        assert getattr(mioloop, name).__doc__


def test_asking_for_the_policy_does_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in mioloop.__all__:
            assert getattr(mioloop, name) is not None


def test_without_policies_the_names_are_absent_and_say_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(asyncio, "set_event_loop_policy", raising=False)
    for name in ("EventLoopPolicy", "install"):
        assert not hasattr(mioloop, name)
        with pytest.raises(AttributeError, match=r"no event loop policies; use mioloop\.run\(\)"):
            getattr(mioloop, name)


def test_an_unknown_name_is_reported_as_by_any_module() -> None:
    with pytest.raises(AttributeError, match="module 'mioloop' has no attribute 'nothing'"):
        _ = mioloop.nothing
