"""Trades in an archive, written by the archiver's own code: segments, and the object of a compacted day."""

import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from ssmd.archive.frames import compress
from ssmd.archive.layout import TickerObject
from ssmd.archive.segments import Measures, OpenSegment, normalized_manifest, store_segment
from ssmd.archive.writer import store_replacing
from ssmd.market.events import Trade
from ssmd.market.subjects import subject
from ssmd.middleware.storage.interface import Storage
from ssmd.registry.interface import ObjectRecord
from ssmd.wire.normalized import encode

FEED = "kalshi"
NORMALIZED = "ssmd-normalized"


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
