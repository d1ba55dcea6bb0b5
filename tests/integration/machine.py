"""A whole installation as its user runs it: `ssmd up` on real servers, beside an exchange in a process of its own."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2

from ssmd.simulator.keys import make_key_pair
from tests.checker.check import Result, check
from tests.checker.model import Fault
from tests.servers import free_port

ROOT = Path(__file__).parents[2]
SSMD = Path(sys.executable).parent / "ssmd"

_ALL_UP = "everything is up"

ENVIRONMENT = """\
apiVersion: ssmd/v1
kind: Environment
metadata: {{name: judge}}
spec:
  keys:
    kalshi: {{type: api_key, required: true, fields: [api_key, api_secret], rotation_days: 90}}
  feed: kalshi
  endpoints: {{ws: "ws://127.0.0.1:{exchange}/trade-api/ws/v2", rest: "http://127.0.0.1:{exchange}/trade-api/v2"}}
  runtime: {{type: local}}
  schedule: {{timezone: UTC, startup: "00:10", teardown: "00:00"}}
  symbols: {{sync: true}}
  database: {{url: "postgresql+psycopg2://postgres@127.0.0.1:{postgres}/ssmd"}}
  middleware:
    transport: {{type: nats, url: "nats://127.0.0.1:{nats}"}}
    storage: {{type: local, path: {storage}, buckets: {{raw: ssmd-raw, normalized: ssmd-normalized}}}}
    cache: {{type: memory}}
    journal: {{type: nats, url: "nats://127.0.0.1:{nats}"}}
  gateway: {{host: 127.0.0.1, port: {gateway}}}
"""


class Machine:
    """One `ssmd up` with its exchange. Everything is in one folder and on free loopback ports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.storage = folder / "storage"
        self.ledger = folder / "ledger.jsonl"
        self.environment = folder / "judge.yaml"
        self.ports = {name: free_port() for name in ("exchange", "postgres", "nats", "gateway")}
        self.faults: list[Fault] = []
        self.environment.write_text(ENVIRONMENT.format(storage=self.storage, **self.ports))
        self.key_id, self.private, self.public = make_key_pair(folder / "keys")
        self.key_in_variables = True
        self._exchange: subprocess.Popen[bytes] | None = None
        self._up: subprocess.Popen[bytes] | None = None

    @property
    def variables(self) -> dict[str, str]:
        """The environment of `ssmd`."""
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        home = {"SSMD_HOME": str(self.folder / "home")}
        if not self.key_in_variables:
            return kept | home
        key = {"SSMD_KEY_KALSHI_API_KEY": self.key_id, "SSMD_KEY_KALSHI_API_SECRET_FILE": str(self.private)}
        return kept | home | key

    # -- the exchange -------------------------------------------------------------------------------------------

    def start_exchange(self, *options: str) -> None:
        """Start the exchange with these options of `ssmd simulate`."""
        port = str(self.ports["exchange"])
        command = [str(SSMD), "simulate", "--port", port, "--ledger", str(self.ledger), "--key-id", self.key_id]
        with (self.folder / "exchange.log").open("ab") as log:
            self._exchange = subprocess.Popen(
                [*command, "--public-key", str(self.public), *options], env=self.variables, stdout=log, stderr=log
            )
        self.wait(lambda: self.exchange_state() is not None, 20, "the exchange")

    def exchange_state(self) -> dict[str, Any] | None:
        """Its own account of itself; None while it does not answer."""
        with contextlib.suppress(OSError):
            url = f"http://127.0.0.1:{self.ports['exchange']}/_simulator/state"
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.loads(answer.read())  # type: ignore[no-any-return]
        return None

    def keys_in_use(self) -> set[str]:
        """The key ids of the connections that the exchange has now."""
        state = self.exchange_state()
        assert state is not None
        return {connection["key_id"] for connection in state["connections"]}

    @property
    def sent(self) -> int:
        """Frames sent so far."""
        state = self.exchange_state()
        assert state is not None
        return int(state["frames"])

    def fault(self, name: str, **parameters: object) -> None:
        """Order a fault of the exchange."""
        body = json.dumps({"fault": name, **parameters}).encode()
        url = f"http://127.0.0.1:{self.ports['exchange']}/_simulator/fault"
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 200

    # -- ssmd ---------------------------------------------------------------------------------------------------

    def up(self, seconds: float = 60) -> None:
        """`ssmd up` in the foreground, until it says that all is up."""
        before = self.said().count(_ALL_UP) if (self.folder / "up.log").exists() else 0
        with (self.folder / "up.log").open("ab") as log:
            self._up = subprocess.Popen(
                [str(SSMD), "up", "-f", str(self.environment), "--no-airflow"],
                env=self.variables, stdout=log, stderr=log, cwd=ROOT,
            )  # fmt: skip
        self.wait(lambda: self.said().count(_ALL_UP) > before, seconds, "ssmd up")

    def said(self) -> str:
        """What `ssmd up` printed."""
        return (self.folder / "up.log").read_text()

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of ssmd, to its end."""
        return subprocess.run(
            [str(SSMD), *arguments],
            env=self.variables,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    def keep_key(self, verb: str, key_id: str, private: Path) -> None:
        """`ssmd key set` or `rotate`: give the exchange's key this value."""
        id_file = private.with_name("given-id")
        id_file.write_text(key_id)
        done = self.run(
            "key", verb, "judge", "kalshi", "--env", str(self.environment),
            "--from-file", f"api_key={id_file}", "--from-file", f"api_secret={private}",
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    def status(self) -> dict[str, Any]:
        """`ssmd status --json`, by service."""
        answer = json.loads(self.run("status", "-f", str(self.environment), "--json").stdout)
        return {row["name"]: row for row in answer}

    def frames(self) -> int:
        """Frames that the connector has seen in this life; 0 while it is down."""
        row = self.status().get("connector", {})
        return int((row.get("health") or {}).get("frames") or 0)

    def kill(self, service: str) -> None:
        """kill -9 one process that this `up` started, and note it as a fault."""
        pid = int(self.status()[service]["pid"])
        now = time.time_ns()
        os.kill(pid, signal.SIGKILL)
        self.wait(lambda: self.status()[service].get("pid") not in (None, 0, pid), 30, f"{service} to come back")
        self.faults.append(Fault(now, time.time_ns()))

    def down(self) -> None:
        """`ssmd down`; the foreground `up` must end by itself."""
        began = time.time_ns()
        done = self.run("down", "-f", str(self.environment))
        self.faults.append(Fault(began, time.time_ns()))  # services stop somewhere in between
        assert done.returncode == 0, done.stderr
        if self._up is not None:
            assert self._up.wait(30) == 0, self.said()
            self._up = None

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What the database answers."""
        with (
            contextlib.closing(
                psycopg2.connect(host="127.0.0.1", port=self.ports["postgres"], user="postgres", dbname="ssmd")
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(query)
            return list(cursor.fetchall())

    # -- the verdict --------------------------------------------------------------------------------------------

    def check(self) -> Result:
        """The independent reader's verdict."""
        state = self.exchange_state()
        assert state is not None
        ordered = [Fault(fault["start_ns"], fault["end_ns"]) for fault in state["faults"]]
        return check([self.ledger], self.storage, faults=ordered + self.faults, schemas=ROOT / "schemas")

    def wait(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Until `condition`; fails with what was printed."""
        deadline = time.monotonic() + seconds
        while not condition():
            if self._up is not None and self._up.poll() is not None:
                raise AssertionError(f"ssmd up ended with {self._up.returncode}:\n{self.said()}")
            if time.monotonic() > deadline:
                said = self.said() if (self.folder / "up.log").exists() else ""
                raise AssertionError(f"waited {seconds} s for {what}\n{said}")
            time.sleep(0.1)

    def close(self) -> None:
        """End what is still running."""
        self.run("down", "-f", str(self.environment))
        if self._up is not None:
            self._up.kill()
            self._up.wait()
        if self._exchange is not None:
            self._exchange.terminate()
            self._exchange.wait(10)


@contextlib.contextmanager
def machine(folder: Path) -> Iterator[Machine]:
    """A machine that is cleaned up at the end."""
    made = Machine(folder)
    try:
        yield made
    finally:
        made.close()
