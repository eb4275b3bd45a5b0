"""How the behaviour tests run: every one on stock asyncio and on mioloop.

Owns the `--loop` option, the fixtures that make loops, and the checks around each test: no
unexpected report to the exception handler, no descriptor and no thread left behind. Time-outs and
warnings as errors are set in `pyproject.toml`; a coroutine gets half of that time, so that it is
cancelled, and says where it waited, before the test is ended.

Rules: a test that asyncio fails is a wrong test, so only tests that take `mioloop_only` may ask for
more than asyncio does. An `async def` test takes the `loop` fixture and runs on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator

import pytest

import support
from processes import Certificate, Script

COROUTINE_TIMEOUT = 30


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--loop",
        choices=["both", *support.LOOPS],
        default="both",
        help="the event loop to test: both (default), asyncio or mioloop",
    )


def pytest_configure() -> None:
    """Heed SIGINT, which tests send: a shell has what it starts in the background ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "loop_name" not in metafunc.fixturenames:
        return
    chosen = metafunc.config.getoption("--loop")
    names = list(support.LOOPS) if chosen == "both" else [chosen]
    if "mioloop_only" in metafunc.fixturenames:
        names = ["mioloop"] if chosen != "asyncio" else []
    metafunc.parametrize("loop_name", names, scope="session")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an `async def` test on the loop of its `loop` fixture."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    loop = pyfuncitem.funcargs["loop"]
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}

    async def bounded() -> None:
        async with asyncio.timeout(COROUTINE_TIMEOUT):
            await pyfuncitem.obj(**arguments)

    loop.run_until_complete(bounded())
    return True


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves a descriptor or a thread behind.

    What only the collector can close counts as left until it ran: it runs where something is left.
    """
    descriptors = support.open_descriptors()
    # The system's list may leave out a thread while another one ends: look twice.
    threads = support.thread_ids() | support.thread_ids()
    yield
    support.wait_until(lambda: support.thread_ids() <= threads)
    if support.open_descriptors().keys() - descriptors.keys():
        gc.collect()
    left = support.open_descriptors()
    leaked = {fd: what for fd, what in left.items() if fd not in descriptors}
    assert not leaked, f"descriptors left open: {leaked}"
    extra = support.thread_ids() - threads
    assert not extra, f"threads left running: {extra}"


@pytest.fixture
def no_child_left() -> Iterator[None]:
    """Fail a test that leaves a child process, running or not reaped; or that the last one left."""
    yield
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.fixture
def own_sigchld() -> Iterator[None]:
    """Let a test change the handler of SIGCHLD."""
    before = signal.getsignal(signal.SIGCHLD)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.fixture
def mioloop_only() -> None:
    """Mark a test of what mioloop promises beyond asyncio: it does not run on asyncio."""


@pytest.fixture
def loop_factory(loop_name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """The callable that makes a loop of the kind under test, as `asyncio.Runner` wants it."""
    try:
        return support.factory_of(loop_name)
    except ImportError as error:
        pytest.fail(
            f"mioloop cannot be imported by {sys.executable} ({error!r}): "
            "install it first, or test the tests alone with --loop asyncio",
            pytrace=False,
        )


@pytest.fixture
def new_loop(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
) -> Iterator[Callable[[], asyncio.AbstractEventLoop]]:
    """Make loops; those that the test leaves open are finished and closed after it."""
    made: list[asyncio.AbstractEventLoop] = []

    def make() -> asyncio.AbstractEventLoop:
        made.append(loop_factory())
        return made[-1]

    yield make
    for loop in made:
        support.finish(loop)
    made.clear()


@pytest.fixture
def reports() -> Iterator[support.Reports]:
    """What the loop told its exception handler. A test takes what it expects; the rest fails it."""
    reports = support.Reports()
    yield reports
    seen = [(context["message"], context.get("exception")) for context in reports.take()]
    assert not seen, f"{len(seen)} unexpected reports to the exception handler: {seen[:3]}"


@pytest.fixture
def loop(
    new_loop: Callable[[], asyncio.AbstractEventLoop], reports: support.Reports
) -> Iterator[asyncio.AbstractEventLoop]:
    """One open loop whose reports are collected in `reports`."""
    loop = new_loop()
    loop.set_exception_handler(reports)
    yield loop
    support.finish(loop)


@pytest.fixture
def model() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop of stock asyncio, to compare with."""
    loop = asyncio.SelectorEventLoop()
    yield loop
    support.finish(loop)


@pytest.fixture(params=["tcp", "unix"])
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of stream socket, for what must hold for both."""
    return request.param


@pytest.fixture
def script(loop_name: str, loop_factory: object) -> Iterator[Script]:
    """Run a piece of Python in its own process, with `new_loop` defined to make the loop."""
    runner = Script(loop_name)
    yield runner
    runner.finish()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A self-signed certificate for localhost and 127.0.0.1."""
    folder = tmp_path_factory.mktemp("certificate")
    try:
        return Certificate.make(os.fspath(folder))
    except FileNotFoundError:
        pytest.skip("the openssl command, which makes the certificate, is not here")


@pytest.fixture
def listener():
    """A listening socket that nobody accepts from."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def deaf():
    """The address of a listener whose backlog is full: connecting to it takes for ever."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()


@pytest.fixture
def refusing():
    """An address where nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()
