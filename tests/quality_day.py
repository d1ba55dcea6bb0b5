"""A day for quality checks: clean as the exchange and the connector make it, and with one fault planted at a time."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from ssmd.backfill import compact
from ssmd.clock import NS_PER_DAY, NS_PER_MS, NS_PER_S, day_start_ns
from ssmd.errors import Unavailable
from ssmd.feeds.catalogue import open_feed
from ssmd.middleware.storage.interface import Storage
from ssmd.middleware.storage.memory import MemoryStorage
from ssmd.quality.batches import Day
from ssmd.registry.interface import Market, ObjectRecord, Registry
from ssmd.registry.memory import MemoryRegistry
from tests.kalshi_day import NORMALIZED, TICKERS, Talk, Venue
from tests.raw_archive import FEED, RAW

DAY = date(2026, 11, 21)
TODAY = date(2026, 11, 23)
START = day_start_ns(DAY) + 9 * 3_600 * NS_PER_S
STEP_NS = NS_PER_S // 2
LATENCY_NS = 20 * NS_PER_MS
FRAMES = 600


class CleanTalk(Talk):
    """What a healthy exchange says on one connection: half a second between frames, its clock 20 ms before ours."""

    def __init__(self, connection: str = "c-1", start_ns: int = START, seed: int = 1) -> None:
        super().__init__(connection, start_ns, seed)
        self.trades: list[dict[str, Any]] = []
        self.late_ns = LATENCY_NS

    def next(self) -> int:
        """The exchange's time of the next frame, milliseconds; it is received `late_ns` after it."""
        self._ns += STEP_NS - NS_PER_MS
        return (self._ns + NS_PER_MS - self.late_ns) // NS_PER_MS

    def snapshot(self, ticker: str, yes: str = "0.45", no: str = "0.53") -> None:
        at = self.next()
        sides: dict[str, Any] = {"yes_dollars_fp": [[yes, "10.00"], ["0.40", "5.00"]], "no_dollars_fp": [[no, "7.00"]]}
        self.say("orderbook_snapshot", 1, market_ticker=ticker, market_id="m", ts_ms=at, **sides)

    def delta(self, ticker: str, skip: int = 0, price: str | None = None) -> None:
        at, price = self.next(), price or f"0.{self._pick.randrange(10, 46)}"
        change = f"{self._pick.randrange(1, 500) / 100:.2f}"
        body = {"market_ticker": ticker, "price_dollars": price, "delta_fp": change, "side": "yes", "ts_ms": at}
        self.say("orderbook_delta", 1, skip, **body)

    def trade(self, ticker: str, trade_id: str, price: str = "0.45", count: str = "1.00", skip: int = 0) -> None:
        at = self.next()
        body = {"yes_price_dollars": price, "count_fp": count, "taker_outcome_side": "yes", "ts_ms": at}
        self.say("trade", 2, skip, trade_id=trade_id, market_ticker=ticker, **body)
        created = datetime.fromtimestamp(at / 1000, UTC).isoformat().replace("+00:00", "Z")
        self.trades.append({"trade_id": trade_id, "ticker": ticker, "count_fp": count, "created_time": created})

    def quote(self, ticker: str, bid: str = "0.45", ask: str = "0.47") -> None:
        at = self.next()
        body = {"price_dollars": "0.45", "yes_bid_dollars": bid, "yes_ask_dollars": ask, "ts_ms": at}
        sizes = {"yes_bid_size_fp": "10.00", "yes_ask_size_fp": "7.00"}
        self.frame(json.dumps({"type": "ticker", "sid": 3, "msg": {"market_ticker": ticker, **body, **sizes}}).encode())

    def life(self, ticker: str) -> None:
        """A market that is known changes its close time."""
        self.next()
        msg = {"market_ticker": ticker, "event_type": "close_date_updated", "close_ts": 1_795_400_000}
        self.frame(json.dumps({"type": "market_lifecycle_v2", "sid": 4, "msg": msg}).encode())

    def clean(self, frames: int = FRAMES) -> "CleanTalk":
        """A whole healthy talk."""
        self.start()
        for ticker in TICKERS:
            self.life(ticker)
        for n in range(frames):
            ticker = TICKERS[n % len(TICKERS)]
            match n % 4:
                case 0 | 1:
                    self.delta(ticker)
                case 2:
                    self.trade(ticker, f"t-{self.connection}-{n}")
                case _:
                    self.quote(ticker)
        return self


class Lists:
    """The exchange's REST list of trades; `fails` stands for one that is away."""

    def __init__(self, trades: Sequence[dict[str, Any]], fails: bool = False) -> None:
        self.trades_listed = list(trades)
        self.fails = fails

    async def trades(
        self, ticker: str | None = None, min_ts: int | None = None, max_ts: int | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        if self.fails:
            raise Unavailable("GET /markets/trades: no answer")
        for item in reversed(self.trades_listed):
            at = datetime.fromisoformat(item["created_time"]).timestamp()
            if item["ticker"] == ticker and (min_ts or 0) <= at <= (max_ts or 1 << 40):
                yield item


class QualityWorld:
    """Storage and registry with archived days, and the exchange that can be asked about them."""

    def __init__(self, folder: Path, storage: Storage | None = None, registry: Registry | None = None) -> None:
        self.folder = folder
        self.storage = storage or MemoryStorage()
        self.registry = registry or MemoryRegistry()
        self.listed: list[dict[str, Any]] = []
        self.lister_fails = False
        self._days = 0

    def list_markets(self, tickers: Sequence[str] = TICKERS) -> None:
        """The security master knows these markets, active, and all of them were heard."""
        markets = [
            Market(t, "E", f"Will {t}?", "active", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z", "", {})
            for t in tickers
        ]
        self.registry.upsert_markets(FEED, markets)

    def follow(self, day: date = DAY) -> None:
        """Capture went on after this day: what is missing at its end is not lost."""
        after = day + timedelta(days=1)
        at = day_start_ns(after)
        key = f"{FEED}/{after:%Y/%m/%d}/trades-00.jsonl.zst"
        self.registry.record_objects(FEED, [ObjectRecord(RAW, key, "raw", "trades", after, "0" * 64, 1, 1, at, at)])

    async def archive(self, *talks: Talk, compacted: bool = True, day: date = DAY) -> None:
        """What was said goes where the connector and the archiver put it; then the day (it is over) is compacted."""
        self._days += 1
        folder = self.folder / f"received-{self._days}"
        folder.mkdir()
        venue = Venue(self.storage, self.registry)
        await venue.receive(folder, talks)
        if not compacted:
            await venue.archive_stream()
        self.listed += [trade for talk in talks if isinstance(talk, CleanTalk) for trade in talk.trades]
        if compacted:
            await compact(
                FEED, day, self.storage, RAW, NORMALIZED, self.registry, today=max(TODAY, day + timedelta(days=2))
            )

    def day(self, **changes: Any) -> Day:
        """The day as the command looks at it."""
        self._days += 1
        work = self.folder / f"work-{self._days}"
        work.mkdir()

        @asynccontextmanager
        async def lister() -> AsyncIterator[Lists]:
            yield Lists(self.listed, self.lister_fails)

        options: dict[str, Any] = {
            "feed": FEED, "day": DAY, "today": TODAY, "storage": self.storage, "raw_bucket": RAW,
            "normalized_bucket": NORMALIZED, "parts": open_feed(FEED, DAY), "work": work,
            "registry": self.registry, "lister": lister,
        }  # fmt: skip
        return Day(**{**options, **changes})


async def clean_world(
    folder: Path, fault: Callable[[CleanTalk], None] | None = None, *, before: bool = True, compacted: bool = True
) -> QualityWorld:
    """Two clean days of three markets that the registry lists; `fault` says more at the end of the second."""
    world = QualityWorld(folder)
    world.list_markets()
    if before:
        yesterday = CleanTalk("c-0", START - NS_PER_DAY).clean()
        await world.archive(yesterday, day=DAY - timedelta(days=1))
    talk = CleanTalk().clean()
    if fault is not None:
        fault(talk)
    await world.archive(talk, compacted=compacted)
    world.follow()
    return world
