"""Ray on one machine: tasks, asynchronous actors, and the driver's own coroutines."""

import sys
import tempfile

import pytest

import programs
from programs import HOST, library

PROGRAM = f"""
import asyncio
import sys
import ray
from app import loop_name

@ray.remote
def double(number):
    return 2 * number

@ray.remote
class Actor:
    async def loop_name(self):
        return type(asyncio.get_running_loop()).__module__.partition(".")[0]
    async def add(self, number):
        await asyncio.sleep(0.001)
        return number + 1
    async def fail(self):
        raise ValueError("on purpose")

ray.init(
    num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="{HOST}",
    object_store_memory=80_000_000, _temp_dir=sys.argv[1],
)
assert ray.get([double.remote(n) for n in range(50)]) == [2 * n for n in range(50)]
actor = Actor.remote()
assert ray.get([actor.add.remote(n) for n in range(100)]) == list(range(1, 101))
try:
    ray.get(actor.fail.remote())
except ValueError as error:
    assert "on purpose" in str(error)
else:
    raise AssertionError

async def main():
    found = await asyncio.gather(*(actor.add.remote(n) for n in range(50)))
    assert found == list(range(1, 51))
    return loop_name()

print("loops:", asyncio.run(main()), ray.get(actor.loop_name.remote()))
ray.shutdown()
"""


@pytest.mark.timeout(200)
def test_ray(loop_name, tmp_path):
    """Its workers are processes that begin anew, and are on the loop of the driver."""
    library("ray")
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    run = ["-m", "mioloop", "run", "--as-uvloop"] if loop_name == "mioloop" else []
    environment = programs.environment(
        HOME=str(tmp_path),
        RAY_AUTH_MODE="disabled",
        RAY_USAGE_STATS_ENABLED="0",
        RAY_USE_UVLOOP="0" if loop_name == "asyncio" else "1",
    )
    # Ray's sockets are in that folder, and the system allows a path of a hundred letters.
    with (
        tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder,
        programs.running(
            [sys.executable, *run, str(path), folder], tmp_path, env=environment, cwd=tmp_path
        ) as driver,
    ):
        status = driver.process.wait(150)
        assert status == 0, driver.printed[-3000:]
        assert f"loops: {loop_name} {loop_name}\n" in driver.printed, driver.printed[-3000:]
