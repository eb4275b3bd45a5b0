"""What tests of executors need: the number of threads, and a way to keep them all busy.

Owns the threads that wait while it keeps them busy.
"""

import asyncio
import os
import sys
import threading

cpu_count = os.process_cpu_count if sys.version_info >= (3, 13) else os.cpu_count
MOST_THREADS = min(32, (cpu_count() or 1) + 4)
"""As many threads as `ThreadPoolExecutor` has at most."""


class Blocked:
    """Keeps every thread of the default executor busy until it is left."""

    def __init__(self, loop):
        self.loop = loop
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Event()

    def work(self):
        self.begun.release()
        self.go_on.wait()

    async def __aenter__(self):
        self.futures = [self.loop.run_in_executor(None, self.work) for _ in range(MOST_THREADS)]
        for _ in self.futures:
            self.begun.acquire()
        return self

    async def __aexit__(self, *error):
        self.go_on.set()
        await asyncio.gather(*self.futures)
