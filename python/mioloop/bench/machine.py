"""The machine under the benchmark: processors, limits, versions.

Owns what differs between systems. Everything falls back to doing nothing where a system lacks it.

Rules: standard library only, and cheap: every child process imports this.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import socket
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


@dataclass(frozen=True)
class Processors:
    """The processors of the run. Empty tuples: this system or machine has no choice to offer."""

    server: tuple[int, ...] = ()
    load: tuple[int, ...] = ()

    def describe(self) -> str:
        """Say in one phrase who runs where."""
        if not self.server:
            return "processes not pinned"
        if self.server == self.load:
            return f"everything on CPU {self.server[0]}"
        return f"loops on CPU {self.server[0]}, load on CPU {self.load[0]}"


def choose_processors() -> Processors:
    """Choose a processor for the loops under test and another for the load.

    The last one goes to the loops, since interrupts like to land on the first. The load gets the
    first that does not share a core with it, or the first other one.
    """
    if sys.platform != "linux":
        return Processors()
    allowed = sorted(os.sched_getaffinity(0))
    server = allowed[-1]
    others = [cpu for cpu in allowed if cpu != server]
    apart = [cpu for cpu in others if _core_of(cpu) != _core_of(server)]
    load = (apart or others or [server])[0]
    return Processors((server,), (load,))


def _core_of(cpu: int) -> str:
    try:
        return Path(_TOPOLOGY.format(cpu)).read_text(encoding="ascii").strip()
    except OSError:
        return str(cpu)


def pin(cpus: Iterable[int]) -> None:
    """Keep this process and its future threads on some processors. Nothing given: leave it."""
    wanted = set(cpus)
    if wanted and sys.platform == "linux":
        os.sched_setaffinity(0, wanted)


def prime_allocator() -> None:
    """Free one large block, as any process that has run for a while has done.

    Until then glibc takes every large block from the kernel and gives it back at once, and asyncio
    asks for 256 KiB at each read. A fresh process would be measured, not the loop.
    """
    block = bytearray(1 << 20)
    del block


def set_limits() -> None:
    """Allow as many descriptors as the system lets us, and leave no core files behind."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            # macOS calls the hard limit infinite and refuses it. The soft one stays.
            return


def avoid_pacing(sock: socket.socket) -> None:
    """Take a congestion control that sends at once.

    BBR, the default of some systems, spreads packets over time even on the loopback device, which
    hides what a loop can do.
    """
    option = getattr(socket, "TCP_CONGESTION", None)
    if option is None or sock.family == socket.AF_UNIX:
        return
    for name in (b"cubic", b"reno"):
        try:
            sock.setsockopt(socket.IPPROTO_TCP, option, name)
        except OSError:
            continue
        return


def resident_bytes() -> int:
    """Memory that this process holds now, in bytes; 0 where the system does not tell."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def describe(modules: Iterable[str]) -> dict[str, object]:
    """Say what the figures come from: Python, system, versions of the modules."""
    versions: dict[str, str] = {}
    for module in modules:
        name = module.partition(".")[0]
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            if name == "asyncio":
                versions[name] = platform.python_version()
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
        "system": platform.platform(),
        "cpus": os.cpu_count() or 0,
        "load_average": os.getloadavg()[0],
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": versions,
    }
