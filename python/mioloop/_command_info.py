"""`python -m mioloop info`: what a bug report should say about this installation.

Owns the list of facts. Rules: no fact names a path, a user or a host, so that the output can be
published as it is.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import sysconfig

from mioloop._core import build_info

USAGE = "usage: python -m mioloop info [--json]\n"


def main(argv: list[str]) -> int:
    """Print the facts, one per line in two columns, or as one JSON object.

    Args:
        argv: the arguments after `info`: none, or `--json`.

    Returns:
        The exit status: 0, or 2 for wrong usage.
    """
    match argv:
        case []:
            facts = collect()
            width = max(map(len, facts))
            sys.stdout.write("".join(f"{key:{width}}  {value}\n" for key, value in facts.items()))
        case ["--json"]:
            sys.stdout.write(json.dumps(collect(), indent=2) + "\n")
        case ["-h" | "--help"]:
            sys.stdout.write(USAGE)
        case _:
            wrong = f"mioloop info: error: wrong arguments: {' '.join(argv)}\n"
            sys.stderr.write(USAGE + wrong)
            return 2
    return 0


def collect() -> dict[str, str]:
    """Collect the facts, in the order in which they are printed.

    Returns:
        Names and values. The names that begin with `build ` are the extension module's.
    """
    build = build_info()
    facts = {
        "mioloop": build.pop("version"),
        "python": f"{platform.python_version()} ({', '.join(platform.python_build())})",
        "implementation": f"{platform.python_implementation()}, {_gil()}",
        "platform": platform.platform(),
        "kernel": f"{platform.system()} {platform.release()}",
        "machine": f"{platform.machine()}, {os.cpu_count()} processors",
        "libc": " ".join(platform.libc_ver()).strip() or "unknown",
        "poller": build.pop("poller"),
    }
    return facts | {f"build {key}": value for key, value in build.items()}


def _gil() -> str:
    if sys.version_info < (3, 13) or not sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "with the GIL"
    # An extension module that does not know free threading switches the GIL on again.
    is_gil_enabled = sys._is_gil_enabled()  # noqa: SLF001 - the name that Python documents
    return "free-threaded, GIL " + ("on" if is_gil_enabled else "off")
