"""The benchmark command: `python -m mioloop bench` compares event loops on real work.

Owns nothing but the map of the package, lower layers first:

    model       what a loop, a workload and a sample are
    machine     processors, limits and versions
    calls       in-process workloads: callbacks, timers, tasks, queues, threads
    servers     the servers under test
    load        what loads the echo servers
    web         the aiohttp server and client
    worker      the main program of every child process
    children    starting, asking and ending child processes
    stage       the processes that one group of workloads needs
    runner      rounds: which loop is measured on what, and when
    results     samples to ratios, and the JSON file
    progress, table, plot    what people see
    suite       the workloads of the command
    cli         arguments

Rules: nothing here knows of mioloop but as one loop among others: a loop is `module:factory`. The
module is cheap to import, because every child process imports it.
"""

from __future__ import annotations

__all__ = ["main"]


def main(argv: list[str]) -> int:
    """Run the benchmark command.

    Args:
        argv: the arguments after `python -m mioloop bench`.

    Returns:
        The exit status: 0 success, 1 when mioloop or the reference failed a workload, 2 wrong usage
        or something that is not installed, 130 after Ctrl-C.

    Raises:
        SystemExit: `--help` was asked for, the arguments are wrong, or a termination signal came.
    """
    from mioloop.bench import cli

    return cli.main(argv)
