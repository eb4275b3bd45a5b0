"""gunicorn's workers on mioloop.

    gunicorn -k mioloop.integrations.gunicorn.AsgiWorker app:application
    gunicorn -k mioloop.integrations.gunicorn.UvicornWorker app:application
    gunicorn -k mioloop.integrations.gunicorn.AiohttpWorker app:application

Owns the three classes: gunicorn's own ASGI worker (gunicorn 24 and later), that of the package
uvicorn-worker, and aiohttp's. Each differs from its base in the loop and in nothing else.

Rules: a class is made when it is asked for, so that only its own server must be installed. No event
loop policy is involved.
"""

from __future__ import annotations

import asyncio
from typing import Any

import mioloop


def _asgi_worker() -> type[Any]:
    from gunicorn.workers.gasgi import ASGIWorker

    class AsgiWorker(ASGIWorker):
        """gunicorn's ASGI worker on mioloop, whatever `--asgi-loop` says."""

        def _setup_event_loop(self) -> None:
            self.loop = mioloop.new_event_loop()
            asyncio.set_event_loop(self.loop)

    return AsgiWorker


def _uvicorn_worker() -> type[Any]:
    from uvicorn_worker import UvicornWorker as Base

    class UvicornWorker(Base):
        """uvicorn's worker on mioloop."""

        CONFIG_KWARGS = {**Base.CONFIG_KWARGS, "loop": "mioloop:new_event_loop"}  # noqa: RUF012

    return UvicornWorker


def _aiohttp_worker() -> type[Any]:
    from aiohttp.worker import GunicornWebWorker

    class AiohttpWorker(GunicornWebWorker):
        """aiohttp's worker on mioloop."""

        def init_process(self) -> None:
            """Begin in the new process; the base would make the loop that asyncio chooses."""
            self.loop = mioloop.new_event_loop()
            asyncio.set_event_loop(self.loop)
            super(GunicornWebWorker, self).init_process()

    return AiohttpWorker


_MAKERS = {
    "AiohttpWorker": _aiohttp_worker,
    "AsgiWorker": _asgi_worker,
    "UvicornWorker": _uvicorn_worker,
}


def __getattr__(name: str) -> type[Any]:
    if name not in _MAKERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    worker = globals()[name] = _MAKERS[name]()
    worker.__qualname__ = name
    return worker


def __dir__() -> list[str]:
    return sorted({*globals(), *_MAKERS})
