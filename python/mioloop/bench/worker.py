"""The main program of every child process: a server under test, or a client that is asked.

Owns the pipe protocol with the parent: the configuration is the last argument, a line of JSON;
every answer is a line of JSON on standard output. A client reads one request per line of standard
input.

Rules: a child never outlives its parent. It ends when its standard input does, however it is
killed or hangs; a request that takes too long ends it too, with a traceback on standard error.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import sys
import threading
import traceback
from typing import Any, BinaryIO

from mioloop.bench import machine
from mioloop.bench.model import LoopFactory, WorkloadError, resolve


def main() -> None:
    """Be the child that the configuration asks for.

    Its `role` is `server` or `client`, with a `target` and a `loop`; or `program`, with the
    `arguments` of a server program that takes the place of this process.
    """
    config = json.loads(sys.argv[-1])
    machine.pin(config["cpus"])
    machine.set_limits()
    machine.prime_allocator()
    if config["role"] == "program":
        os.execv(config["arguments"][0], config["arguments"])
    channel = _claim_standard_output()
    factory = resolve(config["loop"]) if config["loop"] else _no_loop
    target = resolve(config["target"])
    if config["role"] == "server":
        threading.Thread(target=_end_with_parent, daemon=True).start()
        target(factory, lambda fields: _send(channel, fields))
    else:
        _send(channel, {})
        _obey(target, factory, channel)


def _obey(target: Any, factory: LoopFactory, channel: BinaryIO) -> None:
    for line in sys.stdin.buffer:
        parameters = json.loads(line)
        faulthandler.dump_traceback_later(parameters["timeout"], exit=True)
        try:
            answer = target(factory, parameters)
        except WorkloadError as failure:
            answer = {"error": str(failure)}
        except BaseException as error:  # noqa: BLE001  A panic of a native loop is not an Exception.
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        finally:
            faulthandler.cancel_dump_traceback_later()
        _send(channel, answer)


def _no_loop() -> Any:
    raise WorkloadError("a load generator has no event loop")


def _claim_standard_output() -> BinaryIO:
    """Keep standard output for answers: what a library prints goes to standard error."""
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return channel


def _send(channel: BinaryIO, fields: dict[str, Any]) -> None:
    channel.write(json.dumps(fields).encode() + b"\n")
    channel.flush()


def _end_with_parent() -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 1024):
            continue
    os._exit(0)
