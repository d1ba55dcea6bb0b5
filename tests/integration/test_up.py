"""`ssmd up` and `ssmd down` on real servers, with the simulated exchange, as a user runs them."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from valkey.asyncio import Valkey

from ssmd.local.home import Home
from ssmd.local.processes import MARK, identify, marked
from tests.servers import free_port, program

pytestmark = pytest.mark.integration

CACHE_PASSWORD = "opensesame-1"
ENVIRONMENT = """\
apiVersion: ssmd/v1
kind: Environment
metadata: {{name: here}}
spec:
  keys:
    kalshi: {{type: api_key, fields: [api_key, api_secret]}}
    cache: {{type: transport, fields: [password]}}
  feed: kalshi
  database: {{url: "postgresql+psycopg2://postgres@127.0.0.1:{postgres}/ssmd"}}
  middleware:
    transport: {{type: nats, url: "nats://127.0.0.1:{nats}"}}
    storage: {{type: local, path: storage}}
    cache: {{type: redis, url: "redis://127.0.0.1:{valkey}", credentials: $key:cache}}
  gateway: {{host: 127.0.0.1, port: {gateway}, metrics_port: {metrics}}}
"""


class Installation:
    """An SSMD_HOME, an environment file on free ports, and the `ssmd` program."""

    def __init__(self, folder: Path) -> None:
        program("nats-server")
        self.home = Home(folder / "home")
        self.file = folder / "here.yaml"
        self.ports = {name: free_port() for name in ("postgres", "nats", "valkey", "gateway", "metrics")}
        self.file.write_text(ENVIRONMENT.format(**self.ports))
        self.folder = folder
        self.given: dict[str, str] = {"SSMD_KEY_CACHE_PASSWORD": CACHE_PASSWORD}

    @property
    def variables(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SSMD_", "PYTHONDONT"))}
        return kept | {"SSMD_HOME": str(self.home.root)} | self.given

    def ssmd(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command to its end and check its exit code."""
        done = subprocess.run(
            self.command(*arguments), env=self.variables, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == code, f"{arguments} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "ssmd", *arguments]

    def status(self) -> dict[str, Any]:
        done = subprocess.run(
            self.command("status", "--json"),
            env=self.variables,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        return {component["name"]: component for component in json.loads(done.stdout)}

    def left(self, mark: str) -> list[int]:
        """The numbers of processes that still carry the stack's mark."""
        return [process.pid for process, _ in marked(MARK, mark)]


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    installation = Installation(tmp_path)
    yield installation
    down = installation.command("down", "-f", str(installation.file))
    subprocess.run(down, env=installation.variables, timeout=120, check=False, capture_output=True)


def mark_of(installation: Installation) -> str:
    record = installation.home.read_record()
    assert record is not None
    return record.mark


def until(condition: Any, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"after {seconds} s still not: {what}"
        time.sleep(0.1)


@pytest.mark.alone
def test_a_detached_stack_is_healthy_survives_kills_and_goes_down_whole(installation: Installation) -> None:
    file = str(installation.file)
    up = installation.ssmd("up", "-f", file, "--no-airflow", "--detach")
    assert "everything is up" in up.stderr
    mark = mark_of(installation)

    installation.ssmd("status")
    before = installation.status()
    assert {name: one["status"] for name, one in before.items()} == dict.fromkeys(
        ["postgres", "nats", "valkey", "simulator", "connector", "archiver", "gateway", "supervisord", "total"], "ok"
    )
    again = installation.ssmd("up", "-f", file, code=3)
    assert "is already up" in again.stderr

    for name in ("connector", "nats", "valkey", "archiver"):
        killed = time.monotonic()
        os.kill(before[name]["pid"], signal.SIGKILL)
        until(lambda: identify(before[name]["pid"]) is None, 5, f"{name} is collected")  # noqa: B023 used at once
        until(lambda: installation.status()[name]["pid"] not in (0, before[name]["pid"]), 5, f"{name} runs again")  # noqa: B023
        assert time.monotonic() - killed < 5
    until(lambda: all(one["status"] == "ok" for one in installation.status().values()), 30, "all is well again")

    inventory = installation.ssmd("data", "gaps", "-f", file, "--json")
    assert any(gap["reason"] == "startup" for gap in json.loads(inventory.stdout))

    down = installation.ssmd("down", "-f", file)
    stopped = [line.split()[1] for line in down.stderr.splitlines()]
    assert stopped == ["connector", "archiver", "gateway", "simulator", "valkey", "nats", "postgres"]
    assert installation.left(mark) == []
    assert "nothing is running" in installation.ssmd("down", "-f", file).stderr
    installation.ssmd("status", code=3)


@pytest.mark.alone
def test_up_in_the_foreground_shows_a_trade_and_ends_with_0_on_sigterm(installation: Installation) -> None:
    began = time.monotonic()
    with subprocess.Popen(
        installation.command("up", "-f", str(installation.file)), env=installation.variables, stderr=subprocess.PIPE,
        text=True,
    ) as up:  # fmt: skip
        assert up.stderr is not None
        said = []
        for line in up.stderr:
            said.append(line)
            if line.startswith("first live trade"):
                break
        assert said[-1].startswith("first live trade"), "".join(said)
        assert time.monotonic() - began < 30
        mark = mark_of(installation)
        up.send_signal(signal.SIGTERM)
        rest = up.stderr.read()
    assert up.returncode == 0, rest
    assert installation.left(mark) == []
    assert f"ws://127.0.0.1:{installation.ports['gateway']}/v1/stream" in "".join(said)


def test_down_cleans_up_after_an_up_and_a_supervisor_that_were_killed(installation: Installation) -> None:
    with subprocess.Popen(
        installation.command("up", "-f", str(installation.file)), env=installation.variables, stderr=subprocess.DEVNULL
    ) as up:
        until(lambda: "gateway" in installation.status(), 30, "the stack is up")
        up.kill()
    record = installation.home.read_record()
    assert record is not None
    assert record.up is not None
    os.kill(record.supervisord.pid, signal.SIGKILL)
    assert installation.left(record.mark) != []

    installation.ssmd("down", "-f", str(installation.file))

    assert installation.left(record.mark) == []
    assert not (installation.home.postgres / "postmaster.pid").exists()
    for port in installation.ports.values():  # also of a server that hid its variables
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_taken_port_is_refused_before_anything_is_started(installation: Installation) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", installation.ports["nats"]))
        holder.listen(1)

        refused = installation.ssmd("up", "-f", str(installation.file), code=2)

    assert f"port {installation.ports['nats']} on 127.0.0.1, wanted by nats" in refused.stderr
    assert f"process {os.getpid()}" in refused.stderr
    assert installation.home.read_record() is None
    assert not installation.home.postgres.exists()


def test_two_stacks_run_side_by_side(installation: Installation, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Installation(tmp_path / "other")
    try:
        installation.ssmd("up", "-f", str(installation.file), "--detach")
        other.ssmd("up", "-f", str(other.file), "--detach")
        other.ssmd("down", "-f", str(other.file))

        installation.ssmd("status")
    finally:
        other.ssmd("down", "-f", str(other.file))


def test_the_doctor_finds_the_running_stack_in_order(installation: Installation) -> None:
    installation.ssmd("up", "-f", str(installation.file), "--detach")

    checks = json.loads(installation.ssmd("doctor", "-f", str(installation.file), "--json").stdout)

    states = {check["name"]: check for check in checks}
    assert states["port nats"]["detail"].endswith("in use by this stack")
    assert states["storage"]["state"] == "good"
    assert "1s" in states["nats"]["detail"]
    assert states["port valkey"]["detail"].endswith("in use by this stack")
    assert "at most 100mb" in states["valkey"]["detail"]


def test_the_gateway_uses_the_valkey_that_was_started_with_its_password(installation: Installation) -> None:
    installation.ssmd("up", "-f", str(installation.file), "--detach")
    at = f"127.0.0.1:{installation.ports['gateway']}"

    def health() -> dict[str, Any]:
        with urllib.request.urlopen(f"http://{at}/v1/health", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    with urllib.request.urlopen(f"http://{at}/v1/meta/feeds", timeout=10) as answer:
        assert json.load(answer)["feeds"][0]["name"] == "kalshi"
    assert health()["dependencies"]["cache"]["state"] == "connected"

    async def keys() -> list[bytes]:
        client = Valkey(port=installation.ports["valkey"], password=CACHE_PASSWORD)
        try:
            found: list[bytes] = await client.keys("ssmd:here:hot:*")
            return found
        finally:
            await client.aclose()

    assert asyncio.run(keys())
    written = "".join(path.read_text(errors="replace") for path in installation.home.run.glob("*.conf"))
    assert CACHE_PASSWORD not in written


def test_servers_do_not_see_the_operators_secrets(installation: Installation) -> None:
    secret = "hunter2-canary"
    installation.given |= {
        "SSMD_KEY_NATS_PASSWORD": secret, "PGPASSWORD": secret, "AWS_SECRET_ACCESS_KEY": secret, "SEEN": "seen-canary",
    }  # fmt: skip
    installation.ssmd("up", "-f", str(installation.file), "--detach")
    record = installation.home.read_record()
    assert record is not None

    shown: dict[str, str] = {}
    for process, name in marked(MARK, record.mark):
        name = "supervisord" if process == record.supervisord else name
        shown[name] = shown.get(name, "") + Path(f"/proc/{process.pid}/environ").read_text(errors="replace")

    assert {name for name, variables in shown.items() if secret in variables} == {"connector", "archiver", "gateway"}
    assert {"supervisord", "postgres", "nats", "simulator"} <= {n for n, text in shown.items() if "seen-canary" in text}
    assert "SSMD_KEY_KALSHI_API_KEY=" in shown["connector"]
    assert "SSMD_KEY_KALSHI" not in shown["gateway"] + shown["archiver"]
    assert secret not in installation.home.config.read_text() + installation.home.record.read_text()
