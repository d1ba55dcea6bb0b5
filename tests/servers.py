"""Real servers for tests, from the wheels in the virtual environment: started on free loopback ports, ended by pid."""

import contextlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import missing


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def program(name: str) -> str:
    """The path of a program that a wheel brought; skips (at home) or fails (in CI) when it is missing."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        missing(name, "install the locked development packages (make setup)")
    return found


class NatsServer:
    """A nats-server with JetStream that can be killed and started again on the same port and store."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start and wait until the port answers with INFO."""
        arguments = [
            "-a",
            "127.0.0.1",
            "-p",
            str(self.port),
            "-js",
            "-sd",
            str(self._folder),
            "-l",
            str(self._folder / "log"),
        ]
        self._folder.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen([program("nats-server"), *arguments])
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as link:
                if link.recv(4) == b"INFO":
                    return
            time.sleep(0.02)
        self.kill()
        raise RuntimeError("nats-server did not come up: " + (self._folder / "log").read_text()[-2000:])

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def nats_server(folder: Path) -> Iterator[NatsServer]:
    """A running server, killed at the end."""
    server = NatsServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()
