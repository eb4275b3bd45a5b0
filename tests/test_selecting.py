"""Selecting mioloop for a whole process, for its children, and in the place of uvloop."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys

import pytest

import mioloop

LOOP = """
import asyncio
async def main():
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]
def found():
    return asyncio.run(main())
"""
SHOW = LOOP + "print(found())\n"

HAS_POLICIES = "EventLoopPolicy" in mioloop.__all__


def python(*arguments: str, **variables: str) -> str:
    """Run Python to its end, without a warning, and give what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, **variables},
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def start_file():
    """Skip where the file that Python reads when it starts is not read."""
    code = "import sys; print('_mioloop_children' in sys.modules)"
    if python("-c", code, MIOLOOP_SELECT="1") != "True\n":
        pytest.skip("mioloop is installed in a folder whose .pth files Python does not read")


# Children ----------------------------------------------------------------------------------------


PARENT = f"""
import subprocess, sys
print(subprocess.run([sys.executable, *OPTIONS, "-c", {SHOW!r}], capture_output=True, text=True))
"""


@pytest.mark.parametrize(
    ("options", "expected"),
    [([], "mioloop"), (["-I"], "asyncio"), (["-S"], "asyncio")],
    ids=["plain", "isolated", "without-site"],
)
def test_what_a_program_starts_runs_on_it_too(start_file, options, expected):
    printed = python("-m", "mioloop", "run", "-c", f"OPTIONS = {options}\n" + PARENT)
    assert f"returncode=0, stdout='{expected}\\n', stderr=''" in printed


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_workers_of_multiprocessing(start_file, tmp_path, method):
    (tmp_path / "program.py").write_text(
        LOOP
        + f"""
import concurrent.futures, multiprocessing, warnings
if __name__ == "__main__":
    warnings.simplefilter("ignore")
    how = multiprocessing.get_context({method!r})
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=how) as pool:
        print(pool.submit(found).result())
"""
    )
    assert python("-m", "mioloop", "run", str(tmp_path / "program.py")) == "mioloop\n"


def test_grandchildren(start_file):
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SHOW!r}])"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    assert python("-m", "mioloop", "run", "-c", child) == "mioloop\n"


@pytest.mark.parametrize("value", ["", "0"])
def test_the_variable_can_be_switched_off(start_file, value):
    assert python("-c", SHOW, MIOLOOP_SELECT=value) == "asyncio\n"


def test_the_variable_alone_selects(start_file):
    assert python("-c", SHOW, MIOLOOP_SELECT="1") == "mioloop\n"


def test_a_child_without_asyncio_imports_nothing(start_file):
    code = "import sys; print([name for name in sys.modules if 'asyncio' in name or 'mio' in name])"
    assert python("-c", code, MIOLOOP_SELECT="1") == "['_mioloop_children']\n"
    assert python("-c", code) == "[]\n"


def test_asyncio_looks_as_ever_in_a_child(start_file):
    code = """
import asyncio, importlib, importlib.util
print(type(asyncio.__spec__.loader).__name__, asyncio.__loader__ is asyncio.__spec__.loader)
print(importlib.util.find_spec("asyncio") is asyncio.__spec__, asyncio.__spec__.name)
print(importlib.reload(asyncio) is asyncio)
"""
    assert python("-c", code, MIOLOOP_SELECT="1") == python("-c", code)


def test_a_submodule_first(start_file):
    code = "from asyncio.events import new_event_loop\n" + SHOW
    assert python("-c", code, MIOLOOP_SELECT="1") == "mioloop\n"


# In the place of uvloop --------------------------------------------------------------------------


@pytest.mark.skipif(not HAS_POLICIES, reason="this Python has no policies, so no install()")
@pytest.mark.parametrize("way", ["install", "run", "child"])
def test_uvloop_is_mioloop_where_the_user_says_so(start_file, way):
    code = """
import importlib, importlib.util, sys, warnings
assert importlib.util.find_spec("uvloop").name == "uvloop"
assert "uvloop" not in sys.modules
import asyncio, mioloop, uvloop
assert uvloop.Loop is mioloop.Loop and uvloop.__version__ == mioloop.__version__
assert uvloop.__name__ == uvloop.__spec__.name == "uvloop"
import uvloop.loop
assert uvloop.loop.Loop is mioloop.Loop
from uvloop import *
assert run is mioloop.run and new_event_loop is mioloop.new_event_loop
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    assert isinstance(asyncio.get_event_loop_policy(), EventLoopPolicy)
    install()
importlib.reload(uvloop)
"""
    code += SHOW
    if way == "install":
        begin = "import warnings, mioloop\nwith warnings.catch_warnings():\n"
        begin += "    warnings.simplefilter('ignore'); mioloop.install(as_uvloop=True)\n"
        assert python("-c", begin + code) == "mioloop\n"
    elif way == "run":
        assert python("-m", "mioloop", "run", "--as-uvloop", "-c", code) == "mioloop\n"
    else:
        assert python("-c", code, MIOLOOP_SELECT="as-uvloop") == "mioloop\n"


@pytest.mark.skipif(not HAS_POLICIES, reason="this Python has no policies, so no install()")
def test_a_real_uvloop_is_not_replaced():
    code = """
import sys, types, warnings
import mioloop
real = sys.modules["uvloop"] = types.ModuleType("uvloop")
warnings.simplefilter("ignore")
try:
    mioloop.install(as_uvloop=True)
except RuntimeError as error:
    print(error)
print(sys.modules["uvloop"] is real)
print(type(__import__("asyncio").new_event_loop()).__module__.startswith("asyncio"))
"""
    printed = python("-c", code + "sys.stdout.flush(); __import__('os')._exit(0)")
    assert printed.startswith("mioloop cannot stand in for uvloop: uvloop itself is imported")
    assert printed.endswith("\nTrue\nTrue\n")


@pytest.mark.parametrize("how", [(), ("-m", "mioloop", "run")], ids=["plain", "run"])
def test_uvloop_is_not_touched_otherwise(how):
    code = """
import importlib.util, sys, mioloop
spec = importlib.util.find_spec("uvloop")
print(spec is None or spec.origin.endswith("__init__.py"))
"""
    assert python(*how, "-c", code) == "True\n"


def test_mioloop_imported_by_the_name_of_uvloop():
    code = """
import asyncio
import mioloop as uvloop

async def main():
    assert isinstance(asyncio.get_running_loop(), uvloop.Loop)
    return 5

assert uvloop.run(main()) == 5
assert uvloop.run(main(), loop_factory=uvloop.new_event_loop, debug=True) == 5
with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    assert runner.run(main()) == 5
loop = uvloop.Loop()
assert loop.run_until_complete(main()) == 5
loop.close()
if hasattr(uvloop, "EventLoopPolicy"):
    loop = uvloop.EventLoopPolicy().new_event_loop()
    assert loop.run_until_complete(main()) == 5
    loop.close()
async def other():
    return type(asyncio.get_running_loop())
assert uvloop.run(other(), loop_factory=asyncio.SelectorEventLoop) is asyncio.SelectorEventLoop
"""
    assert python("-c", code) == ""


# The check ---------------------------------------------------------------------------------------


def test_check_tells_of_what_is_installed():
    found = json.loads(python("-m", "mioloop", "check", "--json"))
    for name, facts in found.items():
        assert importlib.metadata.version(name) == facts["version"]
        assert facts["takes"] in {"asyncio", "uvloop", "rloop"}
        assert "mioloop" in facts["line"]
    lines = python("-m", "mioloop", "check").splitlines()
    assert [line.split()[0] for line in lines] == ["program", *found, "others"]


@pytest.mark.skipif(not HAS_POLICIES, reason="this Python has no policies to select it by")
def test_check_sees_what_is_selected():
    found = json.loads(
        python("-m", "mioloop", "run", "--as-uvloop", "-m", "mioloop", "check", "--json")
    )
    assert {facts["takes"] for facts in found.values()} <= {"mioloop", "rloop"}


def test_check_has_no_other_arguments():
    done = subprocess.run(
        [sys.executable, "-m", "mioloop", "check", "--walk"], capture_output=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith(b"usage: ")
