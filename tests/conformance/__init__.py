"""CPython's own asyncio test-suite, run on another event loop.

``python -m tests.conformance`` from the repository root takes the tests of the
*installed* CPython, puts the loop under test in the place of asyncio's, and
reports what differs.  See ``__main__`` for the options, ``excluded.toml`` for
what is left out and why.

Rules: nothing in the ``asyncio`` package is ever rebound; a test is left out by
name and with a reason, or it runs.
"""
