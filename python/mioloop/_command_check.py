"""`python -m mioloop check`: which loop the programs here take, and how they take mioloop.

Owns the table of programs. Rules: nothing is started, and of the programs only the metadata is
read; what a program takes is found by asking as it would ask, for asyncio's loop or for uvloop.
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.metadata
import importlib.util
import json
import sys
import warnings

USAGE = "usage: python -m mioloop check [--json]\n"

_RUN = "python -m mioloop run"


@dataclasses.dataclass(frozen=True)
class Program:
    """One program that chooses a loop."""

    distribution: str
    prefers: tuple[str, ...]
    """The packages whose loop it takes by itself, where they are installed; else asyncio's."""
    line: str
    """What the user writes to have mioloop."""


PROGRAMS = (
    Program("aiohttp", (), "web.run_app(app, loop=mioloop.new_event_loop())"),
    Program(
        "anyio", (), 'anyio.run(main, backend_options={"loop_factory": mioloop.new_event_loop})'
    ),
    Program("daphne", (), f"{_RUN} -m daphne app:application"),
    Program("distributed", (), f"{_RUN} SCRIPT"),
    Program(
        "granian", ("rloop", "uvloop"), f"{_RUN} -m granian --interface asgi --loop asyncio app:app"
    ),
    Program(
        "gunicorn", ("uvloop",), "gunicorn -k mioloop.integrations.gunicorn.AsgiWorker app:app"
    ),
    Program("hypercorn", (), f"{_RUN} -m hypercorn app:app"),
    Program("ipykernel", (), f"{_RUN} -m jupyter lab"),
    Program("ipython", (), f"{_RUN} -m IPython"),
    Program("pytest-asyncio", (), "pytest --mioloop"),
    Program("quart", (), f"{_RUN} -m hypercorn app:app"),
    Program("ray", ("uvloop",), f"{_RUN} --as-uvloop SCRIPT"),
    Program("sanic", ("uvloop",), f"{_RUN} --as-uvloop -m sanic app:app"),
    Program("tornado", (), "mioloop.run(main())"),
    Program("twisted", (), "asyncioreactor.install(mioloop.new_event_loop())"),
    Program("uvicorn", ("uvloop",), "uvicorn --loop mioloop:new_event_loop app:app"),
    Program(
        "uvicorn-worker",
        ("uvloop",),
        "gunicorn -k mioloop.integrations.gunicorn.UvicornWorker app:app",
    ),
)


def main(argv: list[str]) -> int:
    """Print a line for each program that is installed, or one JSON object of them.

    Args:
        argv: the arguments after `check`: none, or `--json`.

    Returns:
        The exit status: 0, or 2 for wrong usage.
    """
    match argv:
        case []:
            sys.stdout.write(_as_text(collect()))
        case ["--json"]:
            sys.stdout.write(json.dumps(collect(), indent=2) + "\n")
        case ["-h" | "--help"]:
            sys.stdout.write(USAGE)
        case _:
            wrong = f"mioloop check: error: wrong arguments: {' '.join(argv)}\n"
            sys.stderr.write(USAGE + wrong)
            return 2
    return 0


def collect() -> dict[str, dict[str, str]]:
    """Look at what is installed.

    Returns:
        For each program its `version`, the loop that it `takes` by itself, and the `line` that
        makes it mioloop.
    """
    default = _loop_of_asyncio()
    found = {}
    for program in PROGRAMS:
        try:
            version = importlib.metadata.version(program.distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
        preferred = [taken for name in program.prefers if (taken := _answer_to_import(name))]
        takes = (*preferred, default)[0]
        found[program.distribution] = {"version": version, "takes": takes, "line": program.line}
    return found


def _loop_of_asyncio() -> str:
    """The package whose loop a program gets that names none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        loop = asyncio.new_event_loop()
    loop.close()
    return type(loop).__module__.partition(".")[0]


def _answer_to_import(name: str) -> str | None:
    """The package that a program gets which imports that one, or None."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        return None
    return "mioloop" if spec.origin == "mioloop" else name


def _as_text(found: dict[str, dict[str, str]]) -> str:
    rows = [("program", "version", "takes", "has mioloop by")]
    rows += [(name, fact["version"], fact["takes"], fact["line"]) for name, fact in found.items()]
    rows.append(("others", "", "", f"{_RUN} PROGRAM"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "".join(
        "  ".join([*(f"{text:{width}}" for text, width in zip(row, widths, strict=False)), row[3]])
        + "\n"
        for row in rows
    )
