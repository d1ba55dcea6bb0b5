"""`ssmd quality run` and `ssmd data export` on PostgreSQL and files: exit codes, records, reports, and bad input."""

import asyncio
import importlib.util
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pyarrow.dataset as ds
import pytest

from ssmd.cli.main import main
from ssmd.cli.options import choose
from ssmd.clock import NS_PER_S, day_of, day_start_ns, now_ns
from ssmd.middleware.storage.local import LocalStorage
from ssmd.registry.postgres import PostgresRegistry
from tests.databases import Database as Server
from tests.kalshi_day import TICKERS
from tests.quality_day import CleanTalk, QualityWorld
from tests.raw_archive import FEED
from tests.servers import free_port

pytestmark = pytest.mark.integration

DAY = day_of(now_ns()) - timedelta(days=2)
START = day_start_ns(DAY) + 9 * 3_600 * NS_PER_S
Output = pytest.CaptureFixture[str]


class Rest:
    """The exchange's REST list of trades, on a port of its own."""

    def __init__(self) -> None:
        self.trades: list[dict[str, Any]] = []
        rest = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
                low, high = float(query.get("min_ts", 0)), float(query.get("max_ts", 1 << 40))
                found = [
                    item
                    for item in rest.trades
                    if item["ticker"] == query.get("ticker")
                    and low <= datetime.fromisoformat(item["created_time"]).timestamp() <= high
                ]
                body = json.dumps({"trades": found[::-1], "cursor": ""}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/trade-api/v2"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Installation:
    """Three listed markets, an archived day, and the environment file that leads there."""

    def __init__(self, folder: Path, server: Server, output: Output, rest: str) -> None:
        self._server = server
        self._output = output
        self.folder = folder
        self.url = server.fresh()
        self.registry = PostgresRegistry(self.url)
        self.world = QualityWorld(folder, LocalStorage(folder / "storage"), self.registry)
        self.world.list_markets()
        self.file = self.environment("quality", self.url, rest)

    def environment(self, name: str, url: str, rest: str) -> Path:
        file = self.folder / f"{name}.yaml"
        file.write_text(
            f"apiVersion: ssmd/v1\nkind: Environment\nmetadata: {{name: {name}}}\nspec:\n  feed: kalshi\n"
            "  keys: {kalshi: {type: api_key, required: true, fields: [api_key, api_secret]}}\n"
            f"  endpoints: {{ws: 'ws://127.0.0.1:9/', rest: {rest}}}\n"
            f"  database: {{url: {json.dumps(url)}}}\n  middleware:\n    transport: {{type: memory}}\n"
            f"    storage: {{type: local, path: {json.dumps(str(self.folder / 'storage'))}}}\n"
            "    cache: {type: memory}\n    journal: {type: memory}\n"
        )
        return file

    def archive(self, talk: CleanTalk) -> None:
        asyncio.run(self.world.archive(talk, day=DAY))
        self.world.follow(DAY)

    def run(self, *words: str, code: int, file: Path | None = None) -> tuple[str, str]:
        self._output.readouterr()
        assert main([*words, "--env", str(file or self.file)]) == code, self._output.readouterr()
        said = self._output.readouterr()
        return said.out, said.err

    def sql(self, statement: str) -> list[tuple[object, ...]]:
        return self._server.run(statement, self.url.rpartition("/")[2])


@pytest.fixture
def rest() -> Iterator[Rest]:
    serving = Rest()
    yield serving
    serving.close()


@pytest.fixture
def made(
    tmp_path: Path, postgres: Server, capsys: Output, monkeypatch: pytest.MonkeyPatch, rest: Rest
) -> Iterator[Installation]:
    monkeypatch.setenv("SSMD_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSMD_ENV", raising=False)
    installation = Installation(tmp_path, postgres, capsys, rest.url)
    yield installation
    installation.registry.close()


def test_a_clean_day_passes_and_a_faulty_one_is_recorded_once_scored_and_shown(made: Installation, rest: Rest) -> None:
    talk = CleanTalk(start_ns=START).clean()
    talk.trade(TICKERS[0], "whole", price="1.00")
    rest.trades = talk.trades
    made.archive(talk)
    words = ("quality", "run", "--date", str(DAY))

    out, talked = made.run(*words, code=6)
    told = made.sql("SELECT data_type, issue_type, severity, detail, count FROM data_quality_issues")
    assert told == [("quality", "inconsistent", "error", "trades: price be_between", 1)]
    assert "✗ trades" in out
    assert "trade_id=whole" in out

    answer = json.loads(made.run(*words, "--json", code=6)[0])
    assert made.sql("SELECT data_type, issue_type, severity, detail, count FROM data_quality_issues") == told
    assert answer["findings"] == 1
    assert {suite["suite"]: suite["colour"] for suite in answer["suites"]} == {
        "drift": "grey", "gaps": "green", "orderbook": "green", "quotes": "green", "raw": "green",
        "security_master": "green", "status": "green", "trades": "red",
    }  # fmt: skip
    assert {o["state"] for suite in answer["suites"] for o in suite["outcomes"]} == {"passed", "failed"}
    report = made.folder / "storage" / "ssmd-reports" / answer["report"]
    assert "trades" in report.read_text()
    port = choose(made.file).environment.spec.gateway.port
    assert talked.splitlines()[-1] == f"Report: http://127.0.0.1:{port}/quality/{answer['report']}"
    scores = made.sql(
        f"SELECT data_type, quality_score, status FROM data_inventory WHERE date = '{DAY}' ORDER BY data_type"
    )
    assert {(kind, status) for kind, _, status in scores} == {("normalized", "processing"), ("raw", "processing")}
    assert {float(str(score)) for _, score, _ in scores} == {answer["score"]}

    runs = made.sql("SELECT check_name, state, exit_code, findings, summary FROM check_runs ORDER BY id")
    assert runs == [("quality", "findings", 6, 1, "1 expectation not met in 7 suites; did not run: drift")] * 2
    parts = json.loads(made.run("data", "quality", "--date", str(DAY), "--json", code=0)[0])
    assert (parts["failed_count"], parts["quality_score"]) == (1, answer["score"])
    assert parts["parts"]["expectations"] < 1


def test_a_day_that_lost_trades_has_its_report(made: Installation, rest: Rest) -> None:
    """What is not equal are numpy's numbers; the check that finds lost trades must not fail on them."""
    talk = CleanTalk(start_ns=START).clean(80)
    rest.trades = [*talk.trades, {**talk.trades[5], "trade_id": "lost", "count_fp": "2.50"}]
    made.archive(talk)

    answer = json.loads(made.run("quality", "run", "--date", str(DAY), "--json", code=6)[0])

    bad = {o["column"]: o for suite in answer["suites"] for o in suite["outcomes"] if o["state"] == "failed"}
    assert bad.keys() == {"missing", "archived_contracts, exchange_contracts"}
    assert bad["missing"]["samples"][0]["values"]["missing_ids"] == "lost"
    assert (
        "Every trade that the exchange lists"
        in (made.folder / "storage" / "ssmd-reports" / answer["report"]).read_text()
    )


def test_what_postgresql_is_asked_finds_faults_of_the_security_master(made: Installation, rest: Rest) -> None:
    talk = CleanTalk(start_ns=START).clean(80)
    rest.trades = talk.trades
    made.archive(talk)
    words = ("quality", "run", "--date", str(DAY), "--suite", "security_master", "--json")
    [suite] = json.loads(made.run(*words, code=0)[0])["suites"]
    assert suite["rows"] == 6

    made.world.list_markets([*TICKERS, "SILENT-26NOV22"])
    made.sql("UPDATE markets SET result = 'yes', title = '' WHERE ticker = 'SILENT-26NOV22'")
    made.sql("UPDATE markets SET close_time = open_time - interval '1 day' WHERE ticker LIKE 'KXBTC%'")

    [suite] = json.loads(made.run(*words, code=6)[0])["suites"]
    bad = {o["column"]: o for o in suite["outcomes"] if o["state"] != "passed"}
    assert bad.keys() == {"title", "result_fits", "close_time, open_time", "silent"}
    assert {o["state"] for o in bad.values()} == {"failed"}
    [sample] = bad["silent"]["samples"]
    assert sample["values"]["ticker"] == "SILENT-26NOV22"


def test_a_market_first_heard_since_the_last_sync_is_a_note_until_a_sync_does_not_list_it(made: Installation) -> None:
    today = day_of(now_ns())
    talk = CleanTalk(start_ns=day_start_ns(today)).clean(40)
    talk.quote("NEW-26NOV22-T1")
    asyncio.run(made.world.archive(talk, compacted=False, day=today))
    words = ("quality", "run", "--date", str(today), "--suite", "security_master")

    def synced(status: str, at: datetime) -> None:
        made.sql(
            "INSERT INTO market_syncs (feed_id, kind, status, started_at, completed_at)"
            f" SELECT id, 'incremental', '{status}', '{at}', '{at}' FROM feeds WHERE name = '{FEED}'"
        )

    began = datetime.fromtimestamp(day_start_ns(today) / NS_PER_S, UTC)
    synced("completed", began - timedelta(hours=1))
    synced("failed", began + timedelta(hours=2))
    out, _ = made.run(*words, code=0)
    assert "○ note" in " ".join(out.split())
    assert "listed: not asked of 1 of the markets" in out
    assert "Run: ssmd market sync" in out

    synced("completed", began + timedelta(hours=1))
    out, _ = made.run(*words, code=6)
    assert "1 of 4 rows" in out


def test_an_exchange_that_is_away_is_said_and_is_no_pass(made: Installation) -> None:
    made.archive(CleanTalk(start_ns=START).clean(40))
    away = f"http://127.0.0.1:{free_port()}/trade-api/v2"

    answer = json.loads(
        made.run(
            "quality", "run", "--date", str(DAY), "--suite", "trades", "--rest", away, "--json", code=0
        )[0]
    )  # fmt: skip

    not_run = [o for o in answer["suites"][0]["outcomes"] if o["state"] == "not_run"]
    assert {o["column"] for o in not_run} == {"missing", "archived_contracts, exchange_contracts", "only_archived"}
    assert all("the exchange could not be asked" in o["message"] for o in not_run)


def test_bad_input_is_one_clear_line(made: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    made.archive(CleanTalk(start_ns=START).clean(12))
    day, tomorrow = str(DAY), str(day_of(now_ns()) + timedelta(days=1))
    hostile = "x'; DROP TABLE feeds;--\n\x1b[31m" + "y" * 10_000

    def said(*words: str, code: int = 2) -> str:
        out, err = made.run(*words, code=code)
        assert out == ""
        assert "Traceback" not in err
        assert max(map(len, err.splitlines())) < 300
        return err

    assert "is in the future" in said("quality", "run", "--date", tomorrow)
    assert "is in the future" in said("data", "export", "--date", tomorrow)
    assert "Feed 'kalsh' not found" in said("quality", "run", "--date", day, "--feed", "kalsh")
    assert "No data inventory for kalshi on 2020-01-01" in said("quality", "run", "--date", "2020-01-01")
    assert "did you mean 'trades'" in said("quality", "run", "--date", day, "--suite", "trade").lower()
    said("quality", "run", "--date", day, "--suite", hostile)
    said("quality", "run", "--date", day, "--feed", hostile)
    assert "no event type" in said("data", "export", "--date", day, "--type", "trades")
    said("data", "export", "--date", day, "--type", hostile)

    away = made.environment("away", f"postgresql+psycopg2://nobody@127.0.0.1:{free_port()}/ssmd", "http://127.0.0.1:9")
    made.run("quality", "run", "--date", day, code=7, file=away)

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "great_expectations" else object())
    assert "Run: pip install 'ssmd[quality]'" in said("quality", "run", "--date", day)


def test_the_export_is_whole_exact_and_made_once(made: Installation) -> None:
    talk = CleanTalk(start_ns=START).clean(200)
    made.archive(talk)
    words = ("data", "export", "--date", str(DAY), "--json")

    first = {its["type"]: its for its in json.loads(made.run(*words, code=0)[0])}
    again = {its["type"]: its for its in json.loads(made.run(*words, code=0)[0])}
    forced = {its["type"]: its for its in json.loads(made.run(*words, "--force", code=0)[0])}

    assert {its["made"] for its in first.values()} == {True}
    assert {its["made"] for its in again.values()} == {False}
    assert first["trade"]["parts"] == forced["trade"]["parts"], "the same bytes"
    folder = made.folder / "storage" / "ssmd-normalized" / FEED / "v1" / "_parquet" / "trade"
    table = ds.dataset(folder, partitioning="hive").to_table()
    assert table.num_rows == len(talk.trades) == first["trade"]["rows"]
    assert set(table["date"].to_pylist()) == {str(DAY)}
    assert {str(price) for price in table["price"].to_pylist()} == {"0.450000"}
    assert table["ticker"].to_pylist() == sorted(table["ticker"].to_pylist())
    assert sorted(table["trade_id"].to_pylist()) == sorted(item["trade_id"] for item in talk.trades)
    times = sorted(at.value for at in table["received_time"].to_pandas())
    assert times == sorted(frame.received_ns for frame in talk.frames if frame.group == "trades")

    report = json.loads(made.run("data", "verify", "--date", str(DAY), "--json", code=0)[0])
    assert report["findings"] == [], "Parquet is no stray of the archive"
