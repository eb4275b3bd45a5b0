"""Child watchers that a program chose. Python 3.14 has none any more."""

import asyncio
import subprocess
import sys

import pytest

if sys.version_info >= (3, 14):
    pytest.skip("there are no child watchers any more", allow_module_level=True)

PIPE = subprocess.PIPE
pytestmark = [
    pytest.mark.usefixtures("no_child_left"),
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning"),
]


@pytest.fixture
def watcher_of(loop, own_sigchld):
    """Makes a child watcher of a kind, and has asyncio use it."""
    made = []

    def make(kind):
        made.append(kind())
        asyncio.set_event_loop(loop)
        made[0].attach_loop(loop)
        asyncio.set_child_watcher(made[0])
        return made[0]

    yield make
    asyncio.set_child_watcher(None)
    for watcher in made:
        watcher.close()
    asyncio.set_event_loop(None)


async def exit_code():
    process = await asyncio.create_subprocess_shell("exit 3")
    return await process.wait()


@pytest.mark.parametrize("name", ["Safe", "Fast", "MultiLoop", "Threaded", "Pidfd"])
async def test_a_chosen_watcher(loop, watcher_of, name, monkeypatch):
    kind = getattr(asyncio, f"{name}ChildWatcher")
    if name in ("Threaded", "Pidfd"):
        # asyncio's own could be the default.
        kind = type(name, (kind,), {})
    watcher = watcher_of(kind)
    asked = []
    add = watcher.add_child_handler

    def look(pid, *arguments):
        asked.append(pid)
        return add(pid, *arguments)

    monkeypatch.setattr(watcher, "add_child_handler", look)
    process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE)
    assert asked == [process.pid]
    assert await process.communicate(b"text") == (b"text", None)
    assert process.returncode == 0


async def test_a_watcher_without_a_loop(loop):
    asyncio.set_child_watcher(asyncio.SafeChildWatcher())
    try:
        with pytest.raises(RuntimeError, match=r"get_child_watcher.* is not activated"):
            await asyncio.create_subprocess_exec("/bin/true")
    finally:
        asyncio.set_child_watcher(None)


async def test_a_policy_with_a_watcher(loop):
    watcher = asyncio.ThreadedChildWatcher()

    class Policy(asyncio.DefaultEventLoopPolicy):
        def get_child_watcher(self):
            asked.append(1)
            return watcher

    asked = []
    asyncio.set_event_loop_policy(Policy())
    try:
        assert await exit_code() == 3
    finally:
        asyncio.set_event_loop_policy(None)
    assert asked == [1]


async def test_a_policy_without_watchers(loop, mioloop_only):
    """asyncio starts no process then."""

    class Policy(asyncio.events.BaseDefaultEventLoopPolicy):
        _loop_factory = asyncio.SelectorEventLoop

    asyncio.set_event_loop_policy(Policy())
    try:
        assert await exit_code() == 3
    finally:
        asyncio.set_event_loop_policy(None)
