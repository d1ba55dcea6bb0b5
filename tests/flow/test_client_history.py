"""The Python client's blocking side on a real gateway: pages, tables, what is missing, TLS; the README's programs."""

import asyncio
import os
import re
import sys
import threading
import warnings
from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, TypeVar

import pytest

from ssmd.client import Client, GatewayAway, GatewayError, IncompleteData, NotAllowed, Rows, Trade
from ssmd.client import client as client_module
from ssmd.client.client import moment_of
from ssmd.clock import NS_PER_S
from ssmd.config.environment import Tls
from ssmd.errors import ConfigError
from ssmd.middleware.storage.local import LocalStorage
from tests.certificates import write_pair
from tests.flow.gateway_stage import Stage, running, until
from tests.trade_archive import GENEROUS, TICKER, World, archive_an_hour
from tests.trade_archive import trade as history_trade
from tests.unit.gateway.events import book

ROOT = Path(__file__).parents[2]
T = TypeVar("T")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(LocalStorage(tmp_path))


@pytest.fixture
async def stage(world: World) -> AsyncIterator[Stage]:
    async with running(world.registry, lambda: world.now, storage=world.storage, limits=GENEROUS) as stage:
        yield stage


async def blocking(call: Callable[[], T]) -> T:
    """In a thread whose own event loop runs meanwhile, as in Jupyter."""

    async def inside() -> T:
        return call()

    def run() -> T:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", IncompleteData)
            return asyncio.run(inside())

    return await asyncio.to_thread(run)


async def test_all_pages_are_one_answer_in_a_loop_that_runs(
    world: World, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [t.trade_id for t in await archive_an_hour(world)]
    for size in (1_000, 7):
        monkeypatch.setattr(client_module, "PAGE", size)
        with Client(stage.url) as client:
            rows = await blocking(lambda: client.trades(TICKER, "2026-11-21", "2026-11-22"))
            assert [row.trade_id for row in rows] == expected
            assert rows.to_list()[0].price == Decimal("0.45")
            newest = await blocking(lambda: client.trades(TICKER, date(2026, 11, 21), order="desc", limit=5))
            assert [row.trade_id for row in newest] == expected[::-1][:5]
            candles = await blocking(lambda: client.history(TICKER, "5m", "2026-11-22"))
            assert sum(candle.trades for candle in candles) == 60
    monkeypatch.setattr(client_module, "TRADES_DAYS", 1)
    pieces = await blocking(lambda: Client(stage.url).trades(TICKER, "2026-11-20", "2026-11-22"))
    assert [row.trade_id for row in pieces] == expected


async def test_what_is_missing_is_said_and_warned_of(world: World, stage: Stage) -> None:
    await archive_an_hour(world)

    def ask() -> Rows[Trade]:
        with pytest.warns(IncompleteData, match="not_archived_yet"):
            return Client(stage.url).trades(TICKER, "2026-11-22")

    rows = await asyncio.to_thread(ask)
    assert not rows.complete
    assert rows.missing[0].reason == "not_archived_yet"
    assert rows.missing[0].start < rows.missing[0].end
    assert "missing" in repr(rows)


async def test_tables_are_exact_and_have_utc_times(world: World, stage: Stage) -> None:
    await archive_an_hour(world)
    rows = await blocking(lambda: Client(stage.url).trades(TICKER, "2026-11-21"))
    polars = pytest.importorskip("polars", reason="the extra analytics is not installed")
    frame = rows.to_polars()
    assert frame["size"].to_list() == [row.size for row in rows]
    assert frame["price"].dtype == polars.Decimal(18, 6)
    assert frame["time"].to_list() == [row.time for row in rows]
    assert frame.columns[0] == "time"
    assert rows.to_polars(exact=False)["price"].to_list() == [0.45] * len(rows)
    assert Rows(Trade, [], missing=[], complete=True).to_polars().schema == frame.schema


async def test_arrow_and_pandas_tables_are_exact(world: World, stage: Stage) -> None:
    await archive_an_hour(world)
    rows = await blocking(lambda: Client(stage.url).trades(TICKER, "2026-11-21"))
    pytest.importorskip("pyarrow", reason="the extra analytics is not installed")
    pytest.importorskip("pandas", reason="the extra analytics is not installed")
    assert rows.to_arrow()["size"].to_pylist() == [row.size for row in rows]
    frame = rows.to_pandas()
    assert frame["size"].sum() == sum(row.size for row in rows)
    assert list(frame["time"]) == [row.time for row in rows]
    assert rows.to_pandas(exact=False)["price"].dtype == "float64"
    huge = Rows(Trade, [_trade(Decimal("123456789012345678901234.123456"))], missing=[], complete=True)
    assert huge.to_arrow()["size"].to_pylist() == [Decimal("123456789012345678901234.123456")]


def _trade(size: Decimal) -> Trade:
    return Trade(feed="f", ticker="A", price=Decimal("0.5"), size=size, side="buy", ts=0, trade_id="")


def test_a_library_that_is_not_there_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, call in (("polars", "to_polars"), ("pandas", "to_pandas"), ("pyarrow", "to_arrow")):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ConfigError, match=rf"{name} is not installed[\s\S]*ssmd\[analytics\]"):
            getattr(Rows(Trade, [_trade(Decimal(1))], missing=[], complete=True), call)()


async def test_markets_books_health_conditions_and_questions(world: World, stage: Stage) -> None:
    stage.publish(book(TICKER, 1, bids=((440_000, 5_500_000),), at=world.now))
    await until(lambda: TICKER in stage.gateway.hub.board.books)
    client = Client(stage.url)
    rows = await blocking(lambda: client.markets())
    assert rows[0].ticker == TICKER
    assert rows[0].best_bid == Decimal("0.44")
    assert (await blocking(lambda: client.market(TICKER)))["orderbook_summary"]["best_bid"] == Decimal("0.44")
    kept = await blocking(lambda: client.orderbook(TICKER))
    assert (kept.best_bid, kept.state) == ((Decimal("0.44"), Decimal("5.5")), "live")
    assert (await blocking(client.health))["feed"] == "kalshi"
    assert "understood" in await client.query("which markets close this week?")
    for call in (lambda: client.market("NO-SUCH"), lambda: client.condition("kalshi", "no day")):
        with pytest.raises(GatewayError) as raised:
            await blocking(call)
        assert raised.value.detail


async def test_hostile_tickers_reach_their_path_and_nothing_else(stage: Stage) -> None:
    client = Client(stage.url)
    for ticker in ("../health", "..", ".", "a/b?limit=1#x", "\x00", "\r\nHost: evil", "\ud800", "x" * 10_000, "💥", ""):
        with pytest.raises(GatewayError) as raised:
            await blocking(lambda: client.market(ticker))  # noqa: B023
        assert raised.value.status in (0, 400, 404, 414), ticker
        assert raised.value.detail.isprintable()


async def test_tls_needs_the_file_of_its_certificate(tmp_path: Path) -> None:
    write_pair(tmp_path)
    tls = Tls(cert_file="tls/cert.pem", key_file="tls/key.pem")
    async with running(tls=tls, home=tmp_path) as stage:
        ca_file = tmp_path / "tls" / "cert.pem"
        async with Client(stage.url, ca_file=ca_file) as client:
            assert (await blocking(client.health))["feed"] == "kalshi"
            async with asyncio.timeout(10):
                await anext(client.stream("A"))
        stranger = Client(stage.url)
        with pytest.raises(GatewayAway, match="certificate"):
            await blocking(stranger.health)
        with pytest.raises(GatewayAway, match="certificate"):
            await anext(stranger.stream("A", patience_s=0))
        with pytest.raises(GatewayAway):
            await blocking(Client(stage.url.replace("https", "http")).health)
    with pytest.raises(GatewayError, match="ca_file"):
        await blocking(Client(stage.url, ca_file=tmp_path / "none.pem").health)


KEY = "ssmd_0123abcd_" + "x" * 43


def test_a_key_is_in_no_text_and_no_address() -> None:
    client = Client("http://gateway.example:1", KEY)
    assert KEY not in repr(client) + str(vars(client)) + repr(client._address)
    for url in (f"http://h/?key={KEY}", f"http://u:{KEY}@h/", f"http://h/{KEY}", "http://user@h", "http://h/?a=1"):
        with pytest.raises(GatewayError) as raised:
            Client(url)
        assert KEY not in str(raised.value)
    for key in ("a b", "a\nX-Evil: 1", "é", "\x00"):
        with pytest.raises(NotAllowed):
            Client(key=key)
    for url in ("", "gateway:18080", "ftp://h", "http://", "http://h:99999", "http://h\n", "http://[::1"):
        with pytest.raises(GatewayError):
            Client(url or "  ")


@pytest.mark.parametrize(
    "answer", [b"", b"null", b"[]", b'{"trades":1}', b"\xff\xfe", b"[" * 100_000, b'{"trades":[],"feed":"\\ud800"}']
)
def test_answers_that_are_no_gateways_are_an_error_of_one_line(answer: bytes) -> None:
    with fake_server(answer) as url, Client(url) as client:
        for call in (lambda: client.trades("A"), lambda: client.orderbook("A"), lambda: client.markets()):
            with pytest.raises(GatewayError, match="Is this the address of a gateway"):
                call()


class fake_server:
    """A web server that is no gateway."""

    def __init__(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                return

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def test_a_gateway_without_time_is_asked_again_and_then_away() -> None:
    body = b'{"status":429,"code":"rate_limited","detail":"too\\u001b[2J often","next":"Wait."}'
    with fake_server(body, 429, {"Retry-After": "0"}) as url, pytest.raises(GatewayAway) as raised:
        Client(url).health()
    assert (raised.value.status, raised.value.code) == (429, "rate_limited")
    assert "\x1b" not in str(raised.value)


def test_times_are_utc_and_days_have_an_end() -> None:
    midnight = datetime(2026, 11, 22, tzinfo=UTC)
    assert moment_of("2026-11-22") == moment_of(date(2026, 11, 22)) == moment_of("2026-11-22T00:00:00Z") == midnight
    assert moment_of("2026-11-21", end_of_day=True) == midnight
    assert moment_of("2026-11-22T01:00+01:00") == moment_of(datetime(2026, 11, 22)) == midnight  # noqa: DTZ001
    for wrong in ("yesterday", "2026-13-01", 5, None, "\x1b" * 99):
        with pytest.raises(GatewayError, match="is not a time"):
            moment_of(wrong)  # type: ignore[arg-type]


# --- the README -------------------------------------------------------------------------------------------------------

PROGRAMS = re.findall(r"```python\n(from ssmd\.client .*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


async def program(text: str, url: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-u", "-c", text, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "SSMD_CLIENT_URL": url},
    )  # fmt: skip


async def test_the_readmes_stream_prints_live_events(world: World, stage: Stage) -> None:
    assert len([line for line in PROGRAMS[0].splitlines() if line]) <= 6
    running_program = await program(PROGRAMS[0], stage.url)
    assert running_program.stdout is not None
    try:
        await until(lambda: bool(stage.gateway.hub.fanout.clients))
        assert b"Subscribed" in await asyncio.wait_for(running_program.stdout.readline(), 20)
        stage.publish(history_trade(world.now, 1))
        line = await asyncio.wait_for(running_program.stdout.readline(), 20)
        assert line.startswith(b"Trade(")
        assert b"Decimal('0.45')" in line
    finally:
        running_program.terminate()
        await running_program.communicate()


async def test_the_readmes_table_is_of_all_trades(world: World, stage: Stage) -> None:
    pytest.importorskip("polars", reason="the extra analytics is not installed")
    await archive_an_hour(world)
    world.now += NS_PER_S
    out, _ = await (await program(PROGRAMS[1], stage.url)).communicate()
    assert b"shape: (60, " in out
    assert b"0.45" in out


async def test_without_a_gateway_the_readmes_stream_says_so_in_two_lines() -> None:
    alone = await program(PROGRAMS[0], "http://127.0.0.1:9")
    out, err = await alone.communicate()
    assert (out, alone.returncode) == (b"", 7)
    assert b"127.0.0.1:9 cannot be reached" in err
    assert b"Traceback" not in err
    assert len(err.splitlines()) == 2
