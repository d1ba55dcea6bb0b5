"""Small batches about a whole day: recorded gaps, coverage of the security master, figures beside the day before."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ssmd.clock import NS_PER_S, day_start_ns
from ssmd.quality.export import opened
from ssmd.quality.gaps import KnownGap
from ssmd.quality.outcome import NOTES
from ssmd.quality.rows import PIECE
from ssmd.registry.assessment import DayFacts, score_of
from ssmd.registry.interface import HeardMarket, ObjectRecord
from ssmd.registry.score import PLANNED, is_partial
from ssmd.registry.values import day_bounds

NS_PER_HOUR = 3_600 * NS_PER_S
MIN_SPAN_NS = 60 * NS_PER_S
"""Two days are compared when both were captured for a minute at least: figures are per hour."""
SETTLING_NS = 300 * NS_PER_S
"""A market that opened so shortly before the end of the day need not have been heard on it."""
FEW_ROWS = 20
"""Figures about fewer rows on both days say nothing."""

GAP_COLUMNS = (
    "key", "connection", "sid", "reason", "from_ns", "to_ns", "seconds", "unplanned_seconds", "whole_connection",
    "known", "differences",
)  # fmt: skip
CAPTURE_COLUMNS = ("meant_seconds", "lost_seconds", "lost_share", "first_ns", "last_ns", "records")
COVERAGE_COLUMNS = ("ticker", "listed", "should_be_heard", "heard", "heard_on_day", "rows", "open_time", "last_heard")
DRIFT_COLUMNS = ("figure", "value", "previous", "ratio", "previous_day")


def gap_rows(known: Sequence[KnownGap], day: date) -> pd.DataFrame:
    """The batch `gaps`: seconds are those within the day; a planned end has no unplanned ones."""
    start, end = day_bounds(day)
    rows = []
    for its in known:
        gap = its.gap
        seconds = (min(gap.to_ns, end) - max(gap.from_ns, start)) / NS_PER_S
        rows.append(
            {
                "key": its.key or "", "connection": gap.connection, "sid": gap.sid, "reason": gap.reason,
                "from_ns": gap.from_ns, "to_ns": gap.to_ns, "seconds": seconds,
                "unplanned_seconds": 0.0 if gap.reason == PLANNED else seconds,
                "whole_connection": not is_partial(gap), "known": its.known,
                "differences": "" if its.recent else "; ".join(its.differences),
            }
        )  # fmt: skip
    return frame(rows, GAP_COLUMNS)


def capture_rows(known: DayFacts) -> pd.DataFrame:
    """The batch `capture`: a row with the share of the day that was lost, by the facts from which its score is made."""
    score = score_of(known)
    if score is None:
        return frame([], CAPTURE_COLUMNS)
    held = [row for row in known.rows if row.record_count]
    row = {
        "meant_seconds": score.meant_ns / NS_PER_S, "lost_seconds": score.lost_ns / NS_PER_S,
        "lost_share": score.lost_ns / score.meant_ns if score.meant_ns else 0.0, "records": score.records,
        "first_ns": min((row.first_ns for row in held), default=None),
        "last_ns": max((row.last_ns for row in held), default=None),
    }  # fmt: skip
    return frame([row], CAPTURE_COLUMNS)


def frame(rows: Sequence[Mapping[str, Any]], columns: Iterable[str]) -> pd.DataFrame:
    """Rows as a frame that has its columns also without any row."""
    return pd.DataFrame(list(rows), columns=list(columns))


def rows_by_ticker(files: Sequence[Path]) -> dict[str, int]:
    """How many rows of a day's files each market has."""
    found: defaultdict[str, int] = defaultdict(int)
    for file in files:
        with opened(file) as parquet:
            for batch in parquet.iter_batches(PIECE, columns=["ticker"]):
                for pair in pc.value_counts(batch.column("ticker")).to_pylist():
                    found[str(pair["values"])] += pair["counts"]
    return dict(found)


def first_received(files: Sequence[Path], tickers: Iterable[str]) -> dict[str, int]:
    """When the first row of each of `tickers` in the files was received, nanoseconds."""
    found: dict[str, int] = {}
    wanted = pa.array(sorted(tickers), pa.string())
    for file in files:
        with opened(file) as parquet:
            for batch in parquet.iter_batches(PIECE, columns=["ticker", "received_time"]):
                some = batch.filter(pc.is_in(batch.column("ticker").cast(pa.string()), wanted))
                times = some.column("received_time").cast(pa.int64()).to_pylist()
                for ticker, at in zip(some.column("ticker").to_pylist(), times, strict=True):
                    found[ticker] = min(at, found.get(ticker, at))
    return found


def leave_out_new(coverage: pd.DataFrame, files: Sequence[Path], synced: datetime | None) -> None:
    """Of a day that is not over: whether it is listed is not asked of a market first heard since the last sync.

    `files` are the day's rows, `synced` is when the last sync that succeeded had begun (None: nobody knows of one).
    """
    unknown = coverage["ticker"][coverage["listed"].eq(False)]
    heard = first_received(files, unknown)
    new = {ticker for ticker, at in heard.items() if synced is None or at >= _ns(synced)}
    if new:
        coverage["listed"] = coverage["listed"].astype(object).mask(coverage["ticker"].isin(new), None)
        since = "at an unknown time" if synced is None else f"at {synced:%H:%M:%S}"
        coverage.attrs[NOTES] = {
            "listed": f"not asked of {len(new):,} of the markets: they were first heard after the last sync of the "
            f"security master ({since}), and the day is not over. Run: ssmd market sync"
        }


def coverage_rows(
    markets: Iterable[HeardMarket],
    heard: Mapping[str, int],
    known: Callable[[str], bool],
    selects: Callable[[str], bool],
    day: date,
) -> pd.DataFrame:
    """The batch `coverage`: active markets of the registry that the environment captures, and all that were heard.

    `heard` are rows of the day by market; `known` asks the registry for any other market. A market should be heard
    when it was open (not: known to us) some minutes before the day ended.
    """
    end_ns = day_bounds(day)[1]
    rows, active = [], set()
    for market in markets:
        active.add(market.ticker)
        count = heard.get(market.ticker, 0)
        settled = _ns(market.open_time or market.known_from) < end_ns - SETTLING_NS
        was_heard = bool(count) or (market.first_heard is not None and _ns(market.first_heard) < end_ns)
        rows.append(
            {
                "ticker": market.ticker, "listed": True, "should_be_heard": settled and selects(market.ticker),
                "heard": was_heard, "heard_on_day": bool(count), "rows": count,
                "open_time": _text(market.open_time), "last_heard": _text(market.last_heard),
            }
        )  # fmt: skip
    rows += [
        {
            "ticker": ticker, "listed": known(ticker), "should_be_heard": False, "heard": True,
            "heard_on_day": True, "rows": heard[ticker], "open_time": "", "last_heard": "",
        }
        for ticker in sorted(heard.keys() - active)
    ]  # fmt: skip
    found = frame(rows, COVERAGE_COLUMNS)
    found["silent"] = found["should_be_heard"].astype(bool) & ~found["heard"].astype(bool)
    return found


def _ns(at: datetime) -> int:
    return int(at.timestamp()) * NS_PER_S


def _text(at: datetime | None) -> str:
    return "" if at is None else at.isoformat()


Figures = dict[str, tuple[float, int]]
"""A figure by name, and how many rows it was made of."""


def object_figures(objects: Sequence[ObjectRecord]) -> tuple[Figures, int]:
    """Figures of a day from its rows in the inventory, and for how long it was captured, nanoseconds."""
    raw = [record for record in objects if record.data_type == "raw" and record.records]
    if not raw:
        return {}, 0
    span = max(record.last_ns for record in raw) - min(record.first_ns for record in raw)
    hours = span / NS_PER_HOUR
    if not span:
        return {}, 0
    frames: defaultdict[str, int] = defaultdict(int)
    size: defaultdict[str, int] = defaultdict(int)
    for record in raw:
        frames[record.group] += record.records
        size["raw"] += record.bytes
    figures = {
        f"{group} frames per hour": (count / hours, count)
        for group, count in sorted(frames.items())
        if group != "control"
    }
    figures["raw bytes per hour"] = size["raw"] / hours, sum(frames.values())
    return figures, span


def quote_figures(files: Sequence[Path]) -> Figures:
    """The median spread of a day's quotes, from their files."""
    spreads = []
    for file in files:
        with opened(file) as parquet:
            for batch in parquet.iter_batches(PIECE, columns=["bid", "ask", "bid_size", "ask_size"]):
                both = batch.to_pandas().astype(float)
                both = both[(both["bid_size"] > 0) & (both["ask_size"] > 0)]
                spreads.append((both["ask"] - both["bid"]).to_numpy())
    values = np.concatenate(spreads) if spreads else np.empty(0)
    return {"median spread of quotes": (float(np.median(values)), len(values))} if len(values) else {}


def market_figures(rows: Mapping[str, Mapping[str, int]]) -> Figures:
    """How many markets there were of each event type."""
    return {f"markets with {kind} events": (float(len(found)), sum(found.values())) for kind, found in rows.items()}


def drift_rows(now: Figures, before: Figures, previous: date) -> pd.DataFrame:
    """The batch `drift`: the figures of both days; a figure that the day before had not, or of few rows, is out."""
    rows = []
    for name in sorted(now.keys() | before.keys()):
        value, count = now.get(name, (0.0, 0))
        earlier, earlier_count = before.get(name, (0.0, 0))
        if max(count, earlier_count) < FEW_ROWS or not earlier:
            continue
        row = {"figure": name, "value": value, "previous": earlier, "ratio": value / earlier}
        rows.append({**row, "previous_day": previous.isoformat()})
    return frame(rows, DRIFT_COLUMNS)


def captured(raw_spans: Iterable[tuple[int, int]], day: date) -> tuple[int, int]:
    """From the first frame of a day to the last; (0, 0) without any."""
    spans = list(raw_spans)
    start = day_start_ns(day)
    return (max(start, min(first for first, _ in spans)), max(last for _, last in spans)) if spans else (0, 0)
