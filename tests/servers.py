"""Real servers for tests, from the wheels in the virtual environment: started on free loopback ports, ended by pid."""

import contextlib
import fcntl
import functools
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import missing

# Below the ports that the system gives to others (from 32768 on), and so that port + 10000 is nobody's either.
_FIRST_PORT, _BLOCKS, _BLOCK = 10_000, 40, 250


@functools.cache
def _ports_of_this_process() -> Iterator[int]:
    """A block of ports that no other test process of this machine uses, for ever around."""
    folder = Path(tempfile.gettempdir()) / "ssmd-test-ports"
    folder.mkdir(exist_ok=True)
    for number in range(_BLOCKS):
        lock = os.open(folder / str(number), os.O_RDWR | os.O_CREAT)  # held until the process ends
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # another process has it
            os.close(lock)
            continue
        first = _FIRST_PORT + number * _BLOCK
        return itertools.cycle(range(first, first + _BLOCK))
    raise RuntimeError(f"{_BLOCKS} test processes are at work already: see {folder}")


def free_port() -> int:
    """A TCP port that was free a moment ago, and that no other test process asks for."""
    for port in itertools.islice(_ports_of_this_process(), _BLOCK):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no free port")


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
        self._folder.mkdir(parents=True, exist_ok=True)
        settings = self._folder / "nats.conf"
        # By itself it promises streams no more than three quarters of the disk, and every test makes its own.
        settings.write_text(f"jetstream {{ store_dir: {json.dumps(str(self._folder))}, max_file_store: 1TB }}\n")
        place = ["-a", "127.0.0.1", "-p", str(self.port), "-l", str(self._folder / "log")]
        self._process = subprocess.Popen([program("nats-server"), "-c", str(settings), *place])
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
