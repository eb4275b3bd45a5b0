"""`python -m mioloop bench`: what it measures, prints and writes, and how it ends.

Owns the loops that fail on purpose, which it writes into modules of their own.

Rules: the command runs as people run it, in a process of its own, with samples as short as
possible. Nothing here looks at how fast anything is.
"""

import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import support

COMMAND = [sys.executable, "-m", "mioloop", "bench"]
SHORT = ["--quick", "--rounds", "1", "--seconds", "0.01"]
ONE = [*SHORT, "--only", "callbacks.burst", "--loops", "asyncio"]
BENCHES = Path(__file__).resolve().parent.parent / "benches"

# Loops with faults. Each process that imports them leaves its number.
FAULTY = """
import asyncio, os, signal, time

with open(os.path.join(os.path.dirname(__file__), "pids"), "a") as file:
    file.write(f"{os.getpid()}\\n")

class Hanging(asyncio.SelectorEventLoop):
    def call_later(self, *args, **kwargs):
        time.sleep(1000)

class Crashing(asyncio.SelectorEventLoop):
    def call_later(self, *args, **kwargs):
        os.kill(os.getpid(), signal.SIGABRT)

class Losing(asyncio.SelectorEventLoop):
    def call_soon(self, callback, *args, **kwargs):
        if args == (7,):
            callback = print
        return super().call_soon(callback, *args, **kwargs)

class Serverless(asyncio.SelectorEventLoop):
    async def create_server(self, *args, **kwargs):
        raise NotImplementedError("no servers here")

def refuse():
    raise RuntimeError("no loop today")

class Lying(asyncio.SelectorEventLoop):
    async def create_server(self, factory, *args, **kwargs):
        def make():
            protocol = factory()
            received = protocol.data_received
            if type(protocol).__name__ == "Echo":
                protocol.data_received = lambda data: received(data[::-1])
            return protocol
        return await super().create_server(make, *args, **kwargs)
"""


@pytest.fixture
def faulty(tmp_path):
    """An environment in which the module `faulty` can be imported."""
    (tmp_path / "faulty.py").write_text(FAULTY)
    path = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}


def bench(*arguments, env=None, command=COMMAND):
    return subprocess.run(
        [*command, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=55,
        env=env,
    )


def row(output, name):
    """The cells of a row of the table."""
    line = next(line for line in output.splitlines() if line.startswith(name + " "))
    return re.split(r"  +", line)


def without(module):
    """The command in a Python that cannot import the module."""
    code = "import sys; from mioloop import bench; sys.modules[sys.argv[1]] = None; "
    return [sys.executable, "-c", code + "sys.exit(bench.main(sys.argv[2:]))", module]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """All workloads on both loops, once."""
    file = tmp_path_factory.mktemp("bench") / "all.json"
    done = bench(*SHORT, "--loops", "asyncio,mioloop", "--json", file)
    assert done.returncode == 0, done.stdout + done.stderr
    return done, json.loads(file.read_text())


def test_every_workload_runs_on_both_loops(whole):
    done, data = whole
    assert data["loops"] == {
        "asyncio": "asyncio:SelectorEventLoop",
        "mioloop": "mioloop:new_event_loop",
    }
    names = bench("--list").stdout.splitlines()
    listed = {line.split()[0] for line in names}
    assert len(listed) == len(names) >= 14
    assert listed - set(data["workloads"]) <= {"http.aiohttp"}
    for name, workload in data["workloads"].items():
        assert workload["failures"] == {}, name
        for loop in data["loops"]:
            (sample,) = workload["samples"][loop]
            assert sample["round"] == 0
            assert sample["cost"] == workload["cost"][loop] > 0
            assert sample["rate"] == workload["rate"][loop] > 0
            assert sample["count"] > 0
            cost = workload["cost"]
            assert workload["ratio"][loop]["median"] == cost["asyncio"] / cost[loop]
    assert "failed" not in done.stdout


def test_table_shows_cost_ratio_and_throughput(whole):
    done, data = whole
    header = row(done.stdout, "workload")
    assert header == ["workload", "cost per", "asyncio", "mioloop"]
    name, unit, cost, ratio = row(done.stdout, "tcp.protocol.4KiB")
    assert (name, unit) == ("tcp.protocol.4KiB", "us/message")
    workload = data["workloads"][name]
    assert float(cost) == pytest.approx(workload["cost"]["asyncio"], rel=0.01)
    median, low, high = map(float, re.findall(r"\d+\.\d+", ratio))
    assert low == median == high == pytest.approx(workload["ratio"]["mioloop"]["median"], abs=0.06)
    throughput = done.stdout.split("throughput", 1)[1]
    assert row(throughput, "tcp.protocol.4KiB")[1] == "messages/s"
    assert len(row(throughput, "tcp.protocol.4KiB")) == 4
    assert len(row(done.stdout, "geometric mean")) == 2


def test_progress_is_a_line_per_workload_without_a_terminal(whole):
    done, data = whole
    lines = [line for line in done.stderr.splitlines() if line.startswith("round 1/1")]
    assert [line.split()[2] for line in lines] == list(data["workloads"])
    assert all("asyncio" in line and "mioloop" in line for line in lines)
    assert "\r" not in done.stderr


def test_progress_is_one_line_on_a_terminal():
    terminal, other_end = os.openpty()
    try:
        done = subprocess.run(
            [*COMMAND, *ONE], check=False, stdout=subprocess.PIPE, stderr=other_end, timeout=55
        )
        os.close(other_end)
        shown = b""
        with contextlib.suppress(OSError):
            while chunk := os.read(terminal, 4096):
                shown += chunk
    finally:
        os.close(terminal)
    assert done.returncode == 0
    assert b"\r\x1b[2K  0 %  round 1/1  callbacks.burst  asyncio" in shown
    assert b"callbacks.burst  mioloop" in shown
    steps = shown[shown.index(b"\r\x1b[2K") :]
    assert b"\n" not in steps
    assert steps.endswith(b"\r\x1b[2K")


def test_rounds_rotate_and_are_all_noted(tmp_path):
    file = tmp_path / "out.json"
    done = bench(*ONE, "--rounds", "3", "--json", file)
    assert done.returncode == 0, done.stderr
    data = json.loads(file.read_text())
    samples = data["workloads"]["callbacks.burst"]["samples"]
    for loop in ("asyncio", "mioloop"):
        assert [sample["round"] for sample in samples[loop]] == [0, 1, 2]
    costs = {loop: [sample["cost"] for sample in samples[loop]] for loop in ("asyncio", "mioloop")}
    ratios = sorted(
        one / other for one, other in zip(costs["asyncio"], costs["mioloop"], strict=True)
    )
    spread = data["workloads"]["callbacks.burst"]["ratio"]["mioloop"]
    assert [spread["low"], spread["median"], spread["high"]] == ratios
    assert data["about"]["rounds"] == 3
    assert "median of 3 rounds" in done.stdout


def test_only_and_reference():
    done = bench(*SHORT, "--loops", "asyncio", "--only", "queue,callbacks.c*", "--reference",
                 "mioloop")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert row(done.stdout, "workload") == ["workload", "cost per", "mioloop", "asyncio"]
    names = re.findall(r"^([a-z]+\.\w+)", done.stdout, re.MULTILINE)
    assert names == ["callbacks.chain", "queues.handover"]
    listed = bench("--list", "--only", "streams").stdout
    assert [line.split()[0] for line in listed.splitlines()] == [
        "tcp.streams.64B",
        "tcp.streams.4KiB",
        "tcp.streams.64KiB",
    ]


def test_module_entry_is_the_same_command():
    done = bench("--list", command=[sys.executable, "-m", "mioloop.bench"])
    assert (done.returncode, done.stdout) == (0, bench("--list").stdout)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--loops", "nosuch"], "--loops nosuch: not one of asyncio, mioloop, uvloop, rloop"),
        (["--loops", "nosuch:Loop"], "loop nosuch:Loop: ModuleNotFoundError"),
        (["--loops", "asyncio:Nothing"], "loop asyncio:Nothing: AttributeError"),
        (["--loops", "x=sys:maxsize"], "loop sys:maxsize: not callable"),
        (["--only", "nothing"], "--only nothing: no such workload"),
        (["--reference", "other"], "--reference other: taking part are asyncio, mioloop"),
        (["--plot", "chart.gif"], "--plot chart.gif: the name must end in .png or .svg"),
        (["--json", "/no/such/place/x.json"], "--json /no/such/place/x.json: no such directory"),
        (["--rounds", "0"], "--rounds: must be 1 or more"),
        (["--seconds", "-1"], "--seconds: must be more than 0"),
    ],
)
def test_wrong_usage_is_told_before_anything_runs(arguments, message):
    done = bench(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("factory", "workload", "reason"),
    [
        ("Hanging", "timers.cancel", "hangs: Timeout"),
        ("Crashing", "timers.cancel", "ended by SIGABRT"),
        ("Losing", "callbacks.burst", "callbacks were lost or out of order"),
        ("Serverless", "tcp.streams.64B", "NotImplementedError: no servers here"),
        ("refuse", "callbacks.burst", "RuntimeError: no loop today"),
        ("Lying", "tcp.protocol.64B", "wrong bytes came back"),
    ],
)
def test_loop_that_fails_is_shown_with_its_reason(faulty, tmp_path, factory, workload, reason):
    file = tmp_path / "out.json"
    done = bench(*SHORT, "--only", workload, "--loops", f"bad=faulty:{factory}", "--json", file,
                 env=faulty)  # fmt: skip
    assert done.returncode == 0, done.stderr
    cells = row(done.stdout, workload)
    assert cells[-1] == "failed"
    assert re.match(r"\d", cells[-2])
    assert f"failed: bad: {workload}: {reason}" in done.stdout
    data = json.loads(file.read_text())["workloads"][workload]
    assert reason in data["failures"]["bad"]
    assert data["samples"]["bad"] == []
    assert data["samples"]["asyncio"]
    assert data["samples"]["mioloop"]
    assert_gone(faulty_pids(tmp_path))


def test_other_workloads_go_on_after_a_failure(faulty):
    done = bench(*SHORT, "--only", "timers", "--loops", "bad=faulty:Losing,crash=faulty:Crashing",
                 "--only", "callbacks.burst", env=faulty)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert row(done.stdout, "callbacks.burst")[-2] == "failed"
    assert re.match(r"\d", row(done.stdout, "callbacks.burst")[-1])
    assert re.match(r"\d", row(done.stdout, "timers.cancel")[-2])
    assert row(done.stdout, "timers.cancel")[-1] == "failed"
    assert row(done.stdout, "geometric mean")[1].endswith("(of 3)") is False
    assert row(done.stdout, "geometric mean")[-1].endswith("(of 1)")


def test_reference_that_fails_leaves_costs_and_status_1(faulty):
    done = bench(*SHORT, "--only", "callbacks.burst", "--loops", "bad=faulty:refuse", "--reference",
                 "bad", env=faulty)  # fmt: skip
    assert done.returncode == 1
    cells = row(done.stdout, "callbacks.burst")
    assert cells[2] == "failed"
    assert all(re.fullmatch(r"\([\d.]+ us\)", cell) for cell in cells[3:])


def test_without_aiohttp_one_line_says_what_to_install():
    done = bench(*SHORT, "--loops", "asyncio", "--only", "aiohttp,callbacks.burst",
                 command=without("aiohttp"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if "pip install 'mioloop[bench]'" in line]
    absent = "mioloop bench: without http.aiohttp: aiohttp is not installed: "
    assert told == [absent + "pip install 'mioloop[bench]'"]
    assert "http.aiohttp" not in done.stdout
    assert len(row(done.stdout, "callbacks.burst")) == 4
    nothing = bench(*SHORT, "--only", "aiohttp", command=without("aiohttp"))
    assert nothing.returncode == 2
    assert "nothing is left to measure" in nothing.stderr


def test_without_matplotlib_a_plot_is_refused():
    done = bench(*ONE, "--plot", "chart.png", command=without("matplotlib"))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "mioloop bench: error: --plot needs matplotlib: pip install 'mioloop[bench]'\n"
    )


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG\r\n"), (".svg", b"<?xml")])
def test_plot(faulty, tmp_path, suffix, start):
    if importlib.util.find_spec("matplotlib") is None:
        pytest.skip("matplotlib is not installed")
    file = tmp_path / f"chart{suffix}"
    done = bench(*SHORT, "--only", "callbacks", "--loops", "bad=faulty:refuse", "--plot", file,
                 env=faulty)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert file.read_bytes().startswith(start)
    assert file.stat().st_size > 5000


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_child_survives_the_end_of_the_command(faulty, tmp_path, number):
    arguments = ["--loops", "bad=faulty:Hanging", "--only", "callbacks.burst,timers.cancel"]
    # A shell may have started these tests with Ctrl-C switched off.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from mioloop import bench; sys.exit(bench.main(sys.argv[1:]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "--rounds", "1", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=faulty,
        text=True,
    )
    with process:
        # The first line is that of callbacks.burst: the hanging workload is under way.
        while not process.stderr.readline().startswith("round 1/1"):
            assert process.poll() is None
        process.send_signal(number)
        rest = process.stderr.read()
        process.wait(timeout=20)
    expected = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -signal.SIGKILL}
    assert process.returncode == expected[number]
    assert "Traceback" not in rest
    pids = faulty_pids(tmp_path)
    assert len(pids) >= 2
    assert_gone(pids)


def faulty_pids(tmp_path):
    return [int(line) for line in (tmp_path / "pids").read_text().split()]


def assert_gone(pids):
    assert support.wait_until(lambda: not any(map(is_alive, pids))), "a child was left behind"


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with contextlib.suppress(OSError):
        # An orphan whose new parent has not looked yet is gone all the same.
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    return True


def test_full_size_benchmark_names_what_exists(monkeypatch):
    if not BENCHES.is_dir():
        pytest.skip("the full-size benchmark lies in the repository only")
    monkeypatch.syspath_prepend(str(BENCHES))
    from extra_suite import WORKLOADS

    from mioloop.bench import suite
    from mioloop.bench.model import resolve

    names = [workload.name for workload in WORKLOADS]
    assert len(set(names)) == len(names) > len(suite.WORKLOADS)
    targets = set()
    for workload in WORKLOADS:
        if not workload.needs:
            targets |= {workload.client, workload.server, workload.parameters.get("call", "")}
    for target in targets - {""}:
        assert callable(resolve(target)), target
    for name in ("extra_suite", "extra_servers", "extra_load", "extra_calls"):
        sys.modules.pop(name, None)


def test_full_size_benchmark_measures(tmp_path):
    if not BENCHES.is_dir():
        pytest.skip("the full-size benchmark lies in the repository only")
    file = tmp_path / "out.json"
    only = "callbacks.cancel,unix.streams.4KiB.c100,tcp.writes10.c1,tcp.churn,memory.protocol"
    run = [sys.executable, str(BENCHES / "run.py"), "--no-floor"]
    done = bench(*SHORT, "--loops", "asyncio", "--only", only, "--json", file, command=run)
    assert done.returncode == 0, done.stdout + done.stderr
    workloads = json.loads(file.read_text())["workloads"]
    assert sorted(workloads) == sorted(only.split(","))
    for workload in workloads.values():
        assert workload["failures"] == {}
        if workload["unit"] == "us":
            assert workload["ratio"]["mioloop"]["median"] > 0


def test_a_flood_is_measured_or_was_none(tmp_path):
    """Where another process takes the sender's processor, the loop is not kept busy."""
    if not BENCHES.is_dir():
        pytest.skip("the full-size benchmark lies in the repository only")
    file = tmp_path / "out.json"
    run = [sys.executable, str(BENCHES / "run.py"), "--no-floor"]
    bench(*SHORT, "--loops", "asyncio", "--only", "udp.flood", "--json", file, command=run)
    workload = json.loads(file.read_text())["workloads"]["udp.flood"]
    for failure in workload["failures"].values():
        assert failure.startswith("the sender is too slow")
    for name in {"asyncio", "mioloop"} - workload["failures"].keys():
        assert workload["ratio"][name]["median"] > 0


def test_ratios_pair_the_samples_of_a_round():
    from mioloop.bench.model import Contender, Sample, Workload
    from mioloop.bench.results import Results, Spread

    workload = Workload("x.y", "", client="", operation="thing")
    one, two = Contender("one", "m:one"), Contender("two", "m:two")
    results = Results([workload], [one, two], "one", {})
    for number, cost in enumerate((10.0, 20.0, 30.0)):
        results.add(workload, one, Sample(round=number, count=1, cost=cost, rate=1))
    for number, cost in ((0, 5.0), (2, 5.0)):
        results.add(workload, two, Sample(round=number, count=1, cost=cost, rate=1))
    assert results.ratio(workload, "two") == Spread(median=4.0, low=2.0, high=6.0)
    assert results.ratio(workload, "one") == Spread(1.0, 1.0, 1.0)
    assert results.cost(workload, "one") == 20.0
    results.fail(workload, two, "no more")
    assert results.ratio(workload, "two") is None
    assert results.has_failed("two")
    assert not results.has_failed("one")


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.1234, "0.123"), (9.876, "9.88"), (123.4, "123"), (1234, "1.23k"), (81_234, "81.2k"),
     (999_600, "1M"), (1_234_567, "1.23M")],
)  # fmt: skip
def test_figures_are_short(number, text):
    from mioloop.bench.table import format_number

    assert format_number(number) == text
