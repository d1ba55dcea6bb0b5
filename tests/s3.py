"""A real S3 server for tests: SeaweedFS from its wheel, on free loopback ports, ended by pid."""

import contextlib
import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.servers import free_port, program

ACCESS_KEY = "ssmd-test"
SECRET_KEY = "not-a-secret"
START_S = 40.0


@dataclass(frozen=True)
class S3Server:
    """Where it answers."""

    endpoint: str
    filer: str


def _ready(endpoint: str) -> bool:
    try:
        with urllib.request.urlopen(endpoint, timeout=1):
            return True
    except urllib.error.HTTPError as error:
        return error.code == 403  # it asks for a signature: it is up
    except OSError:
        return False


@contextlib.contextmanager
def seaweedfs(folder: Path) -> Iterator[S3Server]:
    """A running server, killed at the end (its polite stop takes 15 s)."""
    # each listens on port + 10000 as well, which is free with `free_port`
    ports = {name: free_port() for name in ("master", "volume", "filer", "s3")}
    config = folder / "s3.json"
    config.write_text(
        json.dumps(
            {
                "identities": [
                    {
                        "name": "test",
                        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
                        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
                    }
                ]
            }
        )
    )
    arguments = ["server", "-dir", str(folder), "-ip", "127.0.0.1", "-ip.bind", "127.0.0.1", "-s3"]
    arguments += [f"-{name}.port={port}" for name, port in ports.items()]
    arguments += [f"-s3.config={config}", "-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.preStopSeconds=0"]
    arguments += ["-master.volumeSizeLimitMB=64", "-volume.max=20", "-master.telemetry=false"]
    environment = {**os.environ, "GOMEMLIMIT": "200MiB"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program("weed"), *arguments], stdout=log, stderr=log, env=environment)
    server = S3Server(f"http://127.0.0.1:{ports['s3']}", f"http://127.0.0.1:{ports['filer']}")
    try:
        deadline = time.monotonic() + START_S
        while not _ready(server.endpoint):
            if time.monotonic() > deadline or process.poll() is not None:
                raise RuntimeError("SeaweedFS did not come up: " + (folder / "log").read_text()[-2000:])
            time.sleep(0.1)
        yield server
    finally:
        process.kill()
        process.wait()
