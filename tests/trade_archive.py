"""Trades in an archive, written by the archiver's own code, and the world of a gateway that reads them."""

import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import msgspec

from ssmd.archive.frames import compress
from ssmd.archive.layout import TickerObject
from ssmd.archive.segments import Measures, OpenSegment, normalized_manifest, store_segment
from ssmd.archive.writer import store_replacing
from ssmd.clock import NS_PER_DAY, NS_PER_MS, NS_PER_S, day_start_ns
from ssmd.market.events import SCALE, Side, Trade
from ssmd.market.subjects import subject
from ssmd.middleware.storage.interface import Storage
from ssmd.registry.interface import Market, ObjectRecord
from ssmd.registry.memory import MemoryRegistry
from ssmd.wire.normalized import encode
from tests.fakes.faulty_storage import FaultyStorage

FEED = "kalshi"
NORMALIZED = "ssmd-normalized"
TICKER = "KXBTC15M-26NOV221600-00"
OTHER = f"{TICKER}-OTHER"
TODAY = date(2026, 11, 22)
YESTERDAY = date(2026, 11, 21)
NOON = day_start_ns(TODAY) + 12 * 3_600 * NS_PER_S
ARCHIVED = 60
GENEROUS = {"requests_per_minute": 1_000_000, "requests_per_hour": 60_000_000, "burst": 100_000}


async def store_trades(storage: Storage, day: date, trades: Sequence[Trade], first_seq: int = 1) -> ObjectRecord:
    """A segment of the day with these trades, in this order."""
    segment = OpenSegment(FEED, "trade", day, f"ssmd-{FEED}", 0)
    segment.messages = [encode(trade) for trade in trades]
    segment.subjects = {subject(FEED, "trade", trade.ticker).encode() for trade in trades}
    segment.first_seq, segment.last_seq = first_seq, first_seq + len(trades) - 1
    with tempfile.TemporaryDirectory() as folder:
        return await store_segment(storage, NORMALIZED, segment, Path(folder))


async def store_compacted(storage: Storage, day: date, ticker: str, trades: Sequence[Trade]) -> ObjectRecord:
    """The ticker's own object of the day."""
    its = TickerObject(FEED, "trade", day, ticker)
    times = [trade.received_ns for trade in trades]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.zst"
        compressed = compress([encode(trade) for trade in trades], path)
        manifest = normalized_manifest(its, compressed, Measures(len(times), min(times), max(times), 1))
        return await store_replacing(storage, NORMALIZED, its, manifest, path)


def trade(at_ns: int, n: int, ticker: str = TICKER, price: int = 450_000, **changes: Any) -> Trade:
    made = Trade(
        at_ns, at_ns + 5 * NS_PER_MS, ticker, "c-1", 3, n, price, n * SCALE // 4, Side.BUY, f"{ticker[-12:]}/{n}"
    )
    return msgspec.structs.replace(made, **changes)


class World:
    """A gateway at 12:30, an archive, a registry, and their clock."""

    def __init__(self, storage: Storage) -> None:
        self.inner = storage
        self.storage = FaultyStorage(storage)
        self.registry = MemoryRegistry()
        self.registry.upsert_markets(
            FEED, [Market(t, "E", f"{t}?", "active", None, None, "", {}) for t in (TICKER, OTHER)]
        )
        self.now = NOON + 1_800 * NS_PER_S

    async def segment(self, day: date, trades: Sequence[Trade], first_seq: int) -> ObjectRecord:
        record = await store_trades(self.inner, day, trades, first_seq)
        self.registry.record_objects(FEED, [record])
        return record

    async def compacted(self, day: date, ticker: str, trades: Sequence[Trade]) -> ObjectRecord:
        record = await store_compacted(self.inner, day, ticker, trades)
        self.registry.record_objects(FEED, [record])
        return record


async def archive_an_hour(world: World) -> list[Trade]:
    """A trade a minute from 11:00 until noon in six segments, among others' trades; and yesterday's, compacted."""
    own = [trade(NOON - 3_600 * NS_PER_S + n * 60 * NS_PER_S, n + 1) for n in range(ARCHIVED)]
    for first in range(0, ARCHIVED, 10):
        mixed = [t for its in own[first : first + 10] for t in (its, msgspec.structs.replace(its, ticker=OTHER))]
        await world.segment(TODAY, mixed, 1 + 2 * first)
    older = [trade(NOON - NS_PER_DAY + n * NS_PER_S, 1000 + n) for n in range(5)]
    await world.compacted(YESTERDAY, TICKER, older)
    return older + own
