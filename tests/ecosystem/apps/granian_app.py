"""granian started from Python, as `mioloop.integrations.granian` says."""

import multiprocessing
import sys

from granian import Granian

from mioloop.integrations.granian import LOOP

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[2])
    Granian("app:application", port=int(sys.argv[1]), interface="asgi", loop=LOOP).serve()
