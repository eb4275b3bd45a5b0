"""The command line: `python -m mioloop run|check|info|bench`.

Owns the choice of the command and the usage text.

Rules: a command's module is imported when that command is asked for, so that `run` starts fast and
`bench` may need packages that the others do without.
"""

from __future__ import annotations

import importlib
import sys

USAGE = """\
usage: python -m mioloop COMMAND ...

  run SCRIPT [ARGS]      run a Python program with mioloop as its event loop;
  run -m MODULE [ARGS]   everything else is as `python` itself would have it
  run -c CODE [ARGS]     (run --help says more)
  check                  tell which loop the servers and tools installed here take, and
                         how they take mioloop
  info [--json]          print versions, platform and build facts for a bug report
  bench [OPTIONS]        compare event loops on this machine (bench --help says more)

  -h, --help             print this text
  -V, --version          print mioloop's version
"""

COMMANDS = {
    "run": "mioloop._command_run",
    "check": "mioloop._command_check",
    "info": "mioloop._command_info",
    "bench": "mioloop.bench",
}


def main(argv: list[str]) -> int:
    """Run the command line.

    Args:
        argv: the arguments after `python -m mioloop`.

    Returns:
        The exit status: 0 success, 1 the command failed, 2 wrong usage.

    Raises:
        BaseException: whatever the program of `run` lets escape, SystemExit included.
    """
    match argv:
        case [name, *rest] if name in COMMANDS:
            status: int = importlib.import_module(COMMANDS[name]).main(rest)
            return status
        case ["-h" | "--help"]:
            sys.stdout.write(USAGE)
            return 0
        case ["-V" | "--version"]:
            import mioloop

            sys.stdout.write(f"mioloop {mioloop.__version__}\n")
            return 0
        case _:
            wrong = f"mioloop: error: no such command: {argv[0]}\n" if argv else ""
            sys.stderr.write(USAGE + wrong)
            return 2


if __name__ == "__main__":
    # A program that `run` brought to its end leaves as `python` does, without a SystemExit.
    if status := main(sys.argv[1:]):
        sys.exit(status)
