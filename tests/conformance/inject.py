"""Putting the loop under test where CPython's tests expect asyncio's own.

Owns the roads by which a test gets a loop:

1. the event-loop policy, for ``asyncio.run`` and ``asyncio.new_event_loop``;
2. the names of loop classes that a test module uses (``asyncio.EventLoop()``,
   ``base_events.BaseEventLoop()``): the module's global ``asyncio`` is replaced by a
   facade that forwards everything else to the real package;
3. what the tests themselves define (``create_event_loop``, ``new_test_loop``, the
   ``loop_factory`` of IsolatedAsyncioTestCase, a ``setUp`` that imports a class).

Private names that CPython's tests lean on for public behaviour are given a meaning on the
test's side: ``loop._run_once()`` is one turn, the ``_run_loop`` of the gather tests is a
few turns, mocks of a selector and the like can be set, to no effect, and the class of
the handles of ``call_soon_threadsafe`` may be any handle's.

Rules: only namespaces of the test package are written to, never those of
``asyncio``.  A test that needs the virtual clock of ``utils.TestLoop`` fails with
`VirtualClockError` instead of silently running on CPython's loop.
"""

from __future__ import annotations

import asyncio
import asyncio.base_events
import asyncio.events
import asyncio.selector_events
import asyncio.unix_events
import functools
import importlib
import types
import unittest
import warnings
from collections.abc import Callable
from typing import Any

_FACED = (asyncio, asyncio.base_events, asyncio.events, asyncio.unix_events)
_STOCK_NAMES = ("EventLoop", "SelectorEventLoop", "BaseEventLoop")
_STOCK_CLASSES = {
    asyncio.selector_events.BaseSelectorEventLoop,
    *(vars(module)[name] for module in _FACED for name in _STOCK_NAMES if name in vars(module)),
}

# ``base_events.BaseEventLoop`` means "a loop" in the tests of base_events only; elsewhere
# it stands for that very class, whose methods are called unbound.
_BASE_LOOP_MODULE = "test_base_events"

# What CPython's tests of BaseEventLoop replace with mocks, because that class is without it.
_MOCKED = ("_selector", "_process_events", "_write_to_self")


class VirtualClockError(Exception):
    """The test drives ``utils.TestLoop``'s clock, which no real loop has."""


class _Mockable:
    """An attribute of the base class that a test may cover with a mock on the instance."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._owner = owner
        self._name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        return getattr(super(self._owner, instance or owner), self._name)


class _Facade(types.ModuleType):
    """A module that forwards to another one, but for the names it replaces.

    Writing goes to the real module, so that ``mock.patch.object(asyncio, ...)`` in a
    test means what it says.
    """

    def __init__(self, real: types.ModuleType, replaced: dict[str, Any]) -> None:
        super().__init__(real.__name__, real.__doc__)
        self.__dict__.update(replaced, _real=real, _replaced=frozenset(replaced))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_real"], name)

    def __setattr__(self, name: str, value: object) -> None:
        if name in self.__dict__["_replaced"]:
            self.__dict__[name] = value
        else:
            setattr(self.__dict__["_real"], name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self.__dict__["_real"], name)


class Injection:
    """One loop, ready to be given to test modules.

    `spec` is ``asyncio`` (nothing is injected), ``mioloop``, or ``module:factory``
    where the factory is called without arguments and returns a new loop.
    """

    def __init__(self, spec: str) -> None:
        self.is_active = spec != "asyncio"
        if not self.is_active:
            return
        module_name, _, attribute = spec.partition(":")
        module = importlib.import_module(module_name)
        self.new_loop: Callable[[], asyncio.AbstractEventLoop] = getattr(
            module, attribute or "new_event_loop"
        )
        loop = self.new_loop()
        loop.close()
        self._loop_class = type(loop)
        self._turn_class = type(
            "BaseEventLoop",
            (type(loop),),
            {"_run_once": _run_once, **{name: _Mockable() for name in _MOCKED}},
        )
        self._policy: Any = (
            module.EventLoopPolicy() if not attribute else _policy_around(self.new_loop)
        )

    def set_policy(self) -> None:
        """Make the policy ours again, if a test has changed it."""
        if self.is_active and _get_policy() is not self._policy:
            _set_policy(self._policy)

    def adapt(self, module: types.ModuleType, utils: types.ModuleType | None) -> None:
        """Give the loop to every place of a test module that names one.

        `utils` is the helper module of the test package, when it has one.
        """
        if not self.is_active:
            return
        facades: dict[types.ModuleType, types.ModuleType] = {
            real: _Facade(real, self._replacements(real))
            for real in _FACED
            if real is not asyncio.base_events or module.__name__.endswith(_BASE_LOOP_MODULE)
        }
        for name, value in list(vars(module).items()):
            if isinstance(value, types.ModuleType) and value in facades:
                setattr(module, name, facades[value])
            elif self._is_foreign(value):
                setattr(module, name, self._loop_class)
        for value in list(vars(module).values()):
            if isinstance(value, type) and value.__module__ == module.__name__:
                self._adapt_class(value)
        if utils is not None:
            self._adapt_test_loop(utils)

    def _replacements(self, real: types.ModuleType) -> dict[str, Any]:
        replaced: dict[str, Any] = {
            name: self._loop_class for name in _STOCK_NAMES if name in vars(real)
        }
        if "BaseEventLoop" in replaced:
            replaced["BaseEventLoop"] = self._turn_class
        if "_ThreadSafeHandle" in vars(real):
            replaced["_ThreadSafeHandle"] = asyncio.Handle
        return replaced

    def _is_foreign(self, value: object) -> bool:
        """Say whether `value` is a loop class of asyncio, and not the one under test."""
        if not isinstance(value, type) or value is self._loop_class:
            return False
        return value in _STOCK_CLASSES

    def _adapt_class(self, cls: type) -> None:
        for name, value in list(vars(cls).items()):
            if self._is_foreign(value):
                setattr(cls, name, self._loop_class)
        if "create_event_loop" in vars(cls):
            cls.create_event_loop = lambda test: self.new_loop()  # type: ignore[attr-defined]
        if "_run_loop" in vars(cls):
            cls._run_loop = lambda test, loop: _run_a_few_turns(loop)  # type: ignore[attr-defined]
        if issubclass(cls, unittest.TestCase) and "setUp" in vars(cls):
            cls.setUp = self._around_set_up(cls.setUp)  # type: ignore[assignment, method-assign]

    def _around_set_up(self, set_up: Callable[[Any], None]) -> Callable[[Any], None]:
        """Replace a stock loop that a test has made from a class imported locally."""

        @functools.wraps(set_up)
        def around(test: Any) -> None:
            set_up(test)
            loop: Any = getattr(test, "loop", None)
            if self._is_foreign(type(loop)):
                loop.close()
                test.loop = self.new_loop()
                test.addCleanup(test.loop.close)

        return around

    def _adapt_test_loop(self, utils: types.ModuleType) -> None:
        def new_test_loop(test: Any, gen: object = None) -> asyncio.AbstractEventLoop:
            if gen is not None:
                raise VirtualClockError("this test needs the virtual clock of TestLoop")
            loop: asyncio.AbstractEventLoop = self._turn_class()
            test.set_event_loop(loop)
            return loop

        utils.TestCase.new_test_loop = new_test_loop


def _run_once(loop: asyncio.AbstractEventLoop) -> None:
    """Do one turn, in the public way."""
    loop.call_soon(loop.stop)
    loop.run_forever()


def _run_a_few_turns(loop: asyncio.AbstractEventLoop) -> None:
    """Do as many turns as the longest chain of callbacks in the gather tests needs.

    CPython's own helper runs while ``loop._ready`` is not empty.
    """
    for _ in range(20):
        _run_once(loop)


def _policy_around(factory: Callable[[], asyncio.AbstractEventLoop]) -> object:
    stock: Any = type(_get_policy())

    class Policy(stock):  # type: ignore[misc]
        def new_event_loop(self) -> asyncio.AbstractEventLoop:
            return factory()

    return Policy()


def _get_policy() -> object:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*event_loop_policy", DeprecationWarning)
        return asyncio.get_event_loop_policy()


def _set_policy(policy: Any) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*event_loop_policy", DeprecationWarning)
        asyncio.set_event_loop_policy(policy)
