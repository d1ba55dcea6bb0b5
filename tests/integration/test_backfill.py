"""`ssmd data backfill` with a real database: three dates twice, a second run beside the first, a run that is killed."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from ssmd.archive.layout import RawObject, SegmentObject, parse_normalized
from ssmd.cli import day_lock
from ssmd.cli.main import main
from ssmd.clock import NS_PER_S, day_of, day_start_ns, now_ns
from ssmd.errors import Busy, Unavailable
from ssmd.middleware.storage.local import LocalStorage
from ssmd.registry.checks import CheckRuns
from ssmd.registry.database import Database
from ssmd.registry.day_locks import DayLocks
from ssmd.registry.postgres import PostgresRegistry
from tests.databases import Database as Server
from tests.kalshi_day import NORMALIZED, Talk, Venue
from tests.raw_archive import FEED, RAW
from tests.servers import free_port

pytestmark = pytest.mark.integration

TODAY = day_of(now_ns())
GAP = (
    b'{"feed":"kalshi","connection":"","sid":null,"from_ns":0,"to_ns":1,"reason":"startup","last_seq":null,'
    b'"next_seq":null,"tickers":null}'
)
DAYS = [TODAY - timedelta(days=back) for back in (5, 4, 3)]
Output = pytest.CaptureFixture[str]


class Archive:
    """Three days of raw objects and their rows, and an environment for them."""

    def __init__(self, folder: Path, server: Server, output: Output) -> None:
        self.folder = folder
        self.server = server
        self.url = server.fresh()
        self.storage = LocalStorage(folder / "storage")
        self.registry = PostgresRegistry(self.url)
        self._output = output
        self.file = self.environment(self.url)
        asyncio.run(self._live())

    def environment(self, url: str, storage: Path | None = None) -> Path:
        file = self.folder / "backfilled.yaml"
        file.write_text(
            "apiVersion: ssmd/v1\nkind: Environment\nmetadata: {name: backfilled}\nspec:\n  feed: kalshi\n"
            "  keys: {kalshi: {type: api_key, required: true, fields: [api_key, api_secret]}}\n"
            f"  database: {{url: {json.dumps(url)}}}\n  middleware:\n    transport: {{type: memory}}\n"
            f"    storage: {{type: local, path: {json.dumps(str(storage or self.folder / 'storage'))}}}\n"
            "    cache: {type: memory}\n    journal: {type: memory}\n"
        )
        return file

    async def _live(self) -> None:
        for number, day in enumerate(DAYS):
            said = Talk(f"c-{number}", start_ns=day_start_ns(day) + 43_200 * NS_PER_S, seed=number)
            said.start()
            said.chatter(200)
            await Venue(self.storage, self.registry).receive(self.folder, [said])

    def run(self, *words: str, code: int = 0) -> list[dict[str, Any]]:
        self._output.readouterr()
        assert main(["data", "backfill", "--env", str(self.file), "--json", *words]) == code, self._output.readouterr()
        answer: list[dict[str, Any]] = json.loads(self._output.readouterr().out)
        return answer

    def range(self, code: int = 0, *words: str) -> list[dict[str, Any]]:
        return self.run("--from", str(DAYS[0]), "--to", str(DAYS[-1]), *words, code=code)

    def refused(self, *words: str, code: int) -> str:
        self._output.readouterr()
        assert main(["data", "backfill", "--env", str(self.file), *words]) == code
        said = self._output.readouterr()
        assert "Traceback" not in said.out + said.err
        return said.out + said.err

    def commanded(self, command: str, day: date, code: int) -> str:
        self._output.readouterr()
        assert main(["data", command, "--env", str(self.file), "--date", str(day)]) == code
        said = self._output.readouterr()
        return said.out + said.err

    def everything(self) -> dict[str, tuple[bytes, int]]:
        """All normalized objects and manifests: bytes, and when they were written."""
        base = self.folder / "storage" / NORMALIZED
        return {str(file): (file.read_bytes(), file.stat().st_mtime_ns) for file in base.rglob("*") if file.is_file()}

    def rows(self) -> list[object]:
        return [self.registry.objects(FEED, day) for day in DAYS]


@pytest.fixture
def archive(tmp_path: Path, postgres: Server, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> Archive:
    monkeypatch.setenv("SSMD_HOME", str(tmp_path / "home"))
    return Archive(tmp_path, postgres, capsys)


def test_three_dates_backfilled_twice_give_the_same_bytes_and_rows(archive: Archive) -> None:
    first = archive.range()
    objects, rows = archive.everything(), archive.rows()

    second = archive.range()

    assert [report["state"] for report in first + second] == ["written"] * 6
    assert all(report["objects"]["added"] > 0 and report["events_before"] == {} for report in first)
    assert all(
        report["objects"]["unchanged"] == one["objects"]["added"] for report, one in zip(second, first, strict=True)
    )
    assert all(
        report["events"] == report["events_before"] == one["events"] for report, one in zip(second, first, strict=True)
    )
    assert archive.everything() == objects  # not even written again
    assert archive.rows() == rows
    assert len(objects) > 20


def test_a_plan_says_what_a_run_then_does_and_writes_nothing(archive: Archive) -> None:
    planned = archive.range(0, "--plan")
    assert archive.everything() == {}
    done = archive.range()

    same = ("objects", "events", "bytes", "frames", "raw_bytes", "problems", "decoder")
    assert [{key: report[key] for key in same} for report in planned] == [
        {key: report[key] for key in same} for report in done
    ]
    assert {report["state"] for report in planned} == {"planned"}


def test_each_date_is_a_run_of_the_check_backfill(archive: Archive) -> None:
    archive.range()

    database = Database(archive.url)
    runs = CheckRuns(database).of_days(FEED, DAYS[0], DAYS[-1])
    database.close()
    assert [(run.check, run.day, run.state, run.exit_code) for run in runs] == [
        ("backfill", day, "passed", 0) for day in DAYS
    ]
    assert runs[0].detail is not None
    assert runs[0].detail["objects"]["added"] > 0


def test_a_changed_object_is_put_right_and_an_unknown_one_removed(archive: Archive) -> None:
    archive.range()
    before = {name: content for name, (content, _) in archive.everything().items()}
    base = archive.folder / "storage" / NORMALIZED
    damaged, other = sorted(base.rglob("data.capnp.zst"))[:2]
    damaged.write_bytes(b"flipped" + damaged.read_bytes()[7:])
    stray = other.parent.with_name("STRAY") / other.name
    stray.parent.mkdir()
    stray.write_bytes(other.read_bytes())

    reports = archive.range()

    assert {name: content for name, (content, _) in archive.everything().items()} == before
    assert (sum(r["objects"]["changed"] for r in reports), sum(r["objects"]["removed"] for r in reports)) == (1, 1)
    assert any(str(stray.parent.name) in key for report in reports for key in report["changed_objects"])


def test_a_second_backfill_of_a_date_is_to_come_again_and_the_others_of_its_range_go_on(archive: Archive) -> None:
    database = Database(archive.url)
    with DayLocks(database).hold(FEED, DAYS[1], "compact"):
        reports = archive.range(code=7)
        said = archive.refused("--from", str(DAYS[1]), code=7)
        assert main(["data", "compact", "--env", str(archive.file), "--date", str(DAYS[1])]) == 7
    database.close()

    assert [report["state"] for report in reports] == ["written", "refused", "written"]
    assert "is being worked on: ssmd compact on" in reports[1]["message"]
    assert "ssmd compact" in said
    assert archive.range()[1]["state"] == "written"


def test_a_scheduled_backfill_waits_for_the_readers_of_its_date(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a task of Airflow, beside the checks of an earlier run."""
    monkeypatch.setattr(day_lock, "PAUSE_S", 0.1)
    monkeypatch.setenv(day_lock.WAIT, "600")
    said: list[str] = []
    database, held, asked = Database(archive.url), threading.Event(), threading.Event()

    def read() -> None:
        with DayLocks(database).hold(FEED, DAYS[0], "quality", shared=True):
            held.set()
            asked.wait(60)

    def talk(text: str) -> None:
        said.append(text)
        asked.set()

    monkeypatch.setattr(day_lock, "talk", talk)
    reader = threading.Thread(target=read)
    reader.start()
    held.wait(60)
    assert main(["data", "backfill", "--env", str(archive.file), "--from", str(DAYS[0])]) == 0
    reader.join()
    database.close()

    assert "is being worked on: ssmd quality on" in said[0]
    assert "waiting for it, 10 min at most" in said[0]


def test_readers_share_a_day_and_a_writer_has_it_alone(archive: Archive) -> None:
    database = Database(archive.url)
    locks = DayLocks(database)
    with locks.hold(FEED, DAYS[0], "verify", shared=True), locks.hold(FEED, DAYS[0], "plan", shared=True):
        with pytest.raises(Busy, match="ssmd verify"), locks.hold(FEED, DAYS[0], "backfill"):
            pass
        with locks.hold(FEED, DAYS[1], "backfill"), locks.hold("other", DAYS[0], "backfill"):
            pass
    with (
        locks.hold(FEED, DAYS[0], "backfill"),
        pytest.raises(Busy, match="ssmd backfill"),
        locks.hold(FEED, DAYS[0], "verify", shared=True),
    ):
        pass
    database.close()


def test_who_lost_the_lock_with_its_connection_is_told(archive: Archive) -> None:
    database = Database(archive.url)
    with DayLocks(database).hold(FEED, DAYS[0], "backfill") as check:
        check()
        archive.server.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'ssmd back%'"
        )
        with pytest.raises(Unavailable):
            check()
        with DayLocks(database).hold(FEED, DAYS[0], "backfill"):
            pass
    database.close()


def test_a_killed_run_frees_its_lock_and_the_next_finishes_it(archive: Archive, tmp_path: Path) -> None:
    archive.range()
    wanted = {name: content for name, (content, _) in archive.everything().items()}
    for file in (archive.folder / "storage" / NORMALIZED).rglob("*"):
        if file.is_file():
            file.unlink()
    command = [sys.executable, "-m", "ssmd", "data", "backfill", "--env", str(archive.file)]
    command += ["--from", str(DAYS[0]), "--to", str(DAYS[-1])]
    running = subprocess.Popen(
        command, env={**os.environ, "SSMD_HOME": str(tmp_path / "home")}, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 30
    while not archive.everything() and time.monotonic() < deadline:
        time.sleep(0.002)
    running.send_signal(signal.SIGKILL)
    running.wait(10)
    deadline = time.monotonic() + 10
    while archive.server.run("SELECT 1 FROM pg_locks WHERE locktype = 'advisory'") and time.monotonic() < deadline:
        time.sleep(0.02)

    archive.range()

    assert {name: content for name, (content, _) in archive.everything().items()} == wanted


def test_an_interrupted_range_goes_on_where_it_was(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    from ssmd.backfill import resume

    ends: list[object] = []
    monkeypatch.setattr(resume.Resume, "end", lambda self: ends.append(self))  # what a kill leaves behind
    archive.range()
    monkeypatch.undo()
    monkeypatch.setenv("SSMD_HOME", str(archive.folder / "home"))
    (archive.folder / "storage" / RAW / FEED / f"{DAYS[1]:%Y/%m/%d}" / "_gaps").mkdir()
    asyncio.run(archive.storage.put_once(RAW, f"{FEED}/{DAYS[1]:%Y/%m/%d}/_gaps/1-none.json", GAP))

    again = archive.range()
    after_that = archive.range()

    assert [report["state"] for report in again] == [
        "done_before",
        "written",
        "done_before",
    ]  # the second's raw changed
    assert again[1]["gaps"] == 1
    assert [report["state"] for report in after_that] == ["written"] * 3
    assert len(ends) == 1


@pytest.mark.parametrize("lost", ["object", "part of an object", "manifest", "row"])
def test_an_interrupted_range_does_a_date_again_of_which_something_is_missing_now(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    from ssmd.backfill import resume

    monkeypatch.setattr(resume.Resume, "end", lambda self: None)  # what a kill leaves behind
    archive.range()
    kept = {name: content for name, (content, _) in archive.everything().items()}
    rows = archive.registry.objects(FEED, DAYS[0], "normalized")
    row = next(row for row in rows if row.group == "trade")
    file = archive.folder / "storage" / NORMALIZED / row.key
    match lost:
        case "object":
            file.unlink()
        case "part of an object":
            file.write_bytes(file.read_bytes()[:-1])
        case "manifest":
            (archive.folder / "storage" / NORMALIZED / parse_normalized(row.key).manifest_key).unlink()
        case _:
            archive.registry.replace_objects(FEED, [(NORMALIZED, row.key)], [])

    again = archive.range()

    assert [report["state"] for report in again] == ["written", "done_before", "done_before"]
    assert {name: content for name, (content, _) in archive.everything().items()} == kept
    assert {row.key: row for row in archive.registry.objects(FEED, DAYS[0], "normalized")} == {
        row.key: row for row in rows
    }


def test_a_damaged_raw_object_fails_its_date_only(archive: Archive) -> None:
    archive.range()
    kept = archive.everything()
    damaged = archive.folder / "storage" / RAW / RawObject(FEED, DAYS[1], "orderbook", "", 0).key
    damaged.write_bytes(damaged.read_bytes()[:-1])

    reports = archive.range(code=1)

    assert [report["state"] for report in reports] == ["written", "failed", "written"]
    assert "orderbook-00.jsonl.zst" in reports[1]["message"]
    assert f"ssmd data verify --feed {FEED} --date {DAYS[1]}" in reports[1]["hint"]
    assert archive.everything() == kept


def test_a_raw_object_that_only_the_inventory_has_keeps_the_day_as_it_is(archive: Archive) -> None:
    archive.range()
    kept = archive.everything()
    its = RawObject(FEED, DAYS[0], "trades", "", 0)
    for key in (its.key, its.manifest_key):
        (archive.folder / "storage" / RAW / key).unlink()

    (report,) = archive.run("--from", str(DAYS[0]), code=1)

    assert "in the inventory but not in storage: ssmd-raw/" in report["message"]
    assert archive.everything() == kept


def test_a_raw_bucket_that_is_gone_is_no_wrong_input(archive: Archive) -> None:
    archive.range()
    kept, rows = archive.everything(), archive.rows()
    bucket = archive.folder / "storage" / RAW
    bucket.rename(archive.folder / "moved")

    (report,) = archive.run("--from", str(DAYS[0]), code=1)

    assert "in the inventory but not in storage: ssmd-raw/" in report["message"]
    said = archive.commanded("compact", DAYS[0], code=1)
    assert "in the inventory but not in storage: ssmd-raw/" in said
    assert (archive.everything(), archive.rows()) == (kept, rows)

    bucket.write_bytes(b"no folder")
    assert "no folder" in archive.refused("--from", str(DAYS[0]), "--to", str(DAYS[1]), code=7)
    archive.commanded("compact", DAYS[0], code=7)
    archive.commanded("verify", DAYS[0], code=7)
    bucket.unlink()
    (archive.folder / "moved").rename(bucket)
    assert {report["state"] for report in archive.range()} == {"written"}


def test_a_strangers_file_among_raw_stops_no_day(archive: Archive) -> None:
    archive.range()
    kept = {name: content for name, (content, _) in archive.everything().items()}
    day = archive.folder / "storage" / RAW / FEED / f"{DAYS[0]:%Y/%m/%d}"
    strangers = ("notes.txt", "trades-00.jsonl.zst.bak", "sub/thing", "_manifest/notes.txt", "_gaps/README", "_other/x")
    for name in strangers:
        (day / name).parent.mkdir(exist_ok=True)
        (day / name).write_bytes(b"hello")
    beside = archive.folder / "storage" / NORMALIZED / FEED / "v1/trade" / f"{DAYS[0]:%Y/%m/%d}" / "notes.txt"
    beside.write_bytes(b"hello")

    reports = archive.range()

    assert [report["state"] for report in reports] == ["written"] * 3
    assert reports[0]["raw_objects"] == len(list(day.glob("*.zst")))
    archive.commanded("compact", DAYS[0], code=0)
    assert beside.read_bytes() == b"hello"
    beside.unlink()
    assert {name: content for name, (content, _) in archive.everything().items()} == kept
    beside.write_bytes(b"hello")
    said = archive.commanded("verify", DAYS[0], code=6)
    for name in (*strangers, "v1/trade"):
        assert [line for line in said.splitlines() if "stray" in line and name in line], name


def test_dates_that_cannot_be_backfilled_get_one_clear_line(archive: Archive) -> None:
    lacking = DAYS[0] - timedelta(days=1)
    said = archive.refused("--from", str(lacking), code=2)
    assert f"there is no raw data of kalshi on {lacking}" in said
    assert f"Days near it that have some: {DAYS[0]}, {DAYS[1]}" in said
    assert "is in the future" in archive.refused("--from", str(TODAY + timedelta(days=1)), code=2)
    assert "is not over" in archive.refused("--from", str(TODAY), code=3)
    assert "ends" in archive.refused("--from", str(DAYS[1]), "--to", str(DAYS[0]), code=2)
    assert "more than" in archive.refused("--from", "1900-01-01", "--to", str(DAYS[0]), code=2)
    for feed in ("kalshii", "x" * 10_000, "a'; drop table feeds", "\udcff\n"):
        assert len(archive.refused("--feed", feed, "--from", str(DAYS[0]), code=2)) < 800
    assert archive.refused("--from", "yesterday", code=2)
    assert main(["data", "backfill", "--env", "no-such.yaml", "--from", str(DAYS[0])]) == 2


def test_today_in_a_range_is_refused_and_its_segments_left_alone(archive: Archive) -> None:
    said = archive.run("--from", str(DAYS[-1]), "--to", str(TODAY), code=2)

    assert [report["exit_code"] for report in said] == [0, 2, 2, 3]


def test_servers_that_are_away_end_the_run(archive: Archive, tmp_path: Path) -> None:
    nowhere = f"postgresql+psycopg2://postgres@127.0.0.1:{free_port()}/nothing"
    archive.file = archive.environment(nowhere)
    assert "127.0.0.1" in archive.refused("--from", str(DAYS[0]), "--to", str(DAYS[1]), code=7)


def test_segments_of_a_closed_day_give_way_only_where_raw_has_all_of_them(archive: Archive) -> None:
    archive.range()
    trades = archive.folder / "storage" / NORMALIZED / FEED / "v1/trade" / f"{DAYS[0]:%Y/%m/%d}"
    ticker = min(trades.rglob("*.zst"))
    segment = SegmentObject(FEED, "trade", DAYS[0], "s-1", 1, 9)
    path = archive.folder / "storage" / NORMALIZED / segment.key
    path.parent.mkdir(parents=True)
    path.write_bytes(ticker.read_bytes())
    assert parse_normalized(segment.key) == segment

    (report,) = archive.run("--from", str(DAYS[0]))

    assert (report["segments_deleted"], report["segments_kept"]) == (1, 0)
    assert report["missing_in_stream"]["trade"] > 0
    assert not path.exists()
