"""mioloop in the place of uvloop, for programs that know no other loop by name.

Owns the finder that answers `import uvloop`, and the module that it makes: uvloop's public names,
each of them mioloop's own.

Rules: only `install(as_uvloop=True)`, and what stands for it, ever gets here. An uvloop that was
imported before is an error, not replaced: who holds it would go on using it.
"""

from __future__ import annotations

import importlib
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_NAME = "uvloop"
_INNER = "uvloop.loop"


class _Finder(MetaPathFinder, Loader):
    """Finds `uvloop` in mioloop, and `uvloop.loop`, where some look for the class."""

    def find_spec(
        self, fullname: str, path: object = None, target: object = None
    ) -> ModuleSpec | None:
        del path, target  # Where it is looked for makes no difference.
        if fullname not in (_NAME, _INNER):
            return None
        return ModuleSpec(fullname, self, origin="mioloop", is_package=fullname == _NAME)

    def exec_module(self, module: ModuleType) -> None:
        import mioloop

        module.__doc__ = "mioloop, which stands here for uvloop because it was told to."
        if module.__name__ == _INNER:
            vars(module)["Loop"] = mioloop.Loop
            return
        names = [name for name in mioloop.__all__ if not name.startswith("_")]
        for name in (*names, "__version__"):
            setattr(module, name, getattr(mioloop, name))
        vars(module)["__all__"] = tuple(names)
        importlib.import_module(_INNER)


def answer_imports() -> None:
    """Answer `import uvloop` with mioloop from now on.

    Raises:
        RuntimeError: uvloop itself has been imported before.
    """
    if is_answered():
        return
    if sys.modules.get(_NAME) is not None:
        raise RuntimeError(
            "mioloop cannot stand in for uvloop: uvloop itself is imported already; "
            "call mioloop.install(as_uvloop=True) before anything imports it"
        )
    sys.meta_path.insert(0, _Finder())


def is_answered() -> bool:
    """Whether mioloop answers `import uvloop`."""
    return any(isinstance(finder, _Finder) for finder in sys.meta_path)
