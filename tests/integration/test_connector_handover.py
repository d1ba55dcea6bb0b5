"""Two connector processes on a real broker: kill -9 of the active one, and a drain, as the operator and fate do it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ssmd.archiver import Archiver
from ssmd.backfill import compact
from ssmd.clock import day_of, now_ns
from ssmd.middleware.storage.local import LocalStorage
from ssmd.middleware.transport.nats import NatsTransport
from ssmd.quality.verify import verify
from ssmd.registry.memory import MemoryRegistry
from ssmd.service_state import read_state
from ssmd.simulator.keys import make_key_pair
from ssmd.simulator.options import SimulatorOptions
from ssmd.simulator.server import Simulator, running
from tests.checker.check import check

if TYPE_CHECKING:
    from tests.servers import NatsServer

SCHEMAS = Path(__file__).parents[2] / "schemas"


class Machine:
    """Connector processes of one environment; what is left of them at the end is killed."""

    def __init__(self, folder: Path, simulator: Simulator, broker: "NatsServer") -> None:
        self.home = folder / "home"
        self.storage = folder / "storage"
        self.file = folder / "environment.yaml"
        self.file.write_text(f"""
apiVersion: ssmd/v1
kind: Environment
metadata: {{name: handover}}
spec:
  keys:
    kalshi: {{type: api_key, required: true, fields: [api_key, api_secret]}}
  feed: kalshi
  endpoints: {{ws: "{simulator.ws_url}", rest: "{simulator.rest_url}"}}
  middleware:
    transport: {{type: nats, url: "{broker.url}"}}
    storage: {{type: local, path: "{self.storage}"}}
    cache: {{type: memory}}
    journal: {{type: memory}}
""")
        key_id, private, _ = make_key_pair(folder / "keys", "ed25519")
        self._env = {
            **os.environ, "SSMD_HOME": str(self.home), "SSMD_KEY_KALSHI_API_KEY": key_id,
            "SSMD_KEY_KALSHI_API_SECRET_FILE": str(private),
        }  # fmt: skip
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str = "") -> None:
        command = [sys.executable, "-m", "ssmd", "run", "connector", "--env", str(self.file)]
        command += ["--name", name] if name else []
        log = (self.file.parent / f"log-{name}").open("ab")
        with log:
            self.processes[name] = subprocess.Popen(command, env=self._env, stdout=log, stderr=log)

    def health(self, name: str = "") -> dict[str, Any]:
        state = read_state(self.home, f"connector-{name}" if name else "connector")
        if state is None or self.processes[name].pid != state.pid:
            return {}
        try:
            with urllib.request.urlopen(f"http://{state.host}:{state.port}/health", timeout=2) as answer:
                said: dict[str, Any] = json.load(answer)
        except urllib.error.HTTPError as error:
            said = json.load(error)
        except OSError:
            return {}
        return said

    def end(self, name: str, sign: signal.Signals) -> int:
        self.processes[name].send_signal(sign)
        return self.processes.pop(name).wait(60)

    async def until(self, condition: Callable[[], object], seconds: float = 60) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                for name, process in self.processes.items():
                    assert process.poll() is None, (self.file.parent / f"log-{name}").read_text()[-2000:]
                await asyncio.sleep(0.02)

    async def ready(self, name: str, role: str) -> None:
        def is_ready() -> bool:
            said = self.health(name)
            return said.get("role") == role and said.get("books_ready") is True

        async with asyncio.timeout(60):
            while not await asyncio.to_thread(is_ready):
                assert self.processes[name].poll() is None
                await asyncio.sleep(0.05)


@pytest.fixture
def exchange() -> SimulatorOptions:
    return SimulatorOptions(rate=3000, window_s=60, heartbeat_s=1.0)


@pytest.fixture
async def machine(
    tmp_path: Path, exchange: SimulatorOptions, nats_broker: "NatsServer"
) -> AsyncIterator[tuple[Machine, Simulator]]:
    async with running(replace(exchange, ledger=tmp_path / "ledger.jsonl")) as simulator:
        made = Machine(tmp_path, simulator, nats_broker)
        try:
            yield made, simulator
        finally:
            for process in made.processes.values():
                process.kill()
                process.wait()


def sent(simulator: Simulator) -> int:
    return int(simulator.state()["frames"])


@pytest.mark.alone
async def test_kill_9_of_the_active_process_and_a_drain_leave_one_whole_day(
    machine: tuple[Machine, Simulator], tmp_path: Path, nats_broker: "NatsServer"
) -> None:
    its, simulator = machine
    transport, storage, registry = NatsTransport(nats_broker.url), LocalStorage(its.storage), MemoryRegistry()
    archiver = Archiver("kalshi", transport, storage, "ssmd-normalized", registry, seal_s=2)
    stop = asyncio.Event()
    its.start()
    await its.ready("", "active")
    archiving = asyncio.create_task(archiver.run(stop))
    its.start("b")
    await its.ready("b", "standby")
    await asyncio.sleep(1.5)

    its.end("", signal.SIGKILL)
    await its.ready("b", "active")
    its.start()  # the supervisor
    await its.ready("", "standby")
    before = sent(simulator)
    await its.until(lambda: sent(simulator) > before + 3000)
    assert (await asyncio.to_thread(its.health, "b"))["takeover"]["gap_s"] == 0.0
    assert await asyncio.to_thread(its.end, "b", signal.SIGTERM) == 0
    await its.ready("", "active")
    before = sent(simulator)
    await its.until(lambda: sent(simulator) > before + 3000)
    assert await asyncio.to_thread(its.end, "", signal.SIGTERM) == 0
    stop.set()
    await archiving
    await transport.close()

    today = day_of(now_ns())
    tomorrow = today + timedelta(days=1)
    report = await compact("kalshi", today, storage, "ssmd-raw", "ssmd-normalized", registry, today=tomorrow)
    assert (report.missing_in_stream, report.only_in_stream) == ({}, {})
    verified = await verify(
        "kalshi", today, storage, None, raw_bucket="ssmd-raw", normalized_bucket="ssmd-normalized", today=tomorrow
    )
    assert not verified.findings
    result = check([tmp_path / "ledger.jsonl"], its.storage, schemas=SCHEMAS)
    assert not result.findings, result.table()
    assert Counter(gap.reason for gap in result.archive.gaps) == {"planned_teardown": 1}  # the day's end
