"""The command line. What `run` promises is what `python` itself does, so `python` is the measure.

Each case runs a program twice, by `python PROGRAM` and by `python -m mioloop run PROGRAM`, and
compares exit status, output and errors to the byte. Private names of CPython on which `run` leans
are listed at the end.
"""

from __future__ import annotations

import inspect
import json
import linecache
import os
import py_compile
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import mioloop

SURROUNDINGS = """
import sys

for name, value in sorted(globals().items()):
    if name not in ("sys", "__builtins__"):
        print(name, repr(value).partition(" at 0x")[0])
print(type(__builtins__), sys.modules["__main__"].__dict__ is globals())
print(sys.argv, sys.path)
"""

LOOP = """
import asyncio

async def main():
    print(type(asyncio.get_running_loop()).__module__)

asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the programs, with one of each kind in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    (tmp_path / "show.py").write_text(SURROUNDINGS)
    (tmp_path / "loop.py").write_text(LOOP)
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(SURROUNDINGS)
    (package / "show.py").write_text(SURROUNDINGS)
    (package / "link.py").symlink_to("../show.py")
    (tmp_path / "empty").mkdir()
    shutil.make_archive(str(tmp_path / "archive"), "zip", package)
    py_compile.compile(str(tmp_path / "show.py"), cfile=str(tmp_path / "compiled.pyc"))
    return tmp_path


def python(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run Python to its end."""
    return subprocess.run(
        [sys.executable, *arguments],
        input=text,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def both(
    *arguments: str, text: str = "", options: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a program by `python` and by mioloop, and demand that they do the same."""
    expected = python(*options, *arguments, text=text)
    actual = python(*options, "-m", "mioloop", "run", *arguments, text=text)
    assert actual.stdout == expected.stdout
    assert actual.stderr == expected.stderr
    assert actual.returncode == expected.returncode
    return actual


# ---------------------------------------------------------------------------------------------
# run: the program's surroundings


@pytest.mark.parametrize(
    "arguments",
    [
        ["show.py"],
        ["./show.py", "a", "-b", "--help", "-m"],
        ["package/../show.py"],
        ["package/show.py"],
        ["package/link.py"],
        ["compiled.pyc", "a"],
        ["package", "a"],
        ["./package/"],
        ["archive.zip", "a"],
        ["-m", "show", "a", "-c"],
        ["-m", "package"],
        ["-m", "package.show"],
        ["-m", "package.link", "--", "a"],
        ["-c", SURROUNDINGS, "a", "-c", "b"],
    ],
    ids=lambda arguments: " ".join(arguments).replace(SURROUNDINGS, "CODE"),
)
@pytest.mark.parametrize("options", [(), ("-P",)], ids=["path", "safe-path"])
def test_surroundings(
    arguments: list[str], options: tuple[str, ...], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if options and arguments[0] == "-m":
        monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    done = both(*arguments, options=options)
    assert done.returncode == 0
    assert "__name__ '__main__'" in done.stdout


def test_surroundings_of_an_absolute_path(folder: Path) -> None:
    assert both(str(folder / "package" / "show.py")).returncode == 0


def test_surroundings_of_standard_input() -> None:
    done = both("-", "a", text=SURROUNDINGS)
    assert done.returncode == 0
    assert "__file__ '<stdin>'" in done.stdout


def test_main_stays_importable_for_threads_and_atexit(folder: Path) -> None:
    (folder / "late.py").write_text("""
import atexit, sys, threading

def look(when):
    main = sys.modules["__main__"]
    print(when, main.here, main.__dict__ is globals())

here = "here"
atexit.register(look, "at exit")
ended = threading.Event()
threading.main_thread()
def wait():
    threading.main_thread().join()
    look("thread")
threading.Thread(target=wait).start()
""")
    assert both("late.py").stdout == "thread here True\nat exit here True\n"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("how", [["workers.py"], ["-m", "workers"]], ids=["script", "module"])
def test_multiprocessing_finds_main(how: list[str], method: str, folder: Path) -> None:
    (folder / "workers.py").write_text(f"""
import multiprocessing, warnings

class Number:
    def __init__(self, value): self.value = value

def double(number): return Number(2 * number.value)

if __name__ == "__main__":
    with multiprocessing.get_context({method!r}).Pool(1) as pool:
        print([number.value for number in pool.map(double, map(Number, range(3)))])
""")
    assert both(*how).stdout == "[0, 2, 4]\n"


# ---------------------------------------------------------------------------------------------
# run: how it ends


FAILURES = {
    "exception": "def f():\n    1 / 0\n\nf()\n",
    "chained": "try:\n    1 / 0\nexcept ArithmeticError as error:\n    raise KeyError from error\n",
    "group": "raise ExceptionGroup('several', [ValueError(1), TypeError(2)])\n",
    "import": "import does_not_exist\n",
    "syntax": "print('not run')\nx y\n",
    "indentation": "if True:\n        1\n    2\n",
    "exit": "import sys\nsys.exit()\n",
    "exit-status": "raise SystemExit(7)\n",
    "exit-text": "import sys\nsys.exit('bye')\n",
    "interrupt": "raise KeyboardInterrupt\n",
    "base-exception": "class Other(BaseException): pass\nraise Other('other')\n",
    "in-a-task": "import asyncio\nasync def main():\n    1 / 0\nasyncio.run(main(), debug=False)\n",
    "excepthook": (
        "import sys, traceback\n"
        "def hook(kind, error, tb):\n"
        "    print(kind, error, [f.name for f in traceback.extract_tb(tb)])\n"
        "    print(sys.excepthook is hook, sys.last_value is error, sys.last_traceback is tb)\n"
        "sys.excepthook = hook\n"
        "1 / 0\n"
    ),
    "default-excepthook": "import sys\nprint(sys.excepthook is sys.__excepthook__)\n1 / 0\n",
    "at-exit": "import atexit\natexit.register(print, 'at exit')\n1 / 0\n",
}


@pytest.mark.parametrize("kind", ["script", "module", "code", "stdin", "folder"])
@pytest.mark.parametrize("failure", FAILURES)
def test_ends_as_python_would(failure: str, kind: str, folder: Path) -> None:
    source = FAILURES[failure]
    if kind == "code":
        both("-c", source)
    elif kind == "stdin":
        both("-", text=source)
    elif kind == "folder":
        (folder / "empty" / "__main__.py").write_text(source)
        both("empty")
    else:
        (folder / "fails.py").write_text(source)
        both(*{"script": ["fails.py"], "module": ["-m", "fails"]}[kind])


@pytest.mark.parametrize(
    "arguments",
    [
        ["missing.py"],
        ["missing/missing.py"],
        ["-m", "missing"],
        ["-m", "package.missing"],
        ["-m", "show.missing"],
        ["-m", "empty"],
        ["empty"],
    ],
    ids=" ".join,
)
def test_a_program_that_is_not_there(arguments: list[str]) -> None:
    assert both(*arguments).returncode in (1, 2)


def test_a_signal_interrupts_asyncio_as_ever(folder: Path) -> None:
    (folder / "sleeps.py").write_text("""
import asyncio, os, signal

async def main():
    try:
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
        await asyncio.sleep(30)
    except asyncio.CancelledError:
        print("cancelled", flush=True)
        raise

asyncio.run(main())
""")
    done = python("-m", "mioloop", "run", "sleeps.py")
    assert done.returncode == -signal.SIGINT
    assert done.stdout == "cancelled\n"
    assert done.stderr.endswith("KeyboardInterrupt\n")
    assert "_command_run" not in done.stderr


# ---------------------------------------------------------------------------------------------
# run: the loop


@pytest.mark.parametrize(
    "arguments", [["loop.py"], ["-m", "loop"], ["-c", LOOP]], ids=["script", "module", "code"]
)
def test_the_loop_is_mioloop_without_a_warning(arguments: list[str]) -> None:
    done = python("-W", "error", "-m", "mioloop", "run", *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{mioloop.Loop.__module__}\n", "")


@pytest.mark.parametrize("factory", ["asyncio.SelectorEventLoop", "OwnLoop"])
def test_a_program_that_names_its_loop_keeps_it(factory: str) -> None:
    code = f"""
import asyncio
class OwnLoop(asyncio.SelectorEventLoop): pass
async def main(): return type(asyncio.get_running_loop())
with asyncio.Runner(loop_factory={factory}) as runner:
    assert runner.run(main()) is {factory}
"""
    done = python("-m", "mioloop", "run", "-c", code)
    assert (done.returncode, done.stderr) == (0, "")


# ---------------------------------------------------------------------------------------------
# info, bench, usage


def test_info_names_versions_and_the_poller() -> None:
    done = python("-W", "error", "-m", "mioloop", "info")
    assert (done.returncode, done.stderr) == (0, "")
    facts = dict(line.split("  ", 1) for line in done.stdout.splitlines())
    facts = {key: value.strip() for key, value in facts.items()}
    assert facts["mioloop"] == mioloop.__version__
    assert facts["python"].startswith(".".join(map(str, sys.version_info[:3])))
    assert facts["poller"] == {"linux": "epoll", "darwin": "kqueue"}[sys.platform]
    assert "GIL" in facts["implementation"]
    assert {"build profile", "build pyo3", "build mio", "build rustc"} <= set(facts)


def test_info_as_json_says_the_same() -> None:
    facts = json.loads(python("-m", "mioloop", "info", "--json").stdout)
    lines = python("-m", "mioloop", "info").stdout.splitlines()
    assert [line.split("  ")[0] for line in lines] == list(facts)
    assert all(isinstance(value, str) and value for value in facts.values())


def test_info_names_no_path() -> None:
    assert os.path.expanduser("~") not in python("-m", "mioloop", "info").stdout


def test_bench_has_its_own_help() -> None:
    done = python("-m", "mioloop", "bench", "--help")
    assert done.returncode == 0
    assert "--quick" in done.stdout


def test_run_and_info_import_nothing_of_the_benchmark() -> None:
    code = "import sys; assert not [name for name in sys.modules if name.startswith('mioloop.b')]"
    assert python("-m", "mioloop", "run", "-c", code).returncode == 0


@pytest.mark.parametrize("command", [[], ["run"], ["info"]])
def test_help_is_printed_and_fine(command: list[str]) -> None:
    done = python("-m", "mioloop", *command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: python -m mioloop")


def test_version() -> None:
    assert python("-m", "mioloop", "--version").stdout == f"mioloop {mioloop.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], ""),
        (["walk"], "mioloop: error: no such command: walk"),
        (["--walk"], "mioloop: error: no such command: --walk"),
        (["run"], "mioloop run: error: nothing to run"),
        (["run", "-m"], "mioloop run: error: -m has no argument"),
        (["run", "-c"], "mioloop run: error: -c has no argument"),
        (["run", "--walk"], "mioloop run: error: --walk is no option"),
        (["info", "-v"], "mioloop info: error: wrong arguments: -v"),
        (["check", "a", "b"], "mioloop check: error: wrong arguments: a b"),
    ],
    ids=str,
)
def test_wrong_usage_says_what_is_right(arguments: list[str], reason: str) -> None:
    done = python("-m", "mioloop", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: python -m mioloop")
    assert done.stderr.splitlines()[-1].startswith(reason)


# ---------------------------------------------------------------------------------------------
# What is private to CPython and leaned on


def test_runpy_runs_modules_as_main() -> None:
    signature = inspect.signature(runpy._run_module_as_main)
    assert list(signature.parameters) == ["mod_name", "alter_argv"]


@pytest.mark.skipif(sys.version_info < (3, 14), reason="older Pythons do not use it for -c")
def test_linecache_registers_code() -> None:
    assert list(inspect.signature(linecache._register_code).parameters) == [
        "code",
        "string",
        "name",
    ]
