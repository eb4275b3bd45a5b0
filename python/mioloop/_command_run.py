"""`python -m mioloop run`: runs an unmodified program with mioloop as its event loop.

Owns the program's surroundings: `__main__`, `sys.argv`, `sys.path[0]`, exit and traceback are what
`python` itself gives the same program. Modules, directories and zip files are found and run by the
function that the interpreter itself calls for them; scripts, `-c` and standard input, which the
interpreter runs in C, are run here by the same rules.

Rules: the loop is selected through the event loop policy, so a program that names its loop (a
`loop_factory`, a loop class, a policy) keeps it, unless it names uvloop and the user said
`--as-uvloop`. Nothing is patched. An exception travels on to the
interpreter, which prints it and exits as ever; only the launcher's frames are taken off before.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import importlib.machinery
import importlib.util
import io
import linecache
import math
import os
import pkgutil
import runpy
import sys
import textwrap
import types
from collections.abc import Callable

USAGE = """\
usage: python -m mioloop run [OPTIONS] SCRIPT [ARGS]
       python -m mioloop run [OPTIONS] -m MODULE [ARGS]
       python -m mioloop run [OPTIONS] -c CODE [ARGS]

SCRIPT is a file, a directory or zip file with a __main__.py, or - for standard input.
Python processes that the program starts run on mioloop too.

  --as-uvloop             answer `import uvloop` with mioloop, for servers that know no other
                          loop by name
  --stats                 print what the process's loops have done, at exit and on SIGUSR1
  --watch-stalls SECONDS  log the stack of a loop that has not come to its next turn for so long
"""

_LOADER = importlib.machinery.BuiltinImporter
"""What `python` sets as `__main__.__loader__` where the program does not come from a file."""


def main(argv: list[str]) -> int:
    """Run the program that the arguments name.

    Args:
        argv: the arguments after `run`.

    Returns:
        The exit status: 0 when the program ran to its end, 2 when there is none to run.

    Raises:
        BaseException: what the program lets escape, SystemExit included.
    """
    try:
        options, argv = _take_options(argv)
    except ValueError as error:
        return _refuse(str(error))
    match argv:
        case ["-h" | "--help"]:
            sys.stdout.write(USAGE)
            return 0
        case ["-m", name, *arguments]:
            run, argv = functools.partial(_run_module, name), ["-m", *arguments]
        case ["-c", source, *arguments]:
            run, argv = functools.partial(_run_source, source), ["-c", *arguments]
        case ["-", *_]:
            run = functools.partial(_run_stdin)
        case [path, *_] if not path.startswith("-"):
            run = functools.partial(_run_path, path)
        case [option, *_]:
            has_none = "has no argument" if option in ("-m", "-c") else "is no option"
            return _refuse(f"{option} {has_none}")
        case _:
            return _refuse("nothing to run")
    _select_loop(as_uvloop=options.as_uvloop)
    if options.stats:
        from mioloop import _command_stats

        _command_stats.begin()
    with _watching(options.watch_stalls):
        return _launch(run, argv)


class _Options:
    as_uvloop: bool = False
    stats: bool = False
    watch_stalls: float = 0


def _take_options(argv: list[str]) -> tuple[_Options, list[str]]:
    """The options before the program, and the rest; ValueError: one is wrong."""
    options = _Options()
    while True:
        match argv:
            case ["--as-uvloop", *argv]:
                options.as_uvloop = True
            case ["--stats", *argv]:
                options.stats = True
            case ["--watch-stalls", *values]:
                options.watch_stalls, argv = _seconds_of(values), values[1:]
            case _:
                return options, argv


def _seconds_of(values: list[str]) -> float:
    with contextlib.suppress(IndexError, ValueError):
        if 0 < (seconds := float(values[0])) < math.inf:
            return seconds
    raise ValueError("--watch-stalls takes a number of seconds above zero")


def _refuse(reason: str) -> int:
    sys.stderr.write(f"{USAGE}mioloop run: error: {reason}\n")
    return 2


def _watching(seconds: float) -> contextlib.AbstractContextManager[None]:
    if not seconds:
        return contextlib.nullcontext()
    from mioloop._stalls import watch_stalls

    return watch_stalls(seconds)


def _launch(run: Callable[[], int], argv: list[str]) -> int:
    sys.argv = argv
    if not sys.flags.safe_path:
        # The current directory, which is there for `python -m mioloop`.
        del sys.path[0]
    try:
        return run()
    except SystemExit:
        raise
    except BaseException:
        _hide_launcher_in_report()
        raise


def _select_loop(*, as_uvloop: bool) -> None:
    """Make mioloop the loop that asyncio makes when a program does not name one.

    Up to Python 3.15 `asyncio.run`, `asyncio.Runner` and `asyncio.new_event_loop` ask the policy.
    Children find the variable when they start: see `_mioloop_children`.
    """
    from mioloop._policy import install_silently

    install_silently(as_uvloop=as_uvloop)
    os.environ["MIOLOOP_SELECT"] = "as-uvloop" if as_uvloop else "1"


def _run_module(name: str) -> int:
    """As `python -m NAME`."""
    _put_first_in_path(os.getcwd())
    _new_main()
    runpy._run_module_as_main(name)  # type: ignore[attr-defined]
    return 0


def _run_path(path: str) -> int:
    """As `python PATH`, for a source or bytecode file, a directory, or a zip file."""
    path = path if os.path.isabs(path) else os.path.join(os.getcwd(), path)
    if pkgutil.get_importer(path) is not None:
        sys.path.insert(0, path)
        _new_main()
        runpy._run_module_as_main("__main__", alter_argv=False)  # type: ignore[attr-defined]
        return 0
    try:
        with io.open_code(path) as file:
            content = file.read()
    except OSError as error:
        command, reason = sys.orig_argv[0], f"[Errno {error.errno}] {error.strerror}"
        sys.stderr.write(f"{command}: can't open file {path!r}: {reason}\n")
        return 2
    _put_first_in_path(os.path.dirname(os.path.realpath(path)))
    if content.startswith(importlib.util.MAGIC_NUMBER):
        bytecode_loader = importlib.machinery.SourcelessFileLoader("__main__", path)
        namespace = _new_main(path, bytecode_loader)
        code = bytecode_loader.get_code("__main__")
        assert code is not None, "a bytecode file that has no code raises ImportError"
    else:
        namespace = _new_main(path, importlib.machinery.SourceFileLoader("__main__", path))
        code = compile(content, path, "exec", dont_inherit=True)
    exec(code, namespace)
    return 0


def _run_source(source: str) -> int:
    """As `python -c SOURCE`."""
    _put_first_in_path("")
    if sys.version_info >= (3, 14):
        source = textwrap.dedent(source)
    code = compile(source, "<string>", "exec", dont_inherit=True)
    # Where `python` shows the lines of -c in tracebacks, it has put them where linecache looks.
    if sys.version_info >= (3, 14):
        linecache._register_code(code, source, "<string>")
    elif sys.version_info >= (3, 13):
        linecache.cache["<string>"] = len(source), None, source.splitlines(True), "<string>"
    exec(code, _new_main())
    return 0


def _run_stdin() -> int:
    """As `python -`, for standard input that is not a terminal."""
    _put_first_in_path("")
    namespace = _new_main("<stdin>")
    exec(compile(sys.stdin.buffer.read(), "<stdin>", "exec", dont_inherit=True), namespace)
    return 0


def _put_first_in_path(folder: str) -> None:
    if not sys.flags.safe_path:
        sys.path.insert(0, folder)


def _new_main(file: str | None = None, loader: object = _LOADER) -> dict[str, object]:
    """Put an empty `__main__` in place of the launcher's own, and return its namespace.

    It stays there when the program has ended, for its threads, atexit functions and pickles.
    """
    main = types.ModuleType("__main__")
    namespace = vars(main)
    namespace.update(__builtins__=builtins, __loader__=loader)
    if sys.version_info < (3, 14):
        namespace["__annotations__"] = {}
    if file is not None:
        namespace["__file__"] = file
        if sys.version_info < (3, 15):
            namespace["__cached__"] = None
    sys.modules["__main__"] = main
    return namespace


def _hide_launcher_in_report() -> None:
    """Have the interpreter report the exception under way without the launcher's frames.

    The frames are added again while the exception travels up through them, so they can be taken off
    only at the end: by `sys.excepthook`, for this one call, which then makes way for the program's.
    """
    program_hook = sys.excepthook

    def report(
        kind: type[BaseException], error: BaseException, traceback: types.TracebackType | None
    ) -> None:
        sys.excepthook = program_hook
        traceback = _after_launcher(traceback)
        error.__traceback__ = sys.last_traceback = traceback
        program_hook(kind, error, traceback)

    sys.excepthook = report


def _after_launcher(traceback: types.TracebackType | None) -> types.TracebackType | None:
    """The part of a traceback below the last frame of this module."""
    rest = traceback
    while traceback is not None:
        if traceback.tb_frame.f_globals is globals():
            rest = traceback.tb_next
        traceback = traceback.tb_next
    return rest
