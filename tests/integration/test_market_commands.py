"""`ssmd market` on a real database and a listing exchange: what a person types, what comes back, which exit code."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ssmd.cli.main import main
from ssmd.feeds.kalshi.throttle import Backoff
from ssmd.local.home import Home, StackRecord
from ssmd.local.processes import identify
from ssmd.registry.database import Database
from ssmd.registry.market_search import MarketSearch
from tests.databases import Database as Server
from tests.fakes.listing_exchange import ListingExchange, fill
from tests.servers import free_port

pytestmark = pytest.mark.integration

ENVIRONMENT = """
apiVersion: ssmd/v1
kind: Environment
metadata: {{name: markets}}
spec:
  keys: {{}}
  feed: kalshi
  {endpoints}
  database: {{url: "{database}"}}
  middleware:
    transport: {{type: memory}}
    storage: {{type: memory}}
    cache: {{type: memory}}
    journal: {journal}
"""
HOSTILE = [
    "'; DROP TABLE markets; --",
    '"$(touch x)" `id` | & ; < >',
    "%_%",
    "a\nb\tc\r\x1b[31m\0",
    os.fsdecode(b"\xff\xfe"),
    "x" * 10_000,
    "",
    "-",
    "кальши→🎲",
]


def ago(**span: float) -> str:
    return (datetime.now(UTC) - timedelta(**span)).isoformat().replace("+00:00", "Z")


class Terminal:
    """Runs commands as a shell would, beside the loop that serves the exchange."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.code = 0
        self.err = ""

    async def run(self, *words: str) -> str:
        """What `ssmd market …` says on stdout; the exit code and stderr are kept."""
        self._capsys.readouterr()
        self.code = await asyncio.to_thread(main, ["market", *words])
        said = self._capsys.readouterr()
        self.err = said.err
        return said.out

    async def json(self, *words: str) -> Any:
        return json.loads(await self.run(*words, "--json"))


@pytest.fixture
async def exchange() -> AsyncIterator[ListingExchange]:
    served = ListingExchange()
    async with served.serve():
        yield served


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SSMD_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def terminal(
    postgres: Server, exchange: ListingExchange, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Terminal:  # fmt: skip
    write_environment(tmp_path, monkeypatch, postgres.fresh(), f"endpoints: {{ws: 'ws://x/y', rest: '{exchange.url}'}}")
    return Terminal(capsys)


def write_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch, database: str, endpoints: str = "", journal: str = "{type: memory}"
) -> None:
    file = folder / "environment.yaml"
    file.write_text(ENVIRONMENT.format(database=database, endpoints=endpoints, journal=journal))
    monkeypatch.setenv("SSMD_ENV", str(file))


async def test_a_sync_says_in_one_line_what_it_did(terminal: Terminal, exchange: ListingExchange) -> None:
    tickers = list(fill(exchange, 12))
    said = await terminal.run("sync")
    assert (terminal.code, terminal.err) == (0, "")
    assert said.startswith(
        "✓ kalshi       full sync: 3 series, 3 events, 12 markets listed (12 open); 12 new, 0 changed"
    )
    assert len(said.splitlines()) == 1
    exchange.settle(tickers[0], ago(seconds=0))
    report = await terminal.json("sync")
    assert (report["kind"], report["changed"], report["settled"], report["findings"]) == ("incremental", 1, 1, [])
    book = await terminal.json("syncs")
    assert [(row["kind"], row["status"], row["inserted"]) for row in book] == [
        ("incremental", "completed", 0),
        ("full", "completed", 12),
    ]
    assert (await terminal.run("syncs", "--limit", "1")).splitlines()[1].split("\t")[1:3] == [
        "incremental",
        "completed",
    ]


async def test_exit_codes_tell_refusals_from_outages_and_findings(
    terminal: Terminal, exchange: ListingExchange, postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tickers = list(fill(exchange, 12))
    await terminal.run("sync")
    for ticker in tickers[:9]:
        del exchange.markets[ticker]
    assert await terminal.run("sync", "--full") == ""
    assert terminal.code == 3
    assert "3 open markets" in terminal.err
    assert "12" in terminal.err
    assert "ssmd market sync --feed kalshi --full --accept" in terminal.err
    await terminal.run("sync", "--full", "--accept")
    assert terminal.code == 0
    exchange.add_market("LONG-" * 26, "KX0-0", ago(seconds=0))
    said = await terminal.run("sync")
    assert terminal.code == 6
    assert "○ left         1 object was left out, their tickers cannot be stored: LONG-LONG-" in said
    await terminal.run("sync", "--rest", "nonsense")
    assert terminal.code == 2
    monkeypatch.setattr("ssmd.feeds.kalshi.rest.Backoff", partial(Backoff, attempts=1))
    assert await terminal.run("sync", "--rest", f"http://127.0.0.1:{free_port()}") == ""
    assert terminal.code == 7
    write_environment(tmp_path, monkeypatch, postgres.url("ssmd_none"))
    await terminal.run("sync", "--rest", exchange.url)
    assert terminal.code in (2, 7)
    assert "ssmd db migrate" in terminal.err


async def test_a_journal_that_is_away_is_a_finding(
    terminal: Terminal, exchange: ListingExchange, postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(exchange, 3)
    journal = f"{{type: nats, url: 'nats://127.0.0.1:{free_port()}'}}"
    write_environment(tmp_path, monkeypatch, postgres.fresh(), journal=journal)
    report = await terminal.json("sync", "--rest", exchange.url)
    assert terminal.code == 6
    assert (report["new"], report["published"]) == (3, 0)
    assert "the next sync will" in report["findings"][0]


async def test_a_settlement_that_is_taken_back_without_evidence_is_a_finding(
    terminal: Terminal, exchange: ListingExchange
) -> None:
    ticker = next(iter(fill(exchange, 3)))
    exchange.settle(ticker, ago(seconds=5), status="determined")
    await terminal.run("sync")
    exchange.change(ticker, ago(seconds=0), status="closed", result="")
    said = await terminal.run("sync", "--full")
    assert terminal.code == 6
    assert [line for line in said.splitlines() if "not believed" in line and ticker in line] == said.splitlines()[1:]
    assert len(said.splitlines()) == 2
    assert (await terminal.json("show", ticker))["result"] == "yes"


async def test_the_exchange_of_the_stack_that_runs_here_is_found(
    terminal: Terminal, exchange: ListingExchange, postgres: Server, home: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    fill(exchange, 3)
    write_environment(tmp_path, monkeypatch, postgres.fresh())
    myself = identify(os.getpid())
    assert myself is not None
    state = Home(home)
    state.prepare()
    state.write_record(StackRecord("m", "markets", "f", "s", "p", myself, [], {}, rest=exchange.url))
    assert (await terminal.json("sync"))["new"] == 3


async def test_markets_are_listed_by_what_they_belong_to(terminal: Terminal, exchange: ListingExchange) -> None:
    tickers = list(fill(exchange, 30))
    exchange.change(tickers[0], "2026-11-20T11:00:00Z", status="closed")
    await terminal.run("sync")

    async def listed(*words: str) -> list[str]:
        return [row["ticker"] for row in await terminal.json("list", *words)]

    assert await listed("--limit", "0") == sorted(tickers)
    assert await listed("--limit", "2") == sorted(tickers)[:2]
    assert await listed("--status", "closed") == [tickers[0]]
    assert await listed("--event", "KX1-1") == tickers[5:10]
    assert await listed("--series", "KX0", "--status", "active") == sorted([*tickers[1:5], *tickers[15:20]])
    assert await listed("--category", "Category 2", "--limit", "3") == tickers[10:13]
    assert await listed("--category", "category 2") == []
    assert len(await listed("--never-heard", "--limit", "0")) == 29
    assert await listed("--never-heard", "--event", "KX1-1", "--limit", "2") == tickers[5:7]
    now = datetime.now(UTC).isoformat()
    assert await listed("--as-of", now, "--event", "KX1-1") == tickers[5:10]
    assert await listed("--known-at", "2020-01-01") == []
    assert await terminal.run("list", "--status", "actve") == ""
    assert "Did you mean 'active'?" in terminal.err
    for words in (("--limit", "-1"), ("--never-heard", "--as-of", "2026-01-01"), ("--as-of", "yesterday")):
        assert await terminal.run("list", *words) == ""
        assert terminal.code == 2
    line = (await terminal.run("list", "--status", "closed")).splitlines()[1].split("\t")
    assert line == [tickers[0], "closed", "Category 0", "2026-12-20T12:00:00Z", "", f"market {tickers[0]}"]


async def test_a_market_is_shown_as_it_is_and_as_it_was(terminal: Terminal, exchange: ListingExchange) -> None:
    ticker = next(iter(fill(exchange, 3)))
    await terminal.run("sync")
    before = datetime.now(UTC).isoformat()
    exchange.change(ticker, ago(seconds=0), title="changed", custom_strike={"b": 1, "a": [2]})
    await terminal.run("sync")
    now = await terminal.json("show", ticker)
    assert (now["title"], now["category"], now["raw"]["yes_bid_dollars"]) == ("changed", "Category 0", "0.4000")
    assert 'custom_strike\t{"a":[2],"b":1}\n' in await terminal.run("show", ticker)
    then = await terminal.json("show", ticker, "--as-of", before, "--history")
    assert (then["fields"]["title"], then["listed"]) == (f"market {ticker}", True)
    assert [(row["field"], row["new"]) for row in then["history"]] == [
        ("custom_strike", '{"a": [2], "b": 1}'),
        ("title", "changed"),
    ]
    assert (await terminal.json("show", ticker, "--known-at", before))["fields"]["title"] == f"market {ticker}"
    assert await terminal.json("history", ticker, "--known-at", before) == []
    assert "title\tmarket" in await terminal.run("history", ticker)
    assert "History:" in await terminal.run("show", ticker, "--history")
    assert await terminal.run("show", ticker, "--known-at", "2020-01-01") == ""
    assert terminal.code == 2
    assert "It is known since" in terminal.err
    assert await terminal.run("show", ticker, "--as-of", "2020-01-01") == ""
    assert terminal.code == 2
    assert "It exists since 20" in terminal.err
    for command in ("show", "history"):
        assert await terminal.run(command, ticker[:-1]) == ""
        assert terminal.code == 2
        assert f"Did you mean '{ticker}'?" in terminal.err


async def test_a_date_before_the_first_sync_says_what_is_inferred(
    terminal: Terminal, exchange: ListingExchange
) -> None:
    ticker = next(iter(fill(exchange, 1)))
    exchange.add_market(ticker, "KX0-0", "2026-11-20T10:00:00Z")
    await terminal.run("sync")
    then = await terminal.json("show", ticker, "--as-of", "2026-11-20T11:00:00Z")
    assert (then["fields"]["status"], then["inferred"]) == ("initialized", ["status"])
    now = await terminal.json("show", ticker, "--as-of", datetime.now(UTC).isoformat())
    assert (now["fields"]["status"], "inferred" in now) == ("active", False)
    await terminal.run("show", ticker, "--as-of", "2026-11-20T09:00:00Z")
    assert terminal.code == 2
    assert "It exists since 2026-11-20T10:00:00" in terminal.err


async def test_a_vanished_market_is_shown_as_not_listed_and_is_in_no_list(
    terminal: Terminal, exchange: ListingExchange
) -> None:
    gone, *others = fill(exchange, 3)
    await terminal.run("sync")
    assert "\nlisted\tyes\n" in await terminal.run("show", gone)
    del exchange.markets[gone]
    await terminal.run("sync", "--full")
    assert "\nlisted\tno\n" in await terminal.run("show", gone)
    assert (await terminal.json("show", gone))["listed"] is False
    for words in ((), ("--category", "Category 0"), ("--never-heard",), ("--as-of", datetime.now(UTC).isoformat())):
        assert [row["ticker"] for row in await terminal.json("list", *words)] == others


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
async def test_no_text_argument_can_do_more_than_be_wrong(
    terminal: Terminal, exchange: ListingExchange, text: str
) -> None:
    fill(exchange, 2)
    await terminal.run("sync")
    commands = [
        ("show", text), ("history", text), ("show", text, "--as-of", "2026-11-01"), ("list", "--feed", text),
        ("show", "A", "--as-of", text), ("show", "A", "--known-at", text), ("sync", "--feed", text),
        ("history", "A", "--known-at", text), ("syncs", "--feed", text), ("sync", "--rest", text),
        *(("list", f"--{name}", text) for name in ("status", "category", "series", "event", "as-of", "known-at")),
    ]  # fmt: skip
    for command in commands:
        out = await terminal.run(*command)
        assert terminal.code in (0, 2), (command, terminal.err)
        assert "Traceback" not in terminal.err
        assert len(terminal.err) < 800, command
        assert "\x1b" not in out + terminal.err
    assert len(await terminal.json("list")) == 2


async def test_a_near_ticker_is_found_among_many(postgres: Server) -> None:
    url = postgres.fresh()
    name = url.rpartition("/")[2]
    postgres.run(
        "INSERT INTO markets (feed_id, ticker) SELECT f.id, 'KX' || chr(65 + n % 26) || '-26NOV' || n || '-T' || n * 7 "
        "FROM feeds f, generate_series(1, 100000) n WHERE f.name = 'kalshi'",
        name,
    )
    database = Database(url)
    try:
        search = MarketSearch(database)
        began = datetime.now(UTC)
        assert search.near("kalshi", "KXZ-26NOV25-T17") == "KXZ-26NOV25-T175"
        assert (datetime.now(UTC) - began).total_seconds() < 5
        assert search.near("kalshi", "kxz-26nov25-t175x") == "KXZ-26NOV25-T175"
        assert search.near("kalshi", "XKZ-26NOV99975-T699825") == "KXF-26NOV99975-T699825"
        assert search.near("kalshi", "nothing like it at all ....") == ""
    finally:
        database.close()
