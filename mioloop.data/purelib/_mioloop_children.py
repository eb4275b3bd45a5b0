"""Selects mioloop in the Python processes that a program on mioloop starts.

`python -m mioloop run` sets `MIOLOOP_SELECT`. `mioloop_children.pth` beside this file looks for it
whenever Python starts, and calls `select` where it is set. Owns the hook that waits for asyncio.

Rules: a process that never imports asyncio pays for two small files and nothing else, so this
module is outside the package, whose import brings asyncio and the loop, and imports nothing itself.

PYTEST_DONT_REWRITE: pytest would else warn that what comes with a plugin is there already.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

VARIABLE = "MIOLOOP_SELECT"
AS_UVLOOP = "as-uvloop"
OFF = ("", "0")


def select() -> None:
    """Have mioloop selected as soon as asyncio is there, as the variable says."""
    if os.environ.get(VARIABLE, "") in OFF or sys.flags.ignore_environment:
        return
    if "asyncio" in sys.modules:
        _install()
    else:
        sys.meta_path.insert(0, _AsyncioFinder())


def _install() -> None:
    try:
        from mioloop._policy import install_silently
    except ImportError as error:
        # This Python has no policies: the program must name the loop itself.
        if error.name != "asyncio":
            raise
        return
    install_silently(as_uvloop=os.environ.get(VARIABLE) == AS_UVLOOP)


class _AsyncioFinder:
    """Finds asyncio where it is, once, and has mioloop selected when it is loaded."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == "uvloop" and os.environ.get(VARIABLE) == AS_UVLOOP:
            # Once asyncio is there, somebody else answers this.
            __import__("asyncio")
            return _find(name, path, target)
        if name != "asyncio":
            return None
        sys.meta_path.remove(self)
        spec = _find(name, path, target)
        if spec is not None and spec.loader is not None:
            loader: Any = _Loader(spec.loader)
            spec.loader = loader
        return spec


def _find(name: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
    """What the finders say that are there now."""
    for finder in sys.meta_path:
        spec = finder.find_spec(name, path, target)
        if spec is not None:
            return spec
    return None


class _Loader:
    """Loads a module as its own loader would, and then has mioloop selected."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self.loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self.loader
        self.loader.exec_module(module)
        _install()
