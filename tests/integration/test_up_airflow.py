"""`ssmd up` with Airflow: the first day runs by itself, Chromium shows its page, and everything ends with it."""

import asyncio
import json
import queue
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import async_playwright, expect
from websockets.asyncio.client import connect

from ssmd.clock import NS_PER_S, day_of, day_start_ns, now_ns
from ssmd.local.processes import MARK, marked
from ssmd.middleware.storage.local import LocalStorage
from ssmd.registry.postgres import PostgresRegistry
from tests.conftest import missing
from tests.integration.test_up import Installation
from tests.kalshi_day import Talk, Venue
from tests.servers import free_port

pytestmark = [pytest.mark.integration, pytest.mark.alone]

WAIT_S = 120.0
MAX_MB = 2_500
FIRST = ("secmaster_sync", "daily_startup")


class Day(Installation):
    """An installation whose environment has an Airflow, and the words of its `ssmd up`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        pytest.importorskip("airflow", reason="Airflow is missing: pip install 'ssmd[airflow]'")
        self.port = self.ports["airflow"] = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        with self.file.open("a") as file:
            file.write(f'  airflow: {{url: "{self.url}", parallelism: 3}}\n')
        self.given["AIRFLOW__CORE__EXECUTOR"] = "of.another.Airflow"  # the operator's, not ours
        self.said: list[str] = []
        self._lines: queue.Queue[str] = queue.Queue()

    def listen(self, up: "subprocess.Popen[str]") -> None:
        """Begin to collect what `up` says."""
        assert up.stderr is not None
        stream = up.stderr

        def read() -> None:
            for line in stream:
                self._lines.put(line)

        threading.Thread(target=read, daemon=True).start()

    def hears(self, words: str, seconds: float = WAIT_S) -> str:
        """The first line from now on with `words` in it."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                pytest.fail(f"after {seconds} s not said: {words}\n{''.join(self.said)}\n{self.logs()}")
            self.said.append(line)
            assert not line.startswith("✗"), "".join(self.said) + self.logs()
            if words in line:
                return line

    def logs(self) -> str:
        """The ends of Airflow's logs."""
        found = sorted(self.home.log.glob("airflow-*.log"))
        return "".join(f"--- {path.name}\n{path.read_text(errors='replace')[-2000:]}\n" for path in found)

    def asks(self, path: str, body: dict[str, Any] | None = None, token: str = "") -> Any:
        """One request to Airflow."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        data = json.dumps(body).encode() if body else None
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data, headers), timeout=20) as answer:
            return json.load(answer)


@pytest.fixture
def day(tmp_path: Path) -> Iterator[Day]:
    installation = Day(tmp_path)
    yield installation
    down = installation.command("down", "-f", str(installation.file))
    subprocess.run(down, env=installation.variables, timeout=120, check=False, capture_output=True)


def test_the_first_day_runs_by_itself_is_seen_in_a_browser_and_ends_with_the_stack(day: Day) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        missing("Chromium", "apt-get install chromium")
    with subprocess.Popen(
        day.command("up", "-f", str(day.file)), env=day.variables, stderr=subprocess.PIPE, text=True
    ) as up:
        try:
            day.listen(up)
            login = day.hears(f"airflow  {day.url}")
            day.hears("everything is up", 5)
            day.hears("ready after")
            for dag in FIRST:
                day.hears(f"{dag} succeeded")
            password = login.rpartition("password ")[2].strip().rstrip(")")
            the_api_says_so(day, password)
            asyncio.run(the_page_shows_it(day, password, chromium))
            each_sees_what_it_needs(day)
            record = day.home.read_record()
            assert record is not None
            nothing_else_listens(day, record.mark)
            the_stack_is_small_and_well(day)
            asyncio.run(a_whole_day_goes_through_the_api(day, password))
            asyncio.run(the_report_is_read(day, chromium))
        finally:
            up.send_signal(signal.SIGTERM)
            code = up.wait(90)
    assert code == 0
    assert day.left(record.mark) == []


def the_api_says_so(day: Day, password: str) -> None:
    """Both runs, and the pools; the password is also where `ssmd ops` looks, for the owner's eyes only."""
    access = json.loads(day.home.airflow_access.read_text())
    assert access == {"url": day.url, "username": "admin", "password": password}
    for path in (day.home.airflow_access, *day.home.airflow.glob("*.json"), day.home.airflow / "airflow.cfg"):
        assert path.stat().st_mode & 0o777 == 0o600, path
    token = day.asks("/auth/token", {"username": "admin", "password": password})["access_token"]
    for dag in FIRST:
        states = [run["state"] for run in day.asks(f"/api/v2/dags/{dag}/dagRuns", token=token)["dag_runs"]]
        assert "success" in states, dag
        assert not day.asks(f"/api/v2/dags/{dag}", token=token)["is_paused"]
    assert day.asks("/api/v2/importErrors", token=token)["import_errors"] == []
    slots = {pool["name"]: pool["slots"] for pool in day.asks("/api/v2/pools", token=token)["pools"]}
    assert slots["ssmd_heavy"] == 2


async def the_page_shows_it(day: Day, password: str, chromium: str) -> None:
    """Log in as a person does, see the run; nothing is asked of another host."""
    asked: list[str] = []
    async with async_playwright() as play:
        browser = await play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        page = await browser.new_page(viewport={"width": 1400, "height": 900})
        page.on("request", lambda request: asked.append(request.url))
        await page.goto(f"{day.url}/dags/daily_startup")
        await page.get_by_label("Username").or_(page.locator("input[name=username]")).first.fill("admin")
        await page.locator("input[type=password]").fill(password)
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("check_health").first).to_be_visible(timeout=30_000)
        await page.screenshot(path=day.folder / "grid.png")
        await browser.close()
    hosts = {urlsplit(url).netloc for url in asked if urlsplit(url).scheme not in ("data", "blob")}
    assert hosts == {f"127.0.0.1:{day.port}"}


def each_sees_what_it_needs(day: Day) -> None:
    """Only the scheduler, whose children run the commands, is given keys; none sees another Airflow's settings."""
    pids = {name: one["pid"] for name, one in day.status().items() if name.startswith("airflow-")}
    seen = {name: Path(f"/proc/{pid}/environ").read_text(errors="replace") for name, pid in pids.items()}

    assert {name for name, text in seen.items() if "SSMD_KEY_" in text} == {"airflow-scheduler"}
    assert all("of.another.Airflow" not in text for text in seen.values())
    assert all(f"AIRFLOW_HOME={day.home.airflow}\0" in text for text in seen.values())


def nothing_else_listens(day: Day, mark: str) -> None:
    """One address on loopback, and no log servers."""
    inodes = set()
    for process, name in marked(MARK, mark):
        if name.startswith("airflow-"):
            for path in Path(f"/proc/{process.pid}/fd").iterdir():
                inodes.add(str(path.readlink()))
    listening = []
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            row = line.split()
            if row[3] == "0A" and f"socket:[{row[9]}]" in inodes:
                listening.append(row[1])
    assert listening == [f"{socket.htonl(0x7F000001):08X}:{day.port:04X}"]


def the_stack_is_small_and_well(day: Day) -> None:
    """`ssmd status`, in all its lines."""
    programs = day.status()
    assert {name: one["status"] for name, one in programs.items() if one["status"] != "ok"} == {}
    assert programs["airflow-scheduler"]["memory_mb"] > 50
    parts = sum(one["memory_mb"] for name, one in programs.items() if name != "total")
    assert parts == programs["total"]["memory_mb"] <= MAX_MB


async def a_whole_day_goes_through_the_api(day: Day, password: str) -> None:
    """Start, stream, end; then the day before is checked, judged and made again: every run ends well."""
    token = day.asks("/auth/token", {"username": "admin", "password": password})["access_token"]
    today = day_of(now_ns())
    before = today - timedelta(days=1)
    registry = PostgresRegistry(f"postgresql+psycopg2://postgres@127.0.0.1:{day.ports['postgres']}/ssmd")
    said = Talk("c-1", start_ns=day_start_ns(before) + 43_200 * NS_PER_S, seed=5)
    said.start()
    said.chatter(200)
    await Venue(LocalStorage(day.home.root / "storage"), registry).receive(day.folder, [said])

    number = count()

    def runs(dag: str) -> dict[str, str]:
        found = day.asks(f"/api/v2/dags/{dag}/dagRuns", token=token)["dag_runs"]
        return {run["dag_run_id"]: run["state"] for run in found}

    async def succeeds(dag: str, **conf: str) -> None:
        run = f"asked-{next(number)}"
        day.asks(f"/api/v2/dags/{dag}/dagRuns", {"dag_run_id": run, "logical_date": None, "conf": conf}, token)
        await ended(dag, lambda: runs(dag).get(run, ""))

    async def ended(dag: str, state: Callable[[], str]) -> None:
        deadline = time.monotonic() + WAIT_S
        while (now := state()) != "success":
            assert now != "failed", f"{dag}\n{day.logs()}"
            assert time.monotonic() < deadline, f"{dag} is {now!r} after {WAIT_S} s\n{day.logs()}"
            await asyncio.sleep(0.5)

    await succeeds("daily_startup", date=str(today))
    async with connect(f"ws://127.0.0.1:{day.ports['gateway']}/v1/stream?symbols=*") as client:
        async with asyncio.timeout(30):
            while json.loads(await client.recv())["type"] != "trade":
                pass
    await succeeds("daily_teardown", date=str(today))
    assert day.status()["connector"]["state"] in ("STOPPED", "EXITED")
    for dag in ("archive_verification", "data_quality"):  # the day's archive has changed
        await ended(dag, lambda: next(iter(runs(dag).values()), ""))  # noqa: B023 used at once
    for dag in ("archive_verification", "data_quality"):
        await succeeds(dag, date=str(before))
    await succeeds("backfill", **{"from": str(before), "to": str(before)})
    await succeeds("daily_startup", date=str(today))


async def the_report_is_read(day: Day, chromium: str) -> None:
    """The gateway shows both days' reports, and asks nobody else for anything."""
    gateway = f"http://127.0.0.1:{day.ports['gateway']}"
    asked: list[str] = []
    async with async_playwright() as play:
        browser = await play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        page = await browser.new_page(viewport={"width": 1400, "height": 900})
        page.on("request", lambda request: asked.append(request.url))
        await page.goto(f"{gateway}/quality/kalshi/index.html")
        for seen in (day_of(now_ns()), day_of(now_ns()) - timedelta(days=1)):
            await expect(page.get_by_text(str(seen)).first).to_be_visible()
        await page.screenshot(path=day.folder / "report.png")
        await browser.close()
    assert asked
    assert all(url.startswith(gateway) for url in asked)


def test_an_airflow_of_another_version_is_refused_before_anything_starts_and_may_be_left_out(
    day: Day, tmp_path: Path
) -> None:
    stale = tmp_path / "site" / "apache_airflow_core-2.9.0.dist-info"
    stale.mkdir(parents=True)
    (stale / "METADATA").write_text("Metadata-Version: 2.1\nName: apache-airflow-core\nVersion: 2.9.0\n")
    day.given["PYTHONPATH"] = str(stale.parent)

    refused = day.ssmd("up", "-f", str(day.file), "--detach", code=2)

    assert "Airflow 2.9.0 is installed, and ssmd's DAGs are made for Airflow 3.3" in refused.stderr
    assert "ssmd up --no-airflow" in refused.stderr
    assert day.home.read_record() is None
    day.ssmd("up", "-f", str(day.file), "--detach", "--no-airflow")
    assert not [name for name in day.status() if name.startswith("airflow")]
