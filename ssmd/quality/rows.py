"""Rows of the Parquet export as Great Expectations gets them: some at a time, with columns that need the rows before.

Numbers become floats of dollars and contracts (exact enough to compare, and what people read); what a row says together
with others is a column of its own, computed over all pieces, so that the row itself can be judged:

    latency_s         receive time less exchange time, seconds; empty where the exchange gave no time
    seq_step          the exchange's number less the one before it of the ticker, connection and subscription
    received_step_s   receive time less that of the row before it of the same ticker, connection and subscription
    same_id_before    trades: rows before this one with the same trade id
    level_price_min, level_price_max, level_size_min   order book: over the levels that the update names
    crossed           order book: the best bid reaches or passes the best ask after the update
    spread            quotes: ask less bid, where both sides have a size
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ssmd.quality.export import opened

PIECE = 500_000
BOOK_PIECE = 200_000
_MILLION = 1_000_000.0
_GROUP = ["ticker", "connection", "sid"]


def pieces(event_type: str, files: Sequence[Path]) -> Iterator[pd.DataFrame]:
    """The rows of a day's files, at least one piece (it has the columns). DataError for a file that is damaged."""
    before = _Before()
    repeated = _repeated_ids(files) if event_type == "trade" else frozenset[str]()
    seen: Counter[str] = Counter()
    given = False
    for file in files:
        with opened(file) as parquet:
            for batch in parquet.iter_batches(BOOK_PIECE if event_type == "orderbook" else PIECE):
                yield _piece(event_type, batch, before, repeated, seen)
                given = True
            if not given:
                empty = pa.RecordBatch.from_pylist([], schema=parquet.schema_arrow)
                yield _piece(event_type, empty, before, repeated, seen)
                given = True


def _piece(
    event_type: str, batch: pa.RecordBatch, before: "_Before", repeated: frozenset[str], seen: Counter[str]
) -> pd.DataFrame:
    frame = pd.DataFrame(
        {name: _column(batch.column(name)) for name in batch.schema.names if name not in ("bids", "asks")}
    )
    if {"exchange_time", "received_time"} <= set(frame):
        frame["latency_s"] = (frame["received_time"] - frame["exchange_time"]).dt.total_seconds()
    if {*_GROUP, "seq", "received_time"} <= set(frame):
        before.steps(frame)
    if event_type == "trade" and "trade_id" in frame:
        frame["same_id_before"] = _same_before(frame["trade_id"], repeated, seen)
    if event_type == "orderbook":
        if {"bids", "asks"} <= set(batch.schema.names):
            _levels(frame, batch)
        if {"best_bid", "best_ask"} <= set(frame):
            frame["crossed"] = (frame["best_bid"] >= frame["best_ask"]).to_numpy()
    if event_type == "ticker" and {"bid", "ask", "bid_size", "ask_size"} <= set(frame):
        both = (frame["bid_size"] > 0) & (frame["ask_size"] > 0)
        frame["spread"] = (frame["ask"] - frame["bid"]).round(6).where(both)
    return frame


def _column(array: pa.Array) -> Any:
    if pa.types.is_decimal(array.type):
        return _dollars(array)
    return array.to_pandas()


def _dollars(array: pa.Array) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Decimals of six digits as floats: their integers lie in 16 bytes each, and fit into the lower 8."""
    words = np.frombuffer(array.buffers()[1], np.int64)[2 * array.offset : 2 * (array.offset + len(array)) : 2]
    values = words / _MILLION
    if array.null_count:
        values[array.is_null().to_numpy(zero_copy_only=False)] = np.nan
    return values


class _Before:
    """The last row of each subscription in the pieces so far: the files are sorted by ticker, so few are needed."""

    def __init__(self) -> None:
        self._last: dict[tuple[Any, ...], tuple[float, pd.Timestamp]] = {}

    def steps(self, frame: pd.DataFrame) -> None:
        """Add `seq_step` (empty where the channel has no numbers) and `received_step_s`."""
        seq = frame["seq"].astype("float64").where(frame["seq"] > 0)
        groups = (
            frame[_GROUP].assign(seq=seq, received=frame["received_time"]).groupby(_GROUP, observed=True, sort=False)
        )
        seq_before, received_before = groups["seq"].shift(1), groups["received"].shift(1)
        for place, row in groups.head(1).iterrows():
            if (known := self._last.get(tuple(row[_GROUP]))) is not None:
                seq_before.at[place], received_before.at[place] = known
        frame["seq_step"] = seq - seq_before
        frame["received_step_s"] = (frame["received_time"] - received_before).dt.total_seconds()
        if len(frame):
            last_ticker = frame["ticker"].iloc[-1]
            tail = groups.tail(1)
            tail = tail[tail["ticker"] == last_ticker]
            fresh = {tuple(row[_GROUP]): (row["seq"], row["received"]) for _, row in tail.iterrows()}
            self._last = {key: row for key, row in self._last.items() if key[0] == last_ticker} | fresh


def _repeated_ids(files: Sequence[Path]) -> frozenset[str]:
    """The trade ids that stand in the files more than once: 8 bytes of memory per trade, then the few alike exactly."""
    hashes = [_hashes(ids) for ids in _ids(files)]
    if not hashes:
        return frozenset()
    together = np.sort(np.concatenate(hashes))
    alike = np.unique(together[1:][together[1:] == together[:-1]])
    del together, hashes
    if not len(alike):
        return frozenset()
    counted: Counter[str] = Counter()
    for ids in _ids(files):
        counted.update(ids[np.isin(_hashes(ids), alike)])
    return frozenset(trade_id for trade_id, count in counted.items() if count > 1 and trade_id)


def _ids(files: Sequence[Path]) -> Iterator[Any]:
    for file in files:
        with opened(file) as parquet:
            if "trade_id" in parquet.schema_arrow.names:
                for batch in parquet.iter_batches(PIECE, columns=["trade_id"]):
                    yield batch.column(0).to_pandas().to_numpy(dtype=object)


def _hashes(ids: Any) -> Any:
    return pd.util.hash_array(ids, categorize=False)


def _same_before(ids: pd.Series, repeated: frozenset[str], seen: Counter[str]) -> Any:
    counts = np.zeros(len(ids), np.int64)
    if repeated:
        for place in np.flatnonzero(ids.isin(repeated).to_numpy()):
            trade_id = ids.iat[place]
            counts[place] = seen[trade_id]
            seen[trade_id] += 1
    return counts


def _levels(frame: pd.DataFrame, batch: pa.RecordBatch) -> None:
    """The extremes over the levels of both sides; empty for an update without any."""
    lows, highs, sizes = [], [], []
    for side in ("bids", "asks"):
        levels = batch.column(side)
        offsets = levels.offsets.to_numpy()
        items = levels.values
        price, size = _dollars(items.field("price")), _dollars(items.field("size"))
        lows.append(_reduced(np.minimum, price, offsets))
        highs.append(_reduced(np.maximum, price, offsets))
        sizes.append(_reduced(np.minimum, size, offsets))
    frame["level_price_min"] = np.fmin(*lows)
    frame["level_price_max"] = np.fmax(*highs)
    frame["level_size_min"] = np.fmin(*sizes)


def _reduced(function: Any, values: Any, offsets: Any) -> Any:
    """`function` over each list; not a number for an empty one."""
    found = np.full(len(offsets) - 1, np.nan)
    filled = np.flatnonzero(offsets[1:] > offsets[:-1])
    if len(filled):
        found[filled] = function.reduceat(values[: offsets[-1]], offsets[:-1][filled])
    return found
