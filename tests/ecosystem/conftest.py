"""What the ecosystem tests have in common: real servers, and mercy for other projects' habits.

Owns the servers as fixtures: `servers.py` knows how each is started; a test that asks for one waits
until it serves, and it ends with the session.

Rules: the tests run on asyncio and on mioloop, as everywhere, so that a failure of the program
under test shows as one.
"""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import servers
import support


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Other projects' deprecations are theirs to mend; some servers take their time to start."""
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(150))
        for kind in ("DeprecationWarning", "PendingDeprecationWarning"):
            item.add_marker(pytest.mark.filterwarnings(f"ignore::{kind}"))


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves a descriptor, or a thread of a loop, behind.

    Other threads are the libraries' own: some keep them as long as the process lives.
    """
    before = support.open_descriptors()
    yield
    support.wait_until(lambda: not _threads_of_loops())
    if support.open_descriptors().keys() - before.keys():
        gc.collect()
        # Some libraries close in threads of theirs.
        support.wait_until(lambda: not support.open_descriptors().keys() - before.keys())
    left = {fd: what for fd, what in support.open_descriptors().items() if fd not in before}
    assert not left, f"descriptors left open: {left}"
    assert not _threads_of_loops()


def _threads_of_loops() -> list[str]:
    names = [thread.name for thread in threading.enumerate()]
    for name in Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(OSError):
            names.append(name.read_text())
    return [name for name in names if name.startswith("asyncio_")]


@pytest.fixture(scope="session")
def server_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the servers print."""
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="session")
def postgres(server_folder: Path, certificate: object) -> Iterator[servers.Server]:
    """A PostgreSQL with TLS, user and database `test`."""
    with servers.postgres(server_folder, certificate) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb(server_folder: Path) -> Iterator[servers.Server]:
    """A MariaDB with a database `test`."""
    with servers.mariadb(server_folder) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server(server_folder: Path) -> Iterator[servers.Server]:
    """A Redis that keeps nothing."""
    with servers.redis(server_folder) as server:
        yield server


@pytest.fixture(scope="session")
def mongod(server_folder: Path) -> Iterator[servers.Server]:
    """A MongoDB."""
    with servers.mongod(server_folder) as server:
        yield server


@pytest.fixture(scope="session")
def rabbitmq(server_folder: Path) -> Iterator[servers.Server]:
    """A RabbitMQ with its user `guest`."""
    with servers.rabbitmq(server_folder) as server:
        yield server


@pytest.fixture(scope="session")
def mosquitto(server_folder: Path) -> Iterator[servers.Server]:
    """A Mosquitto that takes anybody."""
    with servers.mosquitto(server_folder) as server:
        yield server


@pytest.fixture(scope="session")
def nats_server(server_folder: Path) -> Iterator[servers.Server]:
    """A NATS with JetStream."""
    with servers.nats(server_folder) as server:
        yield server


@pytest.fixture(scope="session")
def kafka(server_folder: Path) -> Iterator[servers.Server]:
    """A broker that speaks Kafka's protocol."""
    with servers.kafka(server_folder) as server:
        yield server


@pytest.fixture(scope="session")
def moto_server(server_folder: Path) -> Iterator[servers.Server]:
    """What answers as Amazon's S3."""
    with servers.moto(server_folder) as server:
        yield server
