"""`python -m mioloop.bench`: the same as `python -m mioloop bench`."""

from __future__ import annotations

import sys

from mioloop.bench import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
