"""The pytest plugin: `pytest --mioloop` runs a test suite on mioloop.

Owns the option and what it selects: the loop factory of pytest-asyncio (1.4 and later), the backend
option of anyio's fixtures, and the event loop policy for whatever else makes loops in a test:
`asyncio.run`, `unittest.IsolatedAsyncioTestCase`, aiohttp's plugin.

Rules: without `--mioloop` nothing is changed. A suite that chooses its loops itself keeps them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any

import pytest

import mioloop

_OPTION = "--mioloop"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.getgroup("mioloop").addoption(
        _OPTION, action="store_true", default=False, help="run asyncio on mioloop's event loop"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Select mioloop, where it is asked for."""
    if not config.getoption(_OPTION):
        return
    if hasattr(asyncio, "set_event_loop_policy"):
        from mioloop._policy import install_silently

        install_silently()
    for plugin, part in (("asyncio", _ForPytestAsyncio), ("anyio", _ForAnyio)):
        if config.pluginmanager.hasplugin(plugin):
            config.pluginmanager.register(part(), f"mioloop-{plugin}")


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say so at the top."""
    return f"mioloop: {mioloop.__version__}" if config.getoption(_OPTION) else None


class _ForPytestAsyncio:
    """Names the loop factory, where the installed pytest-asyncio asks for one."""

    @pytest.hookimpl(optionalhook=True, trylast=True)
    def pytest_asyncio_loop_factories(
        self,
    ) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
        return {"mioloop": mioloop.new_event_loop}


class _ForAnyio:
    """Gives anyio's asyncio backend the loop factory, where a suite names none."""

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, Any, Any]:
        backend = yield
        if fixturedef.argname != "anyio_backend":
            return backend
        name, options = backend if isinstance(backend, tuple) else (backend, {})
        if name != "asyncio" or options.keys() & {"loop_factory", "policy", "use_uvloop"}:
            return backend
        chosen = name, {**options, "loop_factory": mioloop.new_event_loop}
        if fixturedef.cached_result is not None:
            fixturedef.cached_result = (chosen, *fixturedef.cached_result[1:])
        return chosen
