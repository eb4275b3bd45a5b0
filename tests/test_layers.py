"""The rules of the tree: layers look down only, files stay small, `unsafe` stays where it belongs.

Owns the list of layers. A new module at the top of `src/` gets its line there. Only paths through
the crate's root can leave a layer, so `use crate::...`, inline `crate::...` and the `super::...`
that reach the root are all that is looked at.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "src").rglob("*.rs"))

LAYERS = {
    "sys": 0,
    "reactor": 1,
    "py": 2,
    "errors": 2,
    "event_loop": 3,
    "transport": 4,
    "sock": 4,
    "executor": 4,
    "resolver": 4,
    "runtime": 5,
    "embed": 5,
    "lib": 6,
}

UPWARD = {
    # Readiness comes from below and must reach the transport that it is for: `Source::on_ready` is
    # one match over what can be registered, and the only place where a lower layer knows a higher.
    ("src/event_loop/source.rs", "transport"),
    ("src/event_loop/source.rs", "executor"),
    # A Rust program has the whole extension module inside: the importer makes it.
    ("src/embed/package.rs", "lib"),
}

UNSAFE_FOLDERS = ("sys", "py")
LINES = 450

WRITTEN = re.compile(
    r"""
      //[^\n]*                              # a comment to the end of the line
    | /\*.*?\*/                             # a comment between marks (Rust's may nest; ours do not)
    | b?r(?P<hashes>\#*)".*?"(?P=hashes)    # a raw string
    | b?c?"(?:\\.|[^"\\])*"                 # a string
    | '(?:\\[^']+|[^\\'])'                  # a character, as opposed to a lifetime
    """,
    re.VERBOSE | re.DOTALL,
)

PATH = re.compile(
    r"""
    (?<!\bin\ ) (?<![\w:]) \$? crate \s*::\s* (?P<crate>\{|\w+!?)
    | (?<![\w:]) (?P<supers>(?:super\s*::\s*)+) (?P<named>\{|\w+!?)
    """,
    re.VERBOSE,
)


def code_of(text: str) -> str:
    """Rust source without comments and with empty strings; line numbers stay."""
    return WRITTEN.sub(lambda found: "\n" * found[0].count("\n") or '""', text)


def layer_name(path: Path) -> str:
    """The module at the top of the crate that a file belongs to."""
    return path.relative_to(ROOT / "src").parts[0].removesuffix(".rs")


def names_in_braces(code: str, start: int) -> list[str]:
    """The first names of the paths of a `{...}` that begins at that place."""
    depth, names, at_start = 0, [], False
    for found in re.compile(r"[{},]|\w+").finditer(code, start):
        token = found[0]
        if token == "{":
            depth += 1
        elif token == "}":
            depth -= 1
            if depth == 0:
                break
        elif token != "," and depth == 1 and at_start:
            names.append(token)
        at_start = token in "{,"
    return names


def macro_home(name: str) -> str:
    """The layer that defines a macro; macros are named by the root wherever they are."""
    for path in SOURCES:
        if re.search(rf"macro_rules!\s*{name}\b", code_of(path.read_text())):
            return layer_name(path)
    return "lib"


def references(code: str, depth: int) -> list[tuple[int, str]]:
    """Lines, and the modules of the root that they name, in a file `depth` folders below it."""
    found = []
    for match in PATH.finditer(code):
        if match["supers"] and match["supers"].count("super") < depth:
            continue
        group = "crate" if match["crate"] else "named"
        name = match[group]
        names = names_in_braces(code, match.start(group)) if name == "{" else [name]
        line = code.count("\n", 0, match.start()) + 1
        for name in names:
            if name in LAYERS:
                found.append((line, name))
            elif name.endswith("!"):
                found.append((line, macro_home(name[:-1])))
            elif match["crate"]:
                # What the root itself has, such as a type re-exported there, belongs to lib.rs. A
                # `super::` that names no layer is in an inline module, such as that of the tests.
                found.append((line, "lib"))
    return found


def upward(path: Path, code: str) -> list[str]:
    """The arrows of a file that point up, as texts."""
    own = layer_name(path)
    parts = path.relative_to(ROOT / "src").parts
    depth = len(parts) - (path.name == "mod.rs")
    name = path.relative_to(ROOT).as_posix()
    return [
        f"{name}:{line}: {own} (layer {LAYERS[own]}) uses {other} (layer {LAYERS[other]})"
        for line, other in references(code, depth)
        if LAYERS[other] > LAYERS[own] and (name, other) not in UPWARD
    ]


def test_every_module_has_a_layer() -> None:
    assert SOURCES
    assert {layer_name(path) for path in SOURCES} <= set(LAYERS)


def test_layers_look_down_only() -> None:
    arrows = [arrow for path in SOURCES for arrow in upward(path, code_of(path.read_text()))]
    assert not arrows, "\n".join(arrows)


def test_unsafe_stays_in_sys_and_py() -> None:
    places = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in SOURCES
        if layer_name(path) not in UNSAFE_FOLDERS
        for number, line in enumerate(code_of(path.read_text()).splitlines(), 1)
        if re.search(r"\bunsafe\b", line)
    ]
    assert not places, "\n".join(places)


def test_files_stay_small() -> None:
    suffixes = {".rs", ".py", ".pyi"}
    sizes = {
        path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines())
        for folder in ("src", "python", "tests", "benches", "examples")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in suffixes
    }
    assert {name: size for name, size in sizes.items() if size > LINES} == {}


@pytest.mark.parametrize(
    ("file", "code", "modules"),
    [
        ("sys/a.rs", "use crate::transport::Stream;", ["transport"]),
        (
            "sys/a.rs",
            "use crate::{py::names, event_loop::{core::Core, Loop}};",
            ["py", "event_loop"],
        ),
        ("sys/a.rs", "fn f() { crate::runtime::spawn() }", ["runtime"]),
        ("sys/a.rs", "pub(in crate::event_loop) fn f() {}", []),
        ("sys/a.rs", "pub(crate) fn f() {}", []),
        ("sys/a.rs", "use crate::Loop;", ["lib"]),
        ("sys/a.rs", "use super::super::py::names;", ["py"]),
        ("sys/a.rs", "use super::socket; mod tests { use super::*; }", []),
        ("sys/mod.rs", "use super::{py, reactor::Poller};", ["py", "reactor"]),
        ("errors.rs", "use super::event_loop;", ["event_loop"]),
        ("sys/a.rs", "$crate::py::call()", ["py"]),
        ("sys/a.rs", 'let text = "use crate::py;"; // crate::py\n/* crate::py */', []),
        (
            "sys/a.rs",
            "let text = r#\"crate::py \"\" \"#; let c = '\"'; crate::py::x('\\'')",
            ["py"],
        ),
        ("sys/a.rs", "mycrate::py::x(); other::crate_like::y();", []),
    ],
)
def test_what_counts_as_an_arrow(file: str, code: str, modules: list[str]) -> None:
    path = ROOT / "src" / file
    arrows = [arrow.split(" uses ")[1].split(" ")[0] for arrow in upward(path, code_of(code))]
    assert arrows == modules
