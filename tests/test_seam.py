"""The seam: every private name of CPython that mioloop leans on, checked on the running Python.

The table of these names is in `seam.py`. The sources are searched for private names, and one that
is missing in the table fails a test; so does a line of the table that nothing needs any more.

Rules: CPython is checked without importing mioloop, so that a new Python can be tried before there
is a build for it. Our side is read from its sources; the stubs stand for Rust (stubtest compares).
"""

from __future__ import annotations

import ast
import asyncio
import ctypes  # noqa: F401  (here, so that no test seems to leave its library open)
import importlib
import inspect
import pkgutil
import re
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from seam import REPEATED, TABLE, TWINS, Line
from test_layers import ROOT, SOURCES, WRITTEN, code_of

PACKAGE = ROOT / "python" / "mioloop"
MODULES = sorted(PACKAGE.rglob("*.py"))
OWN = ("loop", "connect", "signals", "processes", "policy")
SEAM = [PACKAGE / f"_{name}.py" for name in OWN]
STUBS = sorted(PACKAGE.glob("_core*.pyi"))


def is_private(name: str) -> bool:
    return re.fullmatch(r"_[A-Za-z]\w*", name) is not None


def listed() -> set[str]:
    """The names of the table, for all Pythons, without their calls."""
    return {entry.partition("(")[0] for line in TABLE for entry in line.names}


# --- what CPython has ---------------------------------------------------------------------------


def resolve(place: str) -> Any:
    if place.endswith("()"):
        return pkgutil.resolve_name(place[:-2])()
    return pkgutil.resolve_name(place)


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(inspect.getsource(importlib.import_module(module)))


def asyncio_modules() -> list[str]:
    """asyncio's modules that this system can import."""
    skipped = ("asyncio.__main__", "asyncio.proactor", "asyncio.windows")
    found = [info.name for info in pkgutil.iter_modules(asyncio.__path__, "asyncio.")]
    return ["asyncio", *(name for name in found if not name.startswith(skipped))]


def asked_names(tree: ast.AST) -> set[str]:
    """What the code looks up on any object, also by `getattr`."""
    found = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return found | {text for text in texts if isinstance(text, str)}


def has_name(home: Any, name: str) -> bool:
    """Whether an object has it, or, if it is a class, its instances from their making on."""
    if hasattr(home, name):
        return True
    makers = [
        getattr(vars(base).get(maker), "__func__", vars(base).get(maker))
        for base in getattr(home, "__mro__", ())
        for maker in ("__init__", "_create")
    ]
    return any(name in maker.__code__.co_names for maker in makers if inspect.isfunction(maker))


def bind(home: Any, entry: str) -> None:
    """Check that what `name(a, b, c=d)` names takes such a call; TypeError if not."""
    call = ast.parse(entry, mode="eval").body
    assert isinstance(call, ast.Call)
    name, _, _ = entry.partition("(")
    function = getattr(home, name)
    is_method = inspect.isclass(home) and inspect.isfunction(function)
    keywords = {keyword.arg: None for keyword in call.keywords}
    count = len(call.args) + is_method
    inspect.signature(function).bind(*[None] * count, **keywords)


NOW = [line for line in TABLE if line.since <= sys.version_info < line.before]


@pytest.mark.parametrize("line", NOW, ids=str)
def test_cpython_has_what_the_table_says(line: Line) -> None:
    if line.kind == "asks for":
        asked = asked_names(tree_of(line.place))
        missing = [name for name in line.names if name not in asked]
        assert not missing, f"{line.place} does not ask for {missing} any more"
        return
    home = resolve(line.place)
    for entry in line.names:
        name, is_call, _ = entry.partition("(")
        assert has_name(home, name), f"{line.place} has no {name} any more"
        if is_call:
            bind(home, entry)


def test_a_wrong_line_would_fail() -> None:
    assert not has_name(asyncio.SelectorEventLoop, "_no_such_name")
    assert has_name(asyncio.SelectorEventLoop, "_signal_handlers")
    assert "_no_such_name" not in asked_names(tree_of("asyncio.base_events"))
    for call in ("_check_signal()", "_check_signal(sig, more)", "_check_signal(wrong=sig)"):
        with pytest.raises(TypeError):
            bind(asyncio.SelectorEventLoop, call)


def test_what_rust_imports_is_there() -> None:
    code = (ROOT / "src" / "py" / "names.rs").read_text()
    names = re.findall(r'Name::new\("([\w.]+)",\s*"([\w.]+)"\)', code)
    assert 0 < len(names) == code.count("Name::new(")
    everywhere = "".join(path.read_text() for path in SOURCES)
    names += [
        (module, "logger") for module in re.findall(r'names::logger\(py, "(.+?)"', everywhere)
    ]
    missing = []
    for module, attribute in names:
        try:
            pkgutil.resolve_name(f"{module}:{attribute}")
        except (ImportError, AttributeError) as error:
            missing.append(f"{module}:{attribute}: {error}")
    assert not missing


def test_numbers_that_rust_repeats() -> None:
    found = {}
    for file, name in REPEATED:
        value = re.search(rf"const {name}: \w+ = (\d+);", (ROOT / "src" / file).read_text())
        assert value is not None, f"{file} has no {name} any more: take it off the list"
        found[file, name] = int(value[1])
    assert found == REPEATED


# --- what our sources say -----------------------------------------------------------------------


def names_in_rust() -> Iterator[tuple[str, str]]:
    """Places and names: texts, methods and properties for Python, CPython's C functions."""
    for path in SOURCES:
        text = path.read_text()
        place = path.relative_to(ROOT).as_posix()
        for written in WRITTEN.finditer(text):
            text_in = re.fullmatch(r'c?"([\w.]+)"', written[0])
            for name in text_in[1].split(".") if text_in else ():
                yield place, name
        for name in re.findall(r"(?:\bfn |\b[gs]etter\(|\b(?=_Py))(_\w+)", code_of(text)):
            yield place, name


def names_in_class(node: ast.ClassDef) -> set[str]:
    """What a class body defines."""
    found = set()
    for child in ast.walk(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(child.name)
        elif isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
            found.add(child.id)
    return found


def names_in_python() -> Iterator[tuple[str, str]]:
    """Places and names: attributes, of `self` only in the seam; texts, imports, class bodies."""
    for path in MODULES:
        place = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Attribute(value=ast.Name("self" | "cls")) if path not in SEAM:
                    pass
                case ast.Attribute(attr=name) | ast.Constant(value=str(name)):
                    yield place, name
                case ast.ImportFrom(module=str(module)) if module.split(".")[0] != "mioloop":
                    yield from ((place, alias.name) for alias in node.names)
                case ast.ClassDef() if path in SEAM:
                    yield from ((place, name) for name in names_in_class(node))


def defined_by_us() -> set[str]:
    """Names that our sources give something to, and what the stub says that Rust has."""
    found = set()
    for path in [*MODULES, *STUBS]:
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    found.add(name)
                case ast.Attribute(attr=name, ctx=ast.Store()) | ast.Name(id=name, ctx=ast.Store()):
                    found.add(name)
    return found | {path.stem for path in [*MODULES, *STUBS]}


def private_names() -> dict[str, set[str]]:
    """Private names and where they stand: those of asyncio, and those that are not our own."""
    theirs: set[str] = set()
    for module in asyncio_modules():
        theirs.update(re.findall(r"\b_[A-Za-z]\w*", inspect.getsource(resolve(module))))
    ours = defined_by_us() - theirs
    found: dict[str, set[str]] = {}
    for place, name in [*names_in_rust(), *names_in_python()]:
        if is_private(name) and name not in ours:
            found.setdefault(name, set()).add(place)
    return found


def test_every_private_name_is_in_the_table() -> None:
    missing = {name: places for name, places in private_names().items() if name not in listed()}
    assert not missing, f"names of CPython's that the table does not list: {missing}"


def test_the_table_has_no_stale_names() -> None:
    used = {name for _, name in [*names_in_rust(), *names_in_python()]}
    # Names without an underscore may stand anywhere in the code.
    text = "".join(path.read_text() for path in [*SOURCES, *MODULES])
    words = set(re.findall(r"[A-Za-z]\w*", text))
    stale = {name for name in listed() if name not in (used if is_private(name) else words)}
    assert not stale


def test_the_search_finds_what_is_private_elsewhere() -> None:
    found = private_names()
    assert {"_set_running_loop", "_start_serving", "_debug", "_PyBytes_Resize"} <= set(found)
    assert not {"_core", "_poller_fileno", "_close_core", "_listeners"} & set(found)


# --- what both sides say to each other ----------------------------------------------------------


def our_classes() -> dict[str, dict[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """The methods of our classes by name; Rust's by the stub."""
    found: dict[str, dict[str, ast.FunctionDef | ast.AsyncFunctionDef]] = {}
    for path in [*STUBS, *SEAM]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                methods = found.setdefault(node.name, {})
                # Below an `if` the stub has versions, and the seam declarations for mypy.
                for child in ast.walk(node) if path in STUBS else node.body:
                    if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                        methods[child.name] = child
    return found


def signature_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> inspect.Signature:
    """The signature of a function in source text; every default is None."""
    arguments = node.args
    for argument in ast.walk(arguments):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    arguments.defaults = [ast.Constant(None) for _ in arguments.defaults]
    arguments.kw_defaults = [default and ast.Constant(None) for default in arguments.kw_defaults]
    return inspect.signature(eval(f"lambda {ast.unparse(arguments)}: None"))


def refusals(ours: inspect.Signature, theirs: inspect.Signature) -> list[str]:
    """What asyncio's own method would take and ours would not."""
    mine, refused = list(ours.parameters.values()), []
    for place, parameter in enumerate(theirs.parameters.values()):
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        own = ours.parameters.get(parameter.name)
        if own is None or own.kind is not parameter.kind:
            refused.append(parameter.name)
        elif own.kind is own.POSITIONAL_OR_KEYWORD and mine.index(own) != place:
            refused.append(f"{own.name} in place {place}")
        elif own.default is own.empty and parameter.default is not own.empty:
            refused.append(f"{own.name} left out")
    extra = [own for own in mine if own.name not in theirs.parameters]
    return refused + [f"no {own.name}" for own in extra if own.default is own.empty]


def test_our_methods_take_what_asyncios_own_take() -> None:
    wrong, compared = {}, set()
    for name, methods in our_classes().items():
        for method, node in methods.items():
            twin = getattr(TWINS.get(name), method, None)
            if inspect.isfunction(twin) and not method.startswith("__"):
                compared.add(method)
                if refused := refusals(signature_of(node), inspect.signature(twin)):
                    wrong[f"{name}.{method}"] = refused
    assert {"_start_serving", "_make_socket_transport", "call_soon", "_force_close"} <= compared
    assert not wrong


def borrowed() -> dict[str, Any]:
    """asyncio's functions that our classes take over by name."""
    found = {}
    for path in SEAM:
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Assign(
                    targets=[ast.Name(name)],
                    value=ast.Attribute(value=ast.Name("_Selector") | ast.Attribute(), attr=attr),
                ) if hasattr(asyncio.SelectorEventLoop, attr):
                    assert name == attr
                    found[name] = getattr(asyncio.SelectorEventLoop, attr)
    return found


def test_our_loop_has_what_is_asked_of_it() -> None:
    """By the functions that are borrowed, and by all of asyncio's code that holds a loop."""
    holders = ("loop", "self._loop")
    asked: dict[str, str] = {}
    for name, function in borrowed().items():
        code = ast.parse(textwrap.dedent(inspect.getsource(function)))
        for node in ast.walk(code):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self":
                asked[node.attr] = name
    modules = ("base_events", "base_subprocess", "events", "selector_events", "sslproto")
    for module in (*modules, "streams", "unix_events"):
        for node in ast.walk(tree_of(f"asyncio.{module}")):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) in holders:
                asked[node.attr] = module
    ours = {name for methods in our_classes().values() for name in methods} | set(borrowed())
    base = asyncio.BaseEventLoop
    there = ours | defined_by_us() | set(dir(base)) | set(base.__init__.__code__.co_names)
    assert {"_sock_connect_cb", "_transports", "_add_reader", "call_soon"} <= set(asked)
    assert {name: by for name, by in asked.items() if name not in there} == {}
