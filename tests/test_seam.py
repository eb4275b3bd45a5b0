"""The seam: every private name of CPython that mioloop leans on, checked on the running Python.

Owns the table of these names. The sources are searched for private names, and one that is missing
in the table fails a test; so does a line of the table that nothing needs any more.

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
from asyncio import constants, events, selector_events, sslproto, unix_events
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

from test_layers import ROOT, SOURCES, WRITTEN, code_of

PACKAGE = ROOT / "python" / "mioloop"
MODULES = sorted(PACKAGE.rglob("*.py"))
OWN = ("loop", "connect", "signals", "processes", "policy")
SEAM = [PACKAGE / f"_{name}.py" for name in OWN]
STUBS = sorted(PACKAGE.glob("_core*.pyi"))


@dataclass(frozen=True)
class Line:
    """Names of one place in CPython, for the Pythons from `since` to the last before `before`."""

    kind: str
    place: str
    names: tuple[str, ...]
    since: tuple[int, ...] = (3, 11)
    before: tuple[int, ...] = (4,)

    def __str__(self) -> str:
        return f"{self.place} {self.kind} {self.names[0].partition('(')[0]}"


def has(place: str, *names: str, **versions: Any) -> Line:
    """A module or a class has them; `name(a, b, c=d)` says how it is called."""
    return Line("has", place, names, **versions)


def asks(place: str, *names: str, **versions: Any) -> Line:
    """The code of a module asks our objects for them."""
    return Line("asks for", place, names, **versions)


LOOP = "asyncio.SelectorEventLoop"
STREAM = "asyncio.selector_events._SelectorSocketTransport"
SUBPROCESS = "asyncio.base_subprocess.BaseSubprocessTransport"
TABLE = [
    # What Rust and Python call, read or set.
    has("asyncio.base_events", "_format_handle(handle)", "logger"),
    has(LOOP, "_asyncgen_firstiter_hook(agen)", "_asyncgen_finalizer_hook(agen)"),
    has(LOOP, "_set_coroutine_origin_tracking(enabled)", "_check_callback(callback, method)"),
    has(LOOP, "_default_executor", "_executor_shutdown_called"),
    has(LOOP, "_check_thread()", "_check_closed()", "_check_signal(sig)", "_sock_read_done"),
    has("asyncio.base_events.Server", "_attach()", "_detach()", before=(3, 13)),
    has("asyncio.base_events.Server", "_attach(stream)", "_detach(stream)", since=(3, 13)),
    has("asyncio.constants", "SSL_HANDSHAKE_TIMEOUT", "SSL_SHUTDOWN_TIMEOUT", "_SendfileMode"),
    has("asyncio.coroutines", "_iscoroutinefunction(callback)", since=(3, 14)),
    has("asyncio.events", "_get_running_loop()", "_set_running_loop(loop)"),
    has("asyncio.events", "Handle(callback, args, loop, context)"),
    has("asyncio.events", "_ThreadSafeHandle(callback, args, loop, context)", since=(3, 14)),
    has("asyncio.events", "TimerHandle(when, callback, args, loop, context)"),
    has("asyncio.events.Handle", "_run()", "_cancelled", "_source_traceback"),
    has("asyncio.events.TimerHandle", "_scheduled"),
    has("asyncio.format_helpers", "_format_callback_source(function, args)"),
    has("asyncio.futures", "_set_result_unless_cancelled(waiter, result)"),
    has("asyncio.Future", "_asyncio_future_blocking"),
    has("asyncio.selector_events", "logger", "_SelectorDatagramTransport"),
    has("asyncio.sslproto", "_create_transport_context(server_side, hostname)"),
    has("asyncio.sslproto", "_SSLProtocolTransport", "logger"),
    has("asyncio.streams.StreamReader", "_buffer", "_eof", "_limit", "_paused", "_transport"),
    has("asyncio.streams.StreamReader", "_waiter", "_wakeup_waiter()"),
    has("asyncio.streams.StreamReaderProtocol", "_stream_reader", "_stream_reader_wr"),
    has("asyncio.transports", "_FlowControlMixin"),
    has("asyncio.trsock", "TransportSocket(sock)"),
    has(SUBPROCESS, "_connect_pipes(waiter)", "_process_exited(returncode)"),
    has(SUBPROCESS, "_closed", "_pending_calls", "_pipes", "_proc"),
    has("asyncio.unix_events", "_DefaultEventLoopPolicy()", since=(3, 14)),
    has("asyncio.unix_events", "_ThreadedChildWatcher()", since=(3, 14)),
    has("asyncio.unix_events", "_UnixDefaultEventLoopPolicy()", before=(3, 14)),
    has("asyncio.unix_events", "_UnixSubprocessTransport(loop, protocol, args, shell, i, o, e, 0)"),
    has("asyncio.unix_events._UnixDefaultEventLoopPolicy()", "_watcher", before=(3, 14)),
    has("concurrent.futures.thread", "_global_shutdown_lock", "_shutdown", "_threads_queues"),
    has("ctypes.pythonapi", "_PyBytes_Resize", "_PyObject_GetMethod", "_PyType_Lookup"),
    has("linecache", "_register_code(code, source, filename)", since=(3, 14)),
    has("os", "_exit(status)"),
    has("runpy", "_run_module_as_main(name)", "_run_module_as_main(name, alter_argv=False)"),
    has("ssl.SSLObject", "_sslobj"),
    has("sys", "_is_gil_enabled()", since=(3, 13)),
    has("weakref.WeakValueDictionary()", "data"),
    # What is borrowed from asyncio's selector loop, and how we call it.
    has(LOOP, "_make_subprocess_transport", "_child_watcher_callback", "_sock_write_done"),
    has(LOOP, "_sock_recv", "_sock_recv_into", "_sock_recvfrom", "_sock_recvfrom_into"),
    has(LOOP, "_sock_sendall", "_sock_sendto", "_sock_connect", "_sock_connect_cb", "_sock_accept"),
    has(LOOP, "_check_sendfile_params(sock, file, 0, 1)", "_sock_sendfile_update_filepos"),
    # What asyncio asks of our loop, transports and handles.
    asks("asyncio.base_events", "_closed", "_debug", "_stopping", "_task_factory", "_thread_id"),
    asks("asyncio.base_events", "_current_handle", "_write_to_self", "_start_serving"),
    asks("asyncio.base_events", "_make_socket_transport", "_make_ssl_transport"),
    asks("asyncio.base_events", "_make_datagram_transport", "_make_subprocess_transport"),
    asks("asyncio.base_events", "_make_read_pipe_transport", "_make_write_pipe_transport"),
    asks("asyncio.base_events", "_sendfile_native", "_sock_sendfile_native", "_stop_serving"),
    asks("asyncio.base_events", "_sendfile_compatible", "_start_tls_compatible"),
    asks("asyncio.base_events", "_FlowControlMixin", "_loop", "_protocol_paused", "_callback"),
    asks("asyncio.events", "_timer_handle_cancelled", "_args", "_callback", "_cancelled", "_when"),
    asks("asyncio.selector_events", "_ensure_fd_no_transport", "_add_reader", "_remove_reader"),
    asks("asyncio.selector_events", "_add_writer", "_remove_writer", "_transports", "_selector"),
    asks("asyncio.sslproto", "_force_close"),
    asks("test.test_asyncio.test_ssl", "_ssl_protocol", "_test__append_write_backlog"),
    asks("asyncio.unix_events", "_unix_server_sockets", since=(3, 13)),
    # What is ours under asyncio's name: no asyncio code comes to look, but tests and tools do.
    has(LOOP, "_add_callback", "_add_callback_signalsafe", "_handle_signal", "_signal_handlers"),
    has(STREAM, "_sock", "_sock_fd", "_make_empty_waiter", "_reset_empty_waiter"),
]

TWINS = {  # asyncio's own classes for ours
    "Loop": asyncio.SelectorEventLoop,
    "SignalHandlers": asyncio.SelectorEventLoop,
    "StreamTransport": selector_events._SelectorSocketTransport,
    "DatagramTransport": selector_events._SelectorDatagramTransport,
    "ReadPipeTransport": unix_events._UnixReadPipeTransport,
    "WritePipeTransport": unix_events._UnixWritePipeTransport,
    "TlsTransport": sslproto._SSLProtocolTransport,
    "Handle": events.Handle,
    "TimerHandle": events.TimerHandle,
}

REPEATED = {  # asyncio's numbers that Rust writes down once more
    ("transport/listener.rs", "RETRY_DELAY"): constants.ACCEPT_RETRY_DELAY,
    ("transport/datagram/writing.rs", "WARN_FROM"): constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES,
    ("transport/pipe_write.rs", "WARN_FROM"): constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES,
    ("transport/tls/handshake.rs", "READ_HIGH"): constants.FLOW_CONTROL_HIGH_WATER_SSL_READ,
    ("transport/tls/handshake.rs", "WRITE_HIGH"): constants.FLOW_CONTROL_HIGH_WATER_SSL_WRITE,
    ("transport/tls/writing.rs", "WARN_FROM"): constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES,
    ("transport/writing.rs", "WARN_FROM"): constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES,
}


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
    assert not missing, f"names of CPython's that the table above does not list: {missing}"


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
