"""What tests need from outside their process: scripts run by a Python of their own, certificates.

Owns: the processes it starts (ended with the test) and the certificate files (in a folder of the
test session).

Rules: a script says how it ended; nothing it prints on its standard error goes unseen.
"""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Script:
    """Runs Python code in its own process, with `new_loop` defined to make the loop under test."""

    loop_name: str
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(
        self, code: str, *options: str, before: Sequence[str] = (), **settings: Any
    ) -> subprocess.Popen[str]:
        """Start it with its standard streams as text pipes.

        `options` are Python's own; `before` is a command that runs Python, as strace does.
        """
        prelude = {
            "asyncio": "import asyncio\nnew_loop = asyncio.SelectorEventLoop\n",
            "mioloop": "import asyncio, mioloop\nnew_loop = mioloop.new_event_loop\n",
        }[self.loop_name]
        pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        command = [*before, sys.executable, "-X", "faulthandler", *options, "-c"]
        process = subprocess.Popen(
            [*command, prelude + textwrap.dedent(code)], text=True, **pipes | settings
        )
        self.started.append(process)
        return process

    def run(self, code: str, *options: str, **settings: Any) -> subprocess.CompletedProcess[str]:
        """Run it to its end, at most 30 seconds."""
        process = self.start(code, *options, **settings)
        out, err = process.communicate(timeout=30)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def check(self, code: str, *options: str, **settings: Any) -> str:
        """Run it, demand that it ends well and silently, and return its output."""
        done = self.run(code, *options, **settings)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr + done.stdout
        return done.stdout

    def finish(self) -> None:
        """End the processes that are still there."""
        for process in self.started:
            with process:
                if process.poll() is None:
                    process.send_signal(signal.SIGKILL)


@dataclass
class Certificate:
    """A self-signed certificate and the contexts that use it."""

    certificate: str
    key: str

    @classmethod
    def make(cls, folder: str) -> Certificate:
        """Make one in that folder by the openssl command; FileNotFoundError without it."""
        made = cls(os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem"))
        subject = ["-subj", "/CN=localhost", "-days", "7", "-nodes"]
        names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", *subject, *names]
        subprocess.run(
            [*command, "-keyout", made.key, "-out", made.certificate],
            check=True,
            capture_output=True,
        )
        return made

    def server_context(self) -> ssl.SSLContext:
        """A context that presents the certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context

    def client_context(self) -> ssl.SSLContext:
        """A context that trusts nothing but the certificate."""
        return ssl.create_default_context(cafile=self.certificate)
